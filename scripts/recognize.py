#!/usr/bin/env python3
"""Measure what `regraft detect` takes checkpoints for: each fixture, with its config and without.

    python3 scripts/recognize.py [--bin target/debug/regraft] [--cases FOLDER …] [--every N]

Fixtures are tests/fixtures/layouts, tests/fixtures/cases and what further folders of cases hold
(see tests/fixtures/cases/README.md), but for layouts that keys can't tell from `hub`. Right is the
rule file that a fixture is for: of a publisher's layout the one that index.json names, of a case
one that names its class or model type. A case of a model that no rule file names is right if
nothing is sure of it.

Many families share names, so that keys alone can't tell them apart, and needn't: a file counts as
right, too, if its plan for these very keys is the plan of a right one, with the fixture's config
and, of a case, the keys of the model as target. Plans are the same if each key comes by the same
ops from the same keys, the same are one tensor, and the same are dropped. A plan that fails is the
same as none. How many are right only so is printed apart.

Printed are the shares, and a table of what was taken for what. Exit code 1 if less than 95 of 100
are right with a config or 85 without, or if something is sure, at whatever place, and not right.

With --every N only each Nth fixture is asked for, and shares are no error: that the command line
says what the engine does, of which a test takes the same measure in one process.
"""

import argparse
import collections
import concurrent.futures
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
FIXTURES = os.path.join(ROOT, "tests", "fixtures")
WITH, WITHOUT = 95, 85
MODELS = r"^models ((?:[^\n]*,[ ]*\n)*[^\n]*)$"


def models():
    """By class and model type, the rule files that name it."""
    found = {}
    for folder in ("", "transformers"):
        path = os.path.join(ROOT, "rules", folder)
        for file in sorted(os.listdir(path)):
            if file.endswith(".graft"):
                name = os.path.join(folder, file[: -len(".graft")])
                with open(os.path.join(path, file)) as f:
                    text = f.read()
                # Files of ranks have to be named.
                lines = [] if re.search(r"^shards ", text, re.M) else re.findall(MODELS, text, re.M)
                for model in (one.strip() for line in lines for one in line.split(",")):
                    found.setdefault(model, set()).add(name)
    return found


@dataclass(frozen=True)
class Fixture:
    """A checkpoint of which it is known what it is."""

    name: str
    path: str
    config: str
    layout: str
    right: frozenset[str]
    target: str | None = None


def written(value, scratch, name):
    """The path of a JSON file."""
    path = os.path.join(scratch, name)
    with open(path, "w") as f:
        json.dump(value, f)
    return path


def layouts(scratch):
    """Fixtures of publishers' layouts."""
    folder = os.path.join(FIXTURES, "layouts")
    with open(os.path.join(folder, "index.json")) as f:
        index = json.load(f)
    told = ((name, layout) for name, layout in index.items() if layout.get("told", True))
    for name, layout in told:
        path = os.path.join(folder, f"{name}.safetensors")
        path = path if os.path.exists(path) else os.path.join(folder, f"{name}.json")
        config = written(layout["config"] or {}, scratch, f"{name}.config")
        yield Fixture(name, path, config, layout["layout"], frozenset([layout.get("rules", name)]))


def cases(folder, files, scratch):
    """Cases of transformers."""
    for file in sorted(os.listdir(folder)):
        if not file.endswith(".json"):
            continue
        with open(os.path.join(folder, file)) as f:
            case = json.load(f)
        if "checkpoint" not in case:
            continue
        name = file[: -len(".json")]
        config = case["config"]
        said = [*(config.get("architectures") or []), config.get("model_type")]
        yield Fixture(
            name,
            written(case["checkpoint"], scratch, file),
            written(config, scratch, f"{name}.config"),
            "hub",
            frozenset().union(*(files.get(one, set()) for one in said)),
            written(list(case["model"]), scratch, f"{name}.target"),
        )


def asked(binary, *arguments):
    """What a command prints as JSON; `None` if nothing."""
    done = subprocess.run([binary, *arguments, "--json"], capture_output=True, text=True)
    return json.loads(done.stdout) if done.stdout.strip() else None


def plan(binary, fixture, rules, layout):
    """The plan for a fixture by a rule file, `None` if there is none."""
    named = ("wrappers", rules, "tied_lm_head")
    given = [argument for name in named for argument in ("--rules", name)]
    target = ["--target", fixture.target] if fixture.target else []
    facts = ["--config", fixture.config, *target]
    made = asked(binary, "plan", fixture.path, *given, "--from", layout, *facts)
    return made if made and "nodes" in made else None


def meaning(plan, numbers):
    """What a plan makes of which keys. `numbers` gives equal steps equal numbers."""
    steps = []
    for node in plan["nodes"]:
        inputs = [steps[one] for one in node.get("inputs", [])]
        step = json.dumps([node["op"], node["info"], inputs], sort_keys=True)
        steps.append(numbers.setdefault(step, len(numbers)))
    ties = (tie for tie in plan.get("ties", []) if tie["outcome"] != "not_tied")
    return (
        {target["key"]: steps[target["node"]] for target in plan["targets"]},
        {(tie["target"], tie["source"]) for tie in ties},
        {json.dumps(one, sort_keys=True) for one in plan.get("dropped", [])},
    )


def does_the_same(binary, fixture, one):
    """Whether what was detected does to the keys what a right file does."""
    numbers = {}
    mine = plan(binary, fixture, one["rules"], one["layout"])
    if mine is None:
        return False
    plans = (plan(binary, fixture, rules, fixture.layout) for rules in sorted(fixture.right))
    meant = (meaning(right, numbers) for right in plans if right is not None)
    return any(right == meaning(mine, numbers) for right in meant)


@dataclass(frozen=True)
class Taken:
    """What a fixture was taken for."""

    name: str
    first: str
    is_right: bool
    does_the_same: bool
    surely_wrong: list[str]


def take(binary, fixture, config):
    """What a fixture is taken for, with a config."""
    found = asked(binary, "detect", fixture.path, "--config", config, "--top", "1000") or []

    def right(one):
        return one["rules"] in fixture.right

    sure = [one for one in found if one["sure"] and not right(one)]
    wrong = [one["rules"] for one in sure if not does_the_same(binary, fixture, one)]
    if not found or not fixture.right:
        is_right = not fixture.right and not sure
        return Taken(fixture.name, "nothing", is_right, False, wrong)
    first = found[0]
    same = not right(first) and does_the_same(binary, fixture, first)
    return Taken(fixture.name, first["rules"], right(first), same, wrong)


def measure(binary, fixtures, scratch, every):
    """Prints the shares and what is wrong; whether they are good enough."""
    good = True
    nothing = written({}, scratch, "nothing.config")
    workers = concurrent.futures.ThreadPoolExecutor(os.cpu_count())
    fixtures = fixtures[::every]
    for title, least, with_config in (("config", WITH, True), ("no config", WITHOUT, False)):
        configs = [fixture.config if with_config else nothing for fixture in fixtures]
        taken = list(workers.map(lambda pair: take(binary, *pair), zip(fixtures, configs)))
        named = sum(one.is_right for one in taken)
        same = sum(one.does_the_same for one in taken)
        share = 100 * (named + same) / max(len(taken), 1)
        good &= share >= least or every > 1
        print(f"with {title}: {named + same} of {len(taken)} right at first place ({share:.1f} %),")
        print(f"  {same} of them by a file that does the same to these keys")
        confused = collections.defaultdict(list)
        for fixture, one in zip(fixtures, taken):
            if one.surely_wrong:
                good = False
                print(f"  {one.name}: surely {', '.join(one.surely_wrong)}, which is wrong")
            if not one.is_right:
                pair = (one.first, ", ".join(sorted(fixture.right)) or "of no file")
                confused[(*pair, one.does_the_same)].append(one.name)
        print(f"  {'taken for':44}  {'is':60}  count")
        for (first, right, same), names in sorted(confused.items()):
            note = ", does the same" if same else ""
            print(f"  {first:44}  {right:60}  {len(names)}{note}: {', '.join(names)}")
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", default=os.path.join(ROOT, "target", "debug", "regraft"))
    parser.add_argument("--cases", nargs="*", default=[])
    parser.add_argument("--every", type=int, default=1, metavar="N")
    args = parser.parse_args()
    files = models()
    with tempfile.TemporaryDirectory() as scratch:
        fixtures = list(layouts(scratch))
        for number, folder in enumerate([os.path.join(FIXTURES, "cases"), *args.cases]):
            own = os.path.join(scratch, str(number))
            os.mkdir(own)
            fixtures += cases(folder, files, own)
        sys.exit(0 if measure(args.bin, fixtures, scratch, args.every) else 1)


if __name__ == "__main__":
    main()

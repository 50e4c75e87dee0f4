#!/usr/bin/env python3
"""Measure what `regraft detect` takes checkpoints for: each fixture, with its config and without.

    python3 scripts/recognize.py [--bin target/debug/regraft] [--cases FOLDER …]

Fixtures are tests/fixtures/layouts, tests/fixtures/cases and what further folders of cases hold
(see tests/fixtures/cases/README.md), but for layouts that keys can't tell from `hub`. Right is the
rule file that a fixture is for: of a publisher's layout the one that index.json names, of a case
one that names its class or model type. A case of a model that no rule file names is right if
nothing is sure of it. Printed are the shares, and each fixture that was taken for something else.
Exit code 1 if less than 95 of 100 are right with a config or 85 without, or if something wrong is
sure.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile

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
                    lines = re.findall(MODELS, f.read(), re.M)
                for model in (one.strip() for line in lines for one in line.split(",")):
                    found.setdefault(model, set()).add(name)
    return found


def layouts():
    """Fixtures of publishers' layouts: (name, path, config, the files that are right)."""
    folder = os.path.join(FIXTURES, "layouts")
    with open(os.path.join(folder, "index.json")) as f:
        index = json.load(f)
    told = ((name, layout) for name, layout in index.items() if layout.get("told", True))
    for name, layout in told:
        path = os.path.join(folder, f"{name}.safetensors")
        path = path if os.path.exists(path) else os.path.join(folder, f"{name}.json")
        yield name, path, layout["config"], {layout.get("rules", name)}


def cases(folder, files, scratch):
    """Cases of transformers."""
    for file in sorted(os.listdir(folder)):
        if not file.endswith(".json"):
            continue
        with open(os.path.join(folder, file)) as f:
            case = json.load(f)
        if "checkpoint" not in case:
            continue
        config = case["config"]
        path = os.path.join(scratch, file)
        with open(path, "w") as f:
            json.dump(case["checkpoint"], f)
        said = [*(config.get("architectures") or []), config.get("model_type")]
        right = set().union(*(files.get(one, set()) for one in said))
        yield file[: -len(".json")], path, config, right


def detect(binary, path, config, scratch):
    """What it is taken for: (rule file, layout, whether it is sure), or None."""
    given = os.path.join(scratch, "given.config")
    with open(given, "w") as f:
        json.dump(config or {}, f)
    command = [binary, "detect", path, "--config", given, "--top", "3", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    return json.loads(done.stdout) if done.stdout.strip() else []


def measure(binary, fixtures, scratch):
    """Prints the shares and what is wrong; whether they are good enough."""
    good = True
    for title, least, with_config in (("config", WITH, True), ("no config", WITHOUT, False)):
        right, total, wrong = 0, 0, []
        for name, path, config, wanted in fixtures:
            found = detect(binary, path, config if with_config else None, scratch)
            first = found[0] if found else None
            total += 1
            sure = first is not None and first["sure"]
            if first and first["rules"] in wanted or not wanted and not sure:
                right += 1
                continue
            sure = first is not None and first.get("sure")
            good &= not (sure and wanted)
            wrong.append((name, first["rules"] if first else "nothing", sure, sorted(wanted)))
        share = 100 * right / max(total, 1)
        good &= share >= least
        print(f"with {title}: {right} of {total} right at first place ({share:.1f} %)")
        for name, taken, sure, wanted in wrong:
            print(f"  {name}: taken for {taken}{' (sure)' if sure else ''}, is {', '.join(wanted)}")
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", default=os.path.join(ROOT, "target", "debug", "regraft"))
    parser.add_argument("--cases", nargs="*", default=[])
    args = parser.parse_args()
    files = models()
    with tempfile.TemporaryDirectory() as scratch:
        fixtures = list(layouts())
        for folder in [os.path.join(FIXTURES, "cases"), *args.cases]:
            fixtures += cases(folder, files, scratch)
        sys.exit(0 if measure(args.bin, fixtures, scratch) else 1)


if __name__ == "__main__":
    main()

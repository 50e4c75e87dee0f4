"""Decide which rule files there are, write them, and check each against transformers' own renaming
of the keys of its models."""

import os
import re
from collections import OrderedDict

from .compose import Composer, File, tie_statements
from .patterns import Group, Pattern, Rule, Use, run
from .registry import Registry, Trace

RULESET = re.compile(r"^ruleset (\w+)(?:: (\w+) (?:<->|->) (\w+))?", re.M)
MODELS = re.compile(r"^models ((?:[^\n]*,[ ]*\n)*[^\n]*)$", re.M)
NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")
LEGACY = re.compile(
    r"(^|\.)LayerNorm\.|\.parametrizations\.weight\.original0$|^model\.language_model\."
)


def hand_written(rules):
    """Model types and classes that a file in `rules` itself claims for the layouts hub and model:
    name -> ruleset."""
    out = OrderedDict()
    for name in sorted(os.listdir(rules)):
        if name.endswith(".graft"):
            with open(os.path.join(rules, name)) as f:
                text = f.read()
            m = RULESET.search(text)
            if m and m[3] == "model":
                for line in MODELS.findall(text):
                    for one in line.split("#")[0].split(","):
                        out[one.strip()] = m[1]
    return out


def written_before(folder):
    """The files that an earlier run wrote: name -> the models that each is for."""
    out = {}
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
        if name.endswith(".graft"):
            with open(os.path.join(folder, name)) as f:
                lines = MODELS.findall(f.read())
            models = {one.strip() for line in lines for one in line.split(",")}
            out[name.removesuffix(".graft")] = models
    return out


def head_sources(rules):
    """The embeddings that rules/tied_lm_head.graft ties an output head to."""
    with open(os.path.join(rules, "tied_lm_head.graft")) as f:
        text = re.sub(r"#.*", "", f.read())
    return set(re.findall(r'"([^"]+)"', text.split("from", 1)[1]))


def landed(facts):
    """Where transformers puts a key whose renamed form the model doesn't know, if it finds a place.

    key -> (model key, whether it is the renamed form without or with the base prefix). The first
    thing it tries is that, then it leaves the key alone if the model knows it as it is.
    """
    known = {NUMBER.sub("#", k) for k in facts["model"]}
    base = facts["base_prefix"] + "."
    out = {}
    for key, want in facts["hub"].items():
        if NUMBER.sub("#", want.replace("*", "0")) in known:
            continue
        for place, by_prefix in (
            (want.removeprefix(base), True),
            (base + want, True),
            (key, False),
        ):
            if place != want and NUMBER.sub("#", place) in known:
                out[key] = place, by_prefix
                break
    return out


NOT_FOLLOWED = [
    "PixioBackbone: it has `layernorm` beside `pixio.layernorm`. On loading, transformers adds "
    "and takes its base prefix of keys that the model knows already, so that the two change "
    "places (4 keys); on saving they stay. Here each keeps its own.",
    (
        "ChineseCLIPModel: transformers sets the row of the padding token in "
        "`text_model.embeddings.word_embeddings.weight` to zero after loading."
    ),
    (
        "ZayaModel, ZayaForCausalLM: transformers sets the last of `balancing_biases` to -1 after "
        "loading."
    ),
    (
        "Step3p7Model without a target manifest: keys of the vision model come out below `model.`, "
        "as in the whole model; the manifest takes that away."
    ),
    "A base model's checkpoint for a class with a head, where nested models have published names "
    "of their own (ColPali, DepthPro, "
    "Mask2Former, MaskFormer, OneFormer, GroundingDino, Molmo2, Qwen3.5-MoE, UnlimitedOCR, "
    "LFM3-VL, T5Gemma2): transformers reads rules of nested "
    "models below the base prefix or where it is missing, these files only below it.",
    (
        "Ties of DETR heads whose numbers differ are those of a default configuration (see the "
        "first section)."
    ),
]


class Importer:
    """From facts about classes to files."""

    def __init__(self, facts, rules):
        self.rules, self.version = rules, facts[0]["version"]
        self.facts = [f for f in facts if "error" not in f]
        self.errors = [f for f in facts if "error" in f]
        self.registry = Registry()
        self.trace = Trace(self.registry)
        for f in self.facts:
            if f["program"]:
                self.trace.add(f)
        for f in self.facts:
            f["landed"] = landed(f)
        self.hand = hand_written(rules)
        self.composer = Composer(self.registry, self.trace, self.hand, head_sources(rules))
        # types of which some class has its base model below a prefix
        self.prefixed = {
            f["model_type"]
            for f in self.facts
            if any(k.startswith(f["base_prefix"] + ".") for k in f["model"])
        }
        self.files = OrderedDict()
        self.before = written_before(os.path.join(rules, "transformers"))
        self.legacy_only = []

    # -- which files

    def claimed(self, facts):
        """The ruleset written by hand that serves a class."""
        if facts["class"] in self.hand:
            return self.hand[facts["class"]]
        by_class = any(entry == facts["class"] for path, entry, _ in facts["program"] if path == "")
        return None if by_class else self.hand.get(facts["model_type"])

    def key(self, facts):
        ties = tuple(
            sorted(
                (t, *s)
                for t, s in facts["ties"].items()
                if not (t == "lm_head.weight" and s[0] in self.composer.covered and s[1] == "tied")
            )
        )
        legacy = any(LEGACY.search(k) for k in facts["model"])
        base = facts["base_prefix"] if facts["model_type"] in self.prefixed else ""
        return self.composer.program(facts), ties, base, legacy

    def plan(self):
        """Group classes by what they need, name each group, and give model types to the group of
        their plain classes."""
        groups, types = OrderedDict(), OrderedDict()
        for f in self.facts:
            if self.claimed(f):
                continue
            k = self.key(f)
            groups.setdefault(k, []).append(f)
            types.setdefault(f["model_type"], OrderedDict()).setdefault(k, []).append(f["class"])
        models = OrderedDict((k, []) for k in groups)
        for model_type, of in types.items():
            if model_type in self.hand:
                primary = None
            else:
                # the bare model and its kin, without ties of a head that they lack
                primary = max(of, key=lambda k: (not k[1], bool(k[0]), len(of[k])))
                models[primary].append(model_type)
            for k, classes in of.items():
                if k != primary and self.needs_file(k, of):
                    models[k] += classes
        self.classes = {f["class"] for f in self.facts}
        self.reserved = {n for names in models.values() for n in names} | set(self.hand.values())
        self.pending = {
            k: (names, groups[k]) for k, names in models.items() if names and (k[0] or k[1])
        }
        for k, names in models.items():
            program, ties, _, legacy = k
            if not names or any(f.key == k for f in self.files.values()):
                continue
            if not program and not ties:
                if legacy:
                    self.legacy_only += list(names)
                continue
            self.make(k, names, groups[k])
        if self.legacy_only:
            self.make(((), (), "", True), self.legacy_only, [], name="old_names")
        # entries that no class reaches by name
        named = {m for f in self.files.values() for m in f.models} | set(self.hand)
        for entry in self.registry.entries:
            if entry in named or entry == "legacy":
                continue
            of_class = next((f for f in self.facts if f["class"] == entry), None)
            if of_class is not None:
                if not self.claimed(of_class):
                    k = self.key(of_class)
                    file = next((f for f in self.files.values() if f.key == k), None) or self.make(
                        k, [], [of_class], name=entry
                    )
                    file.models.append(entry)
                continue
            canonical = self.registry.canonical[entry]
            alone = ((("", canonical),), (), "", False)
            file = next(
                (f for f in self.files.values() if f.key[0] == alone[0] and not f.key[1]), None
            )
            if file is None and self.hand_part(canonical) is None:
                file = self.part(canonical)
            if file is not None:
                file.models.append(entry)
            named.add(entry)

    @staticmethod
    def needs_file(k, of):
        """A class apart from its type's other classes needs a file of its own if theirs would serve
        it wrongly."""
        return bool(k[0] or k[1]) or any(o[0] or o[1] for o in of)

    @staticmethod
    def leave(rule, patterns):
        """The same rule, which leaves some more alone."""
        keep = [*(u.text for u in rule.unless), *patterns]
        return Rule(
            [p.text for p in rule.left],
            [p.text for p in rule.right],
            rule.arrow,
            rule.via,
            keep,
            rule.optional,
        )

    def spare(self, file, facts):
        """Changes of a prefix leave the model's own keys alone. transformers lets its base prefix
        mend what they do to those."""
        for statement in file.statements:
            for n, rule in enumerate(statement.rules if isinstance(statement, Group) else ()):
                text = rule.left[0].text
                if rule.arrow != "->" and text != "{path**}":
                    continue
                literal = 1 if text == "{path**}" else text.split(".{path**}")[0].count(".") + 2
                own = {
                    ".".join(k.split(".")[:literal])
                    for f in facts
                    for k in f["model"]
                    if rule.forward(k) is not None
                }
                spared = [Pattern(f"{k}.**") for k in sorted(own)]
                others = (k for f in facts for k in f["hub"] if k not in f["model"])
                if (
                    own
                    and len(own) <= 5
                    and not any(p.match(k) is not None for k in others for p in spared)
                ):
                    statement.rules[n] = self.leave(rule, [p.text for p in spared])

    def keep(self, file):
        """Keys that transformers renames, doesn't find in the model, and puts elsewhere, are left
        alone by a rule that would lead them astray."""
        places = {k: place for f in file.facts for k, (place, _) in f["landed"].items()}
        kept = {k for k, place in places.items() if run(file.statements, [k]) != [place]}
        others = {k for f in file.facts for k in f["hub"]} - kept

        def cover(keys):
            """The shortest subtrees that hold these keys and none that should move."""
            out = set()
            for key in keys:
                heads = (key.rsplit(".", n)[0] for n in range(key.count("."), 0, -1))
                out.add(
                    next(
                        (h for h in heads if not any(o.startswith(h + ".") for o in others)),
                        key.rpartition(".")[0],
                    )
                )
            return [f"{head}.**" for head in sorted(out)]

        for statement in list(file.statements):
            moved = {k for k in kept if statement.apply([k]) != [k]}
            if isinstance(statement, Use) and moved:
                without = [s for s in file.statements if s is not statement]
                if self.wrong(file, without) < self.wrong(file, file.statements):
                    file.statements = without
                    file.entries.append(
                        f"without {statement.name} under {statement.under}, whose names these "
                        "models don't have"
                    )
            for n, rule in enumerate(statement.rules if isinstance(statement, Group) else ()):
                mine = cover(k for k in moved if rule.forward(k) is not None)
                if mine:
                    before = self.wrong(file, file.statements)
                    statement.rules[n] = self.leave(rule, mine)
                    astray = any(
                        run(file.statements, [k]) != [places[k]]
                        for k in moved
                        if rule.forward(k) is not None
                    )
                    if astray or self.wrong(file, file.statements) > before:
                        statement.rules[n] = rule

    def wrong(self, file, statements):
        """How many keys these statements would rename otherwise than transformers does."""
        before, file.statements = file.statements, statements
        _, there, back = self.check(file)
        file.statements = before
        return len(there) + len(back)

    def settle(self, file, maps):
        """Own maps come last, or before those of nested models: transformers tries them first
        towards model and last towards hub."""
        if not maps:
            return
        last, early = (
            file.statements + maps,
            [s for s in file.statements if not isinstance(s, Use)]
            + maps
            + [s for s in file.statements if isinstance(s, Use)],
        )
        file.statements = last
        _, there, back = self.check(file)
        if (there or back) and any(isinstance(s, Use) for s in last):
            file.statements = early
            _, other_there, other_back = self.check(file)
            if len(other_there) + len(other_back) >= len(there) + len(back):
                file.statements = last

    def hand_part(self, canonical):
        return next(
            (
                self.hand[n]
                for n in self.registry.same(canonical)
                if n in self.hand and n not in ("llava",)
            ),
            None,
        )

    def part(self, canonical):
        """The file that holds an entry's rules alone, made if there is none."""
        for file in self.files.values():
            if file.key[0] == (("", canonical),) and not file.key[1]:
                return file
        for k, (names, facts) in self.pending.items():
            if k[0] == (("", canonical),) and not k[1]:
                return self.make(k, names, facts)
        return self.make(((("", canonical),), (), "", False), [], [], canonical)

    def make(self, k, names, facts, name=None):
        program, ties, base, legacy = k
        root = next((e for path, e in program if path == ""), None)
        if name is None:
            wish = [n for n in ([root] if root else []) if n in names]
            wish += (
                [n for n in names if n not in self.classes]
                + [f["model_type"] for f in facts if f["model_type"] not in self.reserved]
                + names
            )
            name = next(
                n
                for n in [*wish, *(f"{n}_names" for n in wish)]
                if n.replace("-", "_") not in self.files
            )
        name = self.kept_name(name.replace("-", "_"), names)
        while name in self.files:
            name += "_names"
        file = self.files[name] = File(name)
        file.key, file.models, file.facts = k, list(names), facts
        file.prefix, file.legacy = base, legacy
        maps = []
        own = [e for path, e in program if path == ""]
        for entry in own:
            e, renames, late = self.composer.own(entry)
            file.entries.append(entry)
            file.lets += [x for x in e.lets if x not in file.lets]
            file.unsaid += e.unsaid
            file.notes += e.notes
            file.statements += renames
            maps += late
        covered = set()
        for path, entry in program:
            if path == "" or (path, entry) in covered:
                continue
            hand = self.hand_part(entry)
            if hand is not None:
                e, renames, late = self.composer.own(entry)
                file.statements.append(Use(hand, path, renames + late))
            else:
                part = self.part(entry)
                file.statements.append(Use(f"transformers/{part.name}", path, part.statements))
                covered |= {(f"{path}.{p}".strip("."), e) for p, e in part.key[0]}
            file.entries.append(f"{entry} under {path}")
        # a part is for the classes of its entry too, wherever they are files of their own
        own = facts or [
            f for f in self.facts if len(program) == 1 and ("", root) in self.composer.program(f)
        ]
        self.spare(file, own)
        self.settle(file, maps)
        self.keep(file)
        file.ties, unsaid = tie_statements(
            {t: (s, when) for t, s, when in ties}, self.composer.covered
        )
        file.unsaid += unsaid
        return file

    def kept_name(self, name, models):
        """The name that a file for most of these models had before, if there was one: people name
        files in commands."""
        shared = {
            known: len(of & set(models))
            for known, of in self.before.items()
            if of & set(models) and known not in self.files
        }
        return max(shared, key=lambda known: (shared[known], known == name), default=name)

    # -- checking and writing

    def check(self, file):
        """Compare with transformers on every key: (keys compared, differences forwards, differences
        backwards)."""
        compared, there, back = 0, [], []
        for f in file.facts:
            for key, want in f["hub"].items():
                compared += 1
                got = run(file.statements, [key])
                place, by_prefix = f["landed"].get(key, (want, True))
                if place not in got and not (by_prefix and want in got):
                    want = place
                    there.append(
                        f"{f['class']}: `{key}` becomes `{want}` in transformers, `{got[0]}` here"
                    )
            for key, want in f["model"].items():
                compared += 1
                got = run(file.statements, [key], True)
                if want not in got:
                    back.append(
                        f"{f['class']}: `{key}` goes back to `{want}` in transformers, to "
                        f"`{got[0]}` here"
                    )
        return compared, there, back

    def examples(self, file):
        """A key for each statement that moves one, in both layouts."""
        out, seen = [], set()
        for f in file.facts[:3]:
            for key in f["hub"]:
                for n, s in enumerate(file.statements):
                    if (
                        n not in seen
                        and s.apply([key]) != [key]
                        and not (
                            isinstance(s, Group)
                            and s.word == "map"
                            and any(len(r.left) + len(r.right) > 2 for r in s.rules)
                        )
                    ):
                        seen.add(n)
                        right = run(file.statements, [key])
                        if len(right) == 1 and right[0] != key and "*" not in right[0]:
                            arrow = (
                                "<->"
                                if [
                                    re.sub(r"\*", "0", k) for k in run(file.statements, right, True)
                                ]
                                == [re.sub(r"(?<=experts\.)\d+", "0", key)]
                                else "->"
                            )
                            left = re.sub(r"(?<=experts\.)\d+", "0", key) if arrow == "<->" else key
                            line = f'example "{left}" {arrow} "{right[0]}"'
                            if line not in out:
                                out.append(line)
        return out[:4]

    def text(self, file):
        compared, there, back = self.check(file)
        file.compared, file.there, file.back = compared, there, back
        entries = "; ".join(dict.fromkeys(file.entries))
        origin = f"registry: {entries}" if entries else "ties" if file.ties else "names of old"
        lines = wrap(f"{file.name}: imported from transformers {self.version} ({origin}).")
        lines += [
            "##",
            "## Layouts: hub is what is published, model what transformers v5 holds in memory.",
        ]
        classes = ", ".join(f["class"] for f in file.facts)
        if classes:
            lines += wrap(f"Classes: {classes}.")
            agree = (
                "all as transformers renames them"
                if not there and not back
                else f"{len(there)} differ towards model, {len(back)} towards hub"
            )
            lines += wrap(
                f"Verified on key names: {compared} keys of these classes, both ways, {agree}."
            )
        else:
            lines += [
                "## No model of its own on any name that transformers builds by default: not "
                "verified on keys."
            ]
        for reason in dict.fromkeys(file.unsaid):
            lines += wrap(f"Not expressed: {reason}.")
        lines += [f"ruleset {file.name}: hub <-> model"]
        if file.models:
            lines += [f"models {', '.join(file.models)}"]
        if file.lets:
            lines += ["", *dict.fromkeys(file.lets)]
        for s in file.statements:
            lines += ["", s.text()]
        if file.legacy:
            lines += ["", "use legacy_names"]
        if file.prefix:
            lines += ["", f'prefix "{file.prefix}"']
        for targets, source, when in file.ties:
            clause = {"tied": " when tied", "always": ""}.get(when)
            if clause is None:
                path, default = when.split("=")
                clause = f" when config.{path}.tie_word_embeddings ?? {default}"
            joined = ",\n    ".join(f'"{t}"' for t in targets)
            lines += [
                "",
                f"tie {joined}"
                + ("\nfrom" if len(targets) > 1 else " from")
                + f' "{source}"'
                + clause,
            ]
        found = self.examples(file)
        if found:
            lines += ["", *found]
        return "\n".join(lines) + "\n"

    def write(self):
        self.plan()
        place = os.path.join(self.rules, "transformers")
        os.makedirs(place, exist_ok=True)
        for old in os.listdir(place):
            if old.endswith(".graft"):
                os.unlink(os.path.join(place, old))
        for file in self.files.values():
            with open(os.path.join(place, file.name + ".graft"), "w") as f:
                f.write(self.text(file))
        with open(os.path.join(place, "REPORT.md"), "w") as f:
            f.write(self.report())

    def report(self):
        """What isn't expressed, what differs, what couldn't be asked."""
        out = [
            f"# Import from transformers {self.version}",
            "",
            (
                "Written by `scripts/import_transformers.py`. Everything that the registry says "
                "and these files don't, by name."
            ),
            "",
            "## Not expressed",
            "",
        ]
        seen = OrderedDict()
        for file in self.files.values():
            for reason in file.unsaid:
                seen.setdefault(reason, []).append(file.name)
        out += [f"* {', '.join(names)}: {reason}" for reason, names in seen.items()] or ["Nothing."]
        for title, field in (
            ("Towards model, keys that come out otherwise", "there"),
            ("Towards hub, keys that come out otherwise", "back"),
        ):
            out += ["", f"## {title}", ""]
            rows = [(f.name, getattr(f, field)) for f in self.files.values() if getattr(f, field)]
            out += [f"* {name}: {len(rows_)} keys, such as {rows_[0]}" for name, rows_ in rows] or [
                "None."
            ]
        reached = {e for f in self.facts for _, e, _ in f["program"]}
        out += ["", "## Entries that no class reaches which transformers builds by default", ""]
        out += [", ".join(sorted(set(self.registry.entries) - reached)) or "None."]
        out += ["", "## Classes that can't be built by default, so not asked", ""]
        out += [f"* {e['class']}: {e['error'].strip().splitlines()[0][:120]}" for e in self.errors]
        out += [
            "",
            "## Where transformers isn't followed, found with `scripts/make_cases.py`",
            "",
            *(f"* {one}" for one in NOT_FOLLOWED),
        ]
        return "\n".join(out) + "\n"


def wrap(text, width=116):
    """A comment of several lines."""
    import textwrap

    return [
        "## " + line
        for line in textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
    ]

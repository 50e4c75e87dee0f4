"""The conversion registry of the installed transformers, as data: entries, their rules, and what
each rule does to real keys."""

from transformers.conversion_mapping import _build_checkpoint_conversion_mapping
from transformers.core_model_loading import (
    GroupWeightRename,
    Inkling2IndexOffsetWeightRename,
    PrefixChange,
    WeightConverter,
)

from .patterns import Drop, Group, Pattern, Rule, example
from .translate import Inexpressible, convert_patterns, rename


def signature(transforms):
    """Equal for entries with equal rules."""
    return tuple(
        (
            type(t).__name__,
            tuple(t._original_source_patterns),
            tuple(t._original_target_patterns),
            tuple(
                (type(o).__name__, tuple(sorted((k, str(v)) for k, v in vars(o).items())))
                for o in getattr(t, "operations", ())
            ),
        )
        for t in transforms
    )


def kinds_of(t):
    """The names of a converter's operations; of a rename there are none."""
    return tuple(type(o).__name__ for o in getattr(t, "operations", ()))


def describe(t):
    """A rule as a person reads it."""
    return f"{' , '.join(t._original_source_patterns)} -> {' , '.join(t._original_target_patterns)}"


class Registry:
    """Entries by name; entries with equal rules share a canonical name, the first."""

    def __init__(self):
        self.entries = _build_checkpoint_conversion_mapping()
        self.signatures = {name: signature(ts) for name, ts in self.entries.items()}
        self.canonical, first = {}, {}
        for name, s in self.signatures.items():
            self.canonical[name] = first.setdefault(s, name)

    def same(self, name):
        """All entries with the rules of this one."""
        return [n for n, s in self.signatures.items() if s == self.signatures[name]]

    def fresh(self, program):
        """New transforms for a program: [(path, entry, index, transform)]."""
        from copy import deepcopy

        return [
            (path, entry, index, deepcopy(self.entries[entry][index]))
            for path, entry, index in program
        ]


class Trace:
    """What each rule of each entry did to the keys of all models: (entry, index) -> {before:
    after}, both ways."""

    def __init__(self, registry):
        self.registry = registry
        self.forward, self.backward = {}, {}
        self.together = {}  # entry -> sets of indices that moved one key
        self.heads = {}  # (class, module path, entry) -> subtrees in which it moved a key
        self.faults = []

    @staticmethod
    def _scoped(path, base, key):
        """The key below a module, as transformers scopes rules: below the base model's prefix or
        where that prefix is missing."""
        if not path:
            return "", key
        scope = path.removeprefix(base).removeprefix(".") + "."
        scope = "" if scope == "." else scope
        for head in (f"{base}.{scope}" if base else scope, scope):
            if key.startswith(head):
                return head, key[len(head) :]
        return None, key

    def add(self, facts):
        """Follow every key of a model through its program."""
        base = facts["base_prefix"]
        program = self.registry.fresh(facts["program"])
        renames = [x for x in program if not isinstance(x[3], WeightConverter)]
        converters = [x for x in program if isinstance(x[3], WeightConverter)]
        for key in sorted(facts["hub"]):
            now = self._walk(key, renames, base, self.forward, False, facts["class"])
            now = self._walk(now, converters, base, self.forward, True, facts["class"])
            if facts.get("trusted") is None and now != facts["hub"][key]:
                self.faults.append(
                    f"{facts['class']}: {key} gives {facts['hub'][key]} in transformers, {now} here"
                )
        back = [
            (p, e, i, t.reverse_transform())
            for p, e, i, t in self.registry.fresh(facts["program"])[::-1]
            if not isinstance(t, PrefixChange)
        ]
        renames = [x for x in back if not isinstance(x[3], WeightConverter)]
        converters = [x for x in back if isinstance(x[3], WeightConverter)]
        for key in sorted(facts["model"]):
            now = self._walk(key, converters, base, self.backward, True, facts["class"])
            self._walk(now, renames, base, self.backward, False, facts["class"])

    def _walk(self, key, program, base, into, first_only, name=None):
        moved = {}
        for path, entry, index, t in program:
            head, rest = self._scoped(path, base, key)
            if head is None:
                continue
            t.scope_prefix = t.base_model_prefix = None
            after, pattern = t.rename_source_key(rest)
            canonical = self.registry.canonical[entry]
            into.setdefault((canonical, index), {})[rest] = after
            if pattern is not None:
                moved.setdefault(canonical, set()).add(index)
                self.heads.setdefault((name, path, entry), set()).add(head.rstrip("."))
                key = head + after
                if first_only:
                    break
        for entry, which in moved.items():
            if len(which) > 1:
                self.together.setdefault(entry, set()).add(frozenset(which))
        return key


OPS = {
    ("MergeModulelist",): lambda o, n: (
        f"stack({n})" if o[0].dim == 0 else f"stack({n}, {o[0].dim})"
    ),
    ("MergeModulelist", "Concatenate"): lambda o, n: f"stack({n}) | concat({o[1].dim})",
    ("Chunk",): lambda o, n: f"split({o[0].dim})",
    ("Concatenate",): lambda o, n: (
        f"concat({o[0].dim})"
        if o[0].num_shards_attribute is None
        else f"concat({o[0].dim}, over {n})"
    ),
    ("Interleave",): lambda o, n: f"{'interleave' if o[0].inverse else 'deinterleave'}({o[0].dim})",
    ("Interleave", "Chunk"): lambda o, n: (
        f"{'interleave' if o[0].inverse else 'deinterleave'}({o[0].dim}) | split({o[1].dim})"
    ),
}


class Entry:
    """One entry's rules in the language: renames, then maps; what couldn't be said, with the
    reason."""

    def __init__(self, registry, name, trace):
        self.name, self.trace, self.registry = name, trace, registry
        self.lets, self.unsaid, self.notes = [], [], []
        self.renames, self.maps = [], []  # [(index, [Rule])]
        self.first, self.drops = [], []  # statements before and after the renames
        for index, t in enumerate(registry.entries[name]):
            try:
                if kinds_of(t) == ("Inkling2UnpadVocab",):
                    self._unpadded(t)
                elif kinds_of(t)[:1] == ("Inkling2LoopDequantizeExperts",):
                    self._plain_experts(t, index)
                elif isinstance(t, WeightConverter):
                    self.maps.append((index, self._map(t, index)))
                else:
                    self.renames.append((index, self._rename(t, index)))
            except Inexpressible as e:
                self.unsaid.append(f"{describe(t)}: {e}")

    def _rename(self, t, index):
        if isinstance(t, PrefixChange):
            head = f"{t.model_prefix}." if t.model_prefix else ""
            if t.prefix_to_add is not None:
                keep = [f"{head}{t.prefix_to_add}.**"]
                left, right = f"{head}{{path**}}", f"{head}{t.prefix_to_add}.{{path**}}"
            else:
                keep = []
                left, right = f"{head}{t.prefix_to_remove}.{{path**}}", f"{head}{{path**}}"
            return [
                Rule(
                    left.replace("\\.", "."),
                    right.replace("\\.", "."),
                    "->",
                    unless=keep,
                    optional=True,
                )
            ]
        rules = []
        offset = t.offset if isinstance(t, Inkling2IndexOffsetWeightRename) else 0
        targets = t._original_target_patterns
        for n, source in enumerate(t._original_source_patterns):
            target = targets[n] if isinstance(t, GroupWeightRename) else targets[0]
            for ways in rename(source, target, offset):
                rules.append(ways)
        return self._choose(rules, t, index)

    def _choose(self, readings, t, index):
        """The narrowest way to write each reading under which all keys move as the regex moves
        them."""
        key = (self.registry.canonical[self.name], index)
        there, back = self.trace.forward.get(key, {}), self.trace.backward.get(key, {})
        plain = [ways["whole"] for ways in readings]
        tries = [plain]
        if any("below" in ways for ways in readings):
            tries.append([ways.get("below", ways["whole"]) for ways in readings])
        if any("above" in ways for ways in readings):
            tries.append([ways.get("above", ways["whole"]) for ways in readings])
        for mode in ("inside", "start"):
            if any(mode in ways for ways in readings):
                tries.append([r for ways in readings for r in [ways["whole"], *ways.get(mode, [])]])
                tries.append([r for ways in readings for r in ways.get(mode, [ways["whole"]])])
        tries = [[self._middle(r, there) for r in rules] for rules in tries]
        best = None
        for rules in tries:
            wrong = [
                k
                for k, after in there.items()
                if Group("rename", rules).apply([k]) != [after]
                and not isinstance(t, GroupWeightRename)
            ]
            wrong_back = [
                k for k, after in back.items() if Group("rename", rules).apply([k], True) != [after]
            ]
            if best is None or (len(wrong), len(wrong_back)) < best[:2]:
                best = (len(wrong), len(wrong_back), rules, wrong, wrong_back)
            if not wrong and not wrong_back:
                break
        _, _, rules, wrong, wrong_back = best
        for rule in rules:
            lost = [n for n in rule.left[0].names() if n not in rule.right[0].names()]
            if lost and not wrong:
                return self._one_of_many(rule, lost)
        rules = [self._once(self._bare(r, there, back), there, back) for r in rules]
        if wrong:
            k = wrong[0]
            raise Inexpressible(
                f"`{k}` becomes `{there[k]}`, and no whole-segment pattern does that"
            )
        if wrong_back:
            k = wrong_back[0]
            self.notes.append(
                f"{describe(t)}: backwards, transformers makes `{back[k]}` of `{k}`, this file "
                f"`{Group('rename', rules).apply([k], True)[0]}`"
            )
        return rules

    def _one_of_many(self, rule, lost):
        """Many keys that are to be one, all numbers of a segment: transformers takes the first.
        Back it writes a star in place of the number."""
        if len(readings := rule.left + rule.right) != 2 or len(lost) != 1:
            raise Inexpressible("makes one key of many, in more than one way")
        left, right = (p.text.removesuffix(".**") for p in readings)
        number = "{" + lost[0] + "}"
        self.drops.append(Drop("The first stands for all, which hold the same.", left))
        # at the root or below the base model's name, since `**.` would take the many for results
        written = [
            Rule(
                *(head + p.replace(number, "\\*").removeprefix("**.") for p in (left, right)),
                optional=True,
            )
            for head in ("", "{p*}.")
        ]
        return [*written, Rule(left.replace(number, "0"), right, "->", optional=True)]

    @staticmethod
    def _once(rule, there, back):
        """Where a result looks like a source (`x` -> `module.x`), what has moved already is left
        alone, so that moving twice moves once."""
        result = rule.right[0].text
        for name, (kind, words) in rule.left[0].words().items():
            if kind == "words":
                result = result.replace(
                    "{" + name + "}", "{" + name + ": " + "|".join(b for _, b in words) + "}"
                )
            elif name == "part":
                return rule
        if (
            rule.arrow == "->"
            or rule.forward(example(Pattern(result), "")) is None
            or result in [u.text for u in rule.unless]
        ):
            return rule
        kept = Rule(
            rule.left[0].text,
            rule.right[0].text,
            rule.arrow,
            rule.via,
            [*(u.text for u in rule.unless), result],
            rule.optional,
        )
        same = all(kept.forward(k) == rule.forward(k) for k in there) and all(
            kept.backward(k) == rule.backward(k) for k in back
        )
        return kept if same else rule

    @staticmethod
    def _bare(rule, there, back):
        """Without the `.**` at the end, where every key that moves ends there."""
        sides = rule.left + rule.right
        if not all(p.text.endswith(".**") for p in sides) or any(
            p.text.endswith("{part*}.**") for p in sides
        ):
            return rule
        short = Rule(
            *([p.text[:-3] for p in side] for side in (rule.left, rule.right)),
            rule.arrow,
            rule.via,
            [u.text for u in rule.unless],
            rule.optional,
            rule.late,
        )
        moved = (
            [k for k in there if rule.forward(k) is not None],
            [k for k in back if rule.backward(k) is not None],
        )
        same = all(short.forward(k) == rule.forward(k) for k in moved[0]) and all(
            short.backward(k) == rule.backward(k) for k in moved[1]
        )
        return short if same and (moved[0] or moved[1]) else rule

    @staticmethod
    def _middle(rule, keys):
        """A `(.+)` inside a pattern stands for the segments that keys have there, if they all have
        the same."""
        import re

        if len(rule.left) != 1 or not re.search(r"\{path\*\*\}\.", rule.left[0].text):
            return rule
        seen = {
            re.sub(r"(?<![^.])\d+(?![^.])", "#", b["path"])
            for k in keys
            if (b := rule.left[0].match(k)) is not None
        }
        if len(seen) != 1:
            return rule
        middle = seen.pop()
        for name in ("l", "i", "j", "k"):
            middle = middle.replace("#", "{" + name + "}", 1)
        return Rule(
            *(p.text.replace("{path**}", middle) for p in (rule.left[0], rule.right[0])),
            unless=[u.text.replace("{path**}", middle) for u in rule.unless],
        )

    def _unpadded(self, t):
        """An output head whose published form has more rows than the model's, of zeros when it is
        written: taken by the published name, which a rename before would have changed."""
        [target] = (p.replace("\\", "") for p in t._original_target_patterns)
        for n, (index, _) in enumerate(self.renames):
            rename = self.registry.entries[self.name][index]
            [there] = rename._original_target_patterns
            if target.startswith(there):
                [source] = rename._original_source_patterns
                del self.renames[n]
                break
        else:
            raise Inexpressible("no rename before it says how the head is published")
        for field in ("vocab_size", "unpadded_vocab_size"):
            self.lets.append(f"let {field} = config.text_config.{field} ?? config.{field}")
        published = source.replace("\\", "") + target.removeprefix(there)
        via = "slice(0, ..unpadded_vocab_size, vocab_size)"
        rule = Rule(f"**.{published}", f"**.{target}", via=via)
        self.first.append(Group("map", [rule]))

    def _plain_experts(self, t, index):
        """Experts that may be published quantized: the rule for plain ones."""
        left, right, keep, _ = convert_patterns(
            t._original_source_patterns[:1], t._original_target_patterns
        )
        rest = tuple(t.operations[1:])
        via = OPS[kinds_of(t)[1:]](rest, "e") if rest else ""
        rules = self._checked([Rule(left, right, via=via, unless=keep)], t, index)
        (self.maps if rest else self.renames).append((index, rules))
        self.unsaid.append(
            f"{describe(t)}: plain experts only; quantized ones are refused, since what else "
            "belongs to them stays behind"
        )

    def _map(self, t, index):
        kinds = kinds_of(t)
        left, right, keep, captures = convert_patterns(
            t._original_source_patterns, t._original_target_patterns
        )
        if kinds == ("Transpose",):
            o = t.operations[0]
            if o.check_dims:
                raise Inexpressible(
                    "transposes where the shapes ask for it, and which lengths tell isn't said; "
                    "such a file is written by hand"
                )
            return self._checked(
                [Rule(left, right, via=f"transpose({o.dim0}, {o.dim1})", unless=keep)], t, index
            )
        if "PermuteForRope" in kinds:
            return self._rope(t, left, right, keep, index)
        if kinds == ("ErnieFuseAndSplitTextVisionExperts",) and len(right) == 2:
            return self._two_kinds(left, right, keep, captures[0])
        if kinds == ("Split",) and [p.split(".")[-2][0] for p in right] == ["q", "k", "v"]:
            # it cuts by the sizes of the model's parameters, which for query, key and value are
            # those of their heads
            for name, field in (
                ("heads", "num_attention_heads"),
                ("kv_heads", "num_key_value_heads"),
            ):
                self.lets.append(f"let {name} = config.text_config.{field} ?? config.{field}")
            return self._checked(
                [
                    Rule(
                        left,
                        right,
                        via=f"split({t.operations[0].dim}, heads, kv_heads, kv_heads)",
                        unless=keep,
                    )
                ],
                t,
                index,
            )
        if kinds == ("Inkling2LoopMergeMessageQueries",):
            return self._queries(left, right)
        if kinds == ("Concatenate",) and t.operations[0].num_shards_attribute:
            name = t.operations[0].num_shards_attribute
            self.lets.append(f"let parts = config.text_config.{name} ?? config.{name}")
            left = [
                p.replace("{" + captures[0] + "}", "{" + captures[0] + ": 0..parts}") for p in left
            ]
        if kinds not in OPS:
            raise Inexpressible(
                f"ops {' | '.join(kinds)}"
                + (": sizes of the model's parameters" if "Split" in kinds else "")
            )
        via = OPS[kinds](t.operations, captures[0] if captures else "e")
        return self._checked([Rule(left, right, via=via, unless=keep)], t, index)

    def _queries(self, left, right):
        """Queries of each layer, two and two, of which the first two become the first and the
        last of four."""
        self.lets.append("let hidden = config.text_config.hidden_size ?? config.hidden_size")
        (outer, inner), (query,) = ([text[:-3] for text in side] for side in (left, right))
        ends, between = [f"{query}_{end}" for end in ("first", "last")], f"{query}_between"
        pairs = "reshape([-1, 2, hidden], [-1, hidden])"
        return [
            Rule([outer], ends, via=f"{pairs} | split(1)"),
            Rule([inner], [between], via=pairs),
            Rule([ends[0], between, ends[1]], [query], via="concat(1, 1, 2, 1)", late=True),
        ]

    def _two_kinds(self, left, right, keep, name):
        """Experts of two kinds in one list, the first half text's, the second vision's, each kind
        with sizes of its own."""
        self.lets.append(
            "let experts = config.text_config.moe_num_experts ?? config.moe_num_experts"
        )
        via = f"stack({name})" + (" | concat(1)" if len(left) > 1 else "")
        bounds = ("0..experts", "experts..2 * experts")
        return [
            Rule(
                [p.replace("{" + name + "}", "{" + f"{name}: {b}" + "}")[:-3] for p in left],
                [target[:-3]],
                via=via,
                unless=keep,
            )
            for b, target in zip(bounds, right)
        ]

    def _rope(self, t, left, right, keep, index):
        """RoPE's two orders of a head's rows: cut first, then turn query and key by name."""
        o = t.operations[-1]
        config = (
            "config." + (f"{o.subconfig_key}." if o.subconfig_key else "") + "num_attention_heads"
        )
        self.lets = [f"let heads = {config}"]
        if len(right) == 1:
            return self._checked(
                [Rule(left, right, via="rope_halves(heads)", unless=keep, late=True)], t, index
            )
        [first] = self._checked([Rule(left, right, via="split(0)", unless=keep)], t, index)
        left, right = [p.text for p in first.left], [p.text for p in first.right]
        turned, out = [], []
        for pattern in right:
            if o.permute_layer_names is None or any(n in pattern for n in o.permute_layer_names):
                between = pattern.replace("_proj", "_proj_pairs")
                turned.append(Rule([between], [pattern], via="rope_halves(heads)", late=True))
                out.append(between)
            else:
                out.append(pattern)
        return [Rule(left, out, via="split(0)", unless=keep), *turned]

    def _checked(self, rules, t, index):
        """A converter's rule, as it is or beginning inside a segment, whichever moves all keys as
        the regexes do."""
        key = (self.registry.canonical[self.name], index)
        there, back = self.trace.forward.get(key, {}), self.trace.backward.get(key, {})
        [rule] = rules
        glued = None
        if all(
            p.text.startswith("**.") and not p.text.startswith("**.{")
            for p in rule.left + rule.right
        ):
            left, right = (
                [p.text.replace("**.", "**.{part*}", 1) for p in side]
                for side in (rule.left, rule.right)
            )
            glued = Rule(
                left, right, rule.arrow, rule.via, [u.text for u in rule.unless], late=rule.late
            )
        wrong = None
        for one in filter(None, (rule, glued)):
            bad = next(
                (k for k, after in there.items() if after not in (one.forward(k) or [k])), None
            )
            if bad is None:
                break
            wrong = wrong or bad
        else:
            raise Inexpressible(
                f"`{wrong}` becomes `{there[wrong]}`, and no whole-segment pattern does that"
            )
        for before, after in back.items():
            got = one.backward(before) or [before]
            if after not in got:
                self.notes.append(
                    f"{describe(t)}: backwards, transformers makes `{after}` of `{before}`, this "
                    f"file `{got[0]}`"
                )
                break
        return [self._bare(one, there, back)]

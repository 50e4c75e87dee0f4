"""Put entries together to rule files: which classes share one, what it uses of others, its ties,
and whether it does what transformers does."""

import re
from collections import OrderedDict

from .patterns import Group, Pattern, Rule, example

NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")

# What rules/tied_lm_head.graft already looks for.
HEAD = "lm_head.weight"


class File:
    """A rule file to be written: statements in order, what it covers, what it leaves out."""

    def __init__(self, name):
        self.name, self.models, self.statements = name, [], []
        self.lets, self.ties, self.prefix, self.legacy = [], [], None, False
        self.unsaid, self.notes, self.entries, self.classes = [], [], [], []
        self.hand = False


def grouped(rules, together):
    """Renames as few `rename` statements as mean the same: neighbours that never move one key go
    into one group.

    `rules` is [(index, [Rule])]; `together` are sets of indices that transformers applied to one
    key."""
    out, current, indices = [], [], set()

    def close():
        if current:
            out.append(Group("rename", merged(list(current))))
            current.clear()
            indices.clear()

    for index, some in rules:
        clash = any(index in pair and pair & indices for pair in together) or any(
            touch(a, b) for a in current for b in some
        )
        if clash:
            close()
        current += some
        indices.add(index)
    close()
    return out


def touch(a, b):
    """Whether one key can be moved by both rules, in a row or at once; tried on keys made from
    their patterns."""
    for fill in ("", "a.3.b"):
        for pattern in (*a.left, *a.right):
            if b.forward(example(pattern, fill)) is not None:
                return True
        for pattern in (*b.left, *b.right):
            key = example(pattern, fill)
            if a.forward(key) is not None or (pattern in b.left and a.backward(key) is not None):
                return True
        for pattern in a.left + a.right:
            if b.backward(example(pattern, fill)) is not None:
                return True
        for pattern in b.right:
            if a.backward(example(pattern, fill)) is not None:
                return True
        # a prefix that goes may leave any key, so one that the other takes
        for pattern in b.left if a.arrow == "->" and a.left[0].text.endswith("{path**}") else ():
            moved = a.forward(a.left[0].text.replace("{path**}", example(pattern, fill)))
            if moved is not None and b.forward(moved[0]) is not None:
                return True
    return False


def merged(rules):
    """Rules that differ in one word on each side, written once with an enumeration."""
    out = []
    for rule in rules:
        if out and (both := enumeration(out[-1], rule)) is not None:
            out[-1] = both
        else:
            out.append(rule)
    return out


def enumeration(a, b):
    """`a` and `b` as one rule, or None. `a` may be an enumeration already, over `{x}`."""
    if (a.arrow, a.via, [u.text for u in a.unless], a.optional) != (
        b.arrow,
        b.via,
        [u.text for u in b.unless],
        b.optional,
    ):
        return None
    if len(a.left) + len(a.right) + len(b.left) + len(b.right) != 4:
        return None
    sides = []
    for p, q in ((a.left[0].text, b.left[0].text), (a.right[0].text, b.right[0].text)):
        ps, qs = split(p), split(q)
        if len(ps) != len(qs):
            return None
        differ = [i for i, (x, y) in enumerate(zip(ps, qs)) if x != y]
        if len(differ) != 1:
            return None
        sides.append((ps, qs, differ[0]))
    (pl, ql, i), (pr, qr, j) = sides
    old, new_left, new_right = pl[i], ql[i], qr[j]
    if re.search(r"[{}*]", new_left + new_right):
        return None
    if m := re.fullmatch(r"\{x: (.+)\}", old):
        if pr[j] != "{x}":
            return None
        words = [w.strip().split("=>") for w in m[1].split(" | ")]
    elif re.search(r"[{}*]", old + pr[j]) or "{x" in a.left[0].text:
        return None
    else:
        words = [[old, pr[j]]]
    words = [[w[0], w[-1]] for w in words] + [[new_left, new_right]]
    if len({w[0] for w in words}) < len(words) or len({w[1] for w in words}) < len(words):
        return None
    left = list(pl)
    left[i] = "{x: " + " | ".join(x if x == y else f"{x}=>{y}" for x, y in words) + "}"
    right = list(pr)
    right[j] = "{x}"
    return Rule(
        ".".join(left), ".".join(right), a.arrow, a.via, [u.text for u in a.unless], a.optional
    )


def split(text):
    """Segments of a pattern's text."""
    return Pattern.segments(text)


def tie_statements(ties, covered):
    """Ties by pattern: numbers that agree or differ by the same on both sides become captures,
    weight and bias an enumeration.

    Gives [(targets, source, when)] and what only a default configuration says."""
    by = OrderedDict()
    for target, (source, when) in sorted(ties.items()):
        if target == HEAD and source in covered and when == "tied":
            continue
        numbers = [int(n) for n in NUMBER.findall(target)], [int(n) for n in NUMBER.findall(source)]
        by.setdefault((NUMBER.sub("#", target), NUMBER.sub("#", source), when), []).append(
            (*numbers, target, source)
        )
    out, unsaid = [], []
    for (skeleton_t, skeleton_s, when), rows in by.items():
        steps = {
            tuple(s - t for t, s in zip(ts, ss)) if len(ts) == len(ss) else None
            for ts, ss, _, _ in rows
        }
        step = steps.pop() if len(steps) == 1 else None
        if step is None or not step or (len(rows) == 1 and any(step)) or min(step) < 0:
            out += [(target, source, when) for _, _, target, source in rows]
            if len(rows) > 4:
                unsaid.append(
                    f"ties of {skeleton_t} to {skeleton_s}: their numbers differ, so only those "
                    "of a default configuration are listed"
                )
            continue
        target, source = skeleton_t, skeleton_s
        for name, n in zip("ijkmnpq", step):
            target = target.replace("#", "{" + name + "}", 1)
            source = source.replace("#", "{" + name + (f"+{n}" if n else "") + "}", 1)
        out.append((target, source, when))
    # weight and bias of one module
    leaves = OrderedDict()
    for target, source, when in out:
        (t, leaf_t), (s, leaf_s) = target.rsplit(".", 1), source.rsplit(".", 1)
        same = leaf_t == leaf_s
        leaves.setdefault((t if same else target, s if same else source, when), []).append(
            leaf_t if same else None
        )
    groups = OrderedDict()
    for (target, source, when), names in leaves.items():
        end = "" if names == [None] else f".{names[0]}" if len(names) == 1 else ".{t}"
        declared = f".{{t: {'|'.join(names)}}}" if len(names) > 1 else end
        groups.setdefault((source + end, when), []).append(target + declared)
    return [(targets, source, when) for (source, when), targets in groups.items()], unsaid


class Composer:
    """Makes files of entries and of what the models are made of."""

    def __init__(self, registry, trace, hand, covered):
        self.registry, self.trace, self.hand, self.covered = registry, trace, hand, covered
        self.entries = {}
        self.parts = {}  # canonical entry -> File with that entry's rules

    def entry(self, name):
        from .registry import Entry  # needs transformers, which the rest of this file doesn't

        name = self.registry.canonical[name]
        if name not in self.entries:
            self.entries[name] = Entry(self.registry, name, self.trace)
        return self.entries[name]

    def own(self, name):
        """An entry's renames and maps as statements."""
        e = self.entry(name)
        together = self.trace.together.get(e.name, set())
        renames = e.first + grouped(e.renames, together) + e.drops
        maps = [rule for _, rules in e.maps for rule in rules]
        rules, late = (merged_maps([r for r in maps if r.late == when]) for when in (False, True))
        out = [Group("map", rules)] if rules else []
        out += [Group("map", late)] if late else []
        return e, renames, out

    def floating(self, name):
        """Whether an entry's patterns may begin anywhere, so that no subtree needs to be named."""
        e = self.entry(name)
        return all(
            p.text.startswith("**.")
            for _, rules in e.renames + e.maps
            for r in rules
            for p in r.left + r.right
        )

    def program(self, facts):
        """[(path, canonical entry)] of a class in order, the root's own first."""
        out = []
        for path, entry, _ in facts["program"]:
            canonical = self.registry.canonical[entry]
            paths = [path]
            if path and path == facts["base_prefix"] and self.floating(canonical):
                paths = [""]
            elif path:
                # where transformers found keys for it: below the base model's prefix, and where a
                # rule or a checkpoint left that out
                heads = self.trace.heads.get((facts["class"], path, entry), ())
                paths = sorted(filter(None, heads), key=lambda p: (-len(p), p)) or paths
            out += [(p, canonical) for p in paths if (p, canonical) not in out]
        return tuple(out)


def merged_maps(rules):
    """Maps that differ in one word everywhere (weight, bias), written once."""
    out = []
    for rule in rules:
        last = out[-1] if out else None
        if last is not None and (both := leaf(last, rule)) is not None:
            out[-1] = both
        else:
            out.append(rule)
    return out


def leaf(a, b):
    """Two maps equal but for the last word of every pattern, as one."""
    if (a.via, [u.text for u in a.unless], len(a.left), len(a.right)) != (
        b.via,
        [u.text for u in b.unless],
        len(b.left),
        len(b.right),
    ):
        return None
    words = []
    for p, q in zip(a.left + a.right, b.left + b.right):
        ps, qs = split(p.text), split(q.text)
        if (
            len(ps) != len(qs)
            or ps[-1] != "**"
            or ps[:-2] != qs[:-2]
            or ps[-2] == qs[-2]
            or re.search("[{}]", ps[-2] + qs[-2])
        ):
            return None
        words.append((ps[-2], qs[-2]))
    if len(set(words)) != 1:
        return None
    x, y = words[0]

    def write(p, declare):
        s = split(p.text)
        s[-2] = f"{{t: {x}|{y}}}" if declare else "{t}"
        return ".".join(s)

    return Rule(
        [write(p, True) for p in a.left],
        [write(p, False) for p in a.right],
        a.arrow,
        a.via,
        [u.text for u in a.unless],
        a.optional,
        a.late,
    )

"""Turn one rule of transformers' conversion registry, a regex over parts of a key, into
whole-segment patterns.

Nothing is guessed: a form that isn't known here raises `Inexpressible` with the reason, and every
rule made here is compared with the regex on real keys before it is written (`verify`).
"""

import re
from itertools import product

try:
    from re import _constants as sre  # type: ignore[attr-defined]
    from re import _parser as sre_parse  # type: ignore[attr-defined]
except ImportError:  # before Python 3.11
    import sre_constants as sre
    import sre_parse

from .patterns import Rule

GLOB = "\x01"


class Inexpressible(Exception):
    """Why a rule has no form in the language."""


def literal(text):
    """Text as one element."""
    return [("text", text)] if text else []


def join(elements):
    """Neighbouring texts as one."""
    out = []
    for e in elements:
        if e[0] == "text" and out and out[-1][0] == "text":
            out[-1] = ("text", out[-1][1] + e[1])
        else:
            out.append(e)
    return out


def alternatives(tree, groups):
    """Every way to read a regex tree, as lists of elements; `groups` collects what each numbered
    group holds in that reading."""
    ways = [([], {})]

    def add(options):
        nonlocal ways
        ways = [(a + b, {**ga, **gb}) for (a, ga), (b, gb) in product(ways, options)]

    for op, value in tree:
        if op is sre.LITERAL:
            add([([("index", object())] if chr(value) == GLOB else literal(chr(value)), {})])
        elif op is sre.ANY:
            add([(literal("."), {})])
        elif op is sre.AT and value is sre.AT_BEGINNING:
            add([([("start",)], {})])
        elif op is sre.MAX_REPEAT:
            low, high, inner = value
            if (low, high) != (1, sre.MAXREPEAT):
                raise Inexpressible(f"{low} to {high} repetitions")
            if list(inner) == [(sre.IN, [(sre.CATEGORY, sre.CATEGORY_DIGIT)])]:
                add([([("index", object())], {})])
            elif list(inner) == [(sre.ANY, None)]:
                add([([("rest", object())], {})])
            else:
                raise Inexpressible(f"repetition {inner}")
        elif op is sre.IN:
            if list(value) in ([(sre.RANGE, (48, 57))], [(sre.CATEGORY, sre.CATEGORY_DIGIT)]):
                add([([("index", object())], {})])
            elif all(o is sre.LITERAL for o, _ in value):
                add([(literal(chr(v)), {}) for _, v in value])
            elif list(value) == [(sre.CATEGORY, sre.CATEGORY_WORD)]:
                add([([("wordchar",)], {})])
            else:
                raise Inexpressible(f"character class {value}")
        elif op is sre.BRANCH:
            add([way for branch in value[1] for way in alternatives(branch, groups)])
        elif op is sre.SUBPATTERN:
            number, _, _, inner = value
            inside = [(join(e), g) for e, g in alternatives(inner, groups)]
            plain = [
                e[0][1]
                for e, _ in inside
                if len(e) == 1 and e[0][0] == "text" and "." not in e[0][1]
            ]
            if number is not None and len(inside) > 1 and len(plain) == len(inside):
                one = [("words", number, tuple(plain))]
                inside = [(one, {number: one})]
            elif number is not None:
                inside = [(e, {**g, number: e}) for e, g in inside]
            add(inside)
        elif op is sre.ASSERT_NOT:
            direction, inner = value
            for e, _ in [(join(e), g) for e, g in alternatives(inner, groups)]:
                add([([("behind" if direction < 0 else "ahead", e)], {})])
        else:
            raise Inexpressible(f"{op}")
    return [(join(e), g) for e, g in ways]


class Names:
    """Names for captures: by the segment before a number, else the next letter."""

    WISH = {
        "layers": "l",
        "layer": "l",
        "blocks": "b",
        "block": "b",
        "experts": "e",
        "stages": "s",
        "resblocks": "b",
    }

    def __init__(self):
        self.taken = set()

    def index(self, before):
        wish = self.WISH.get(before.rstrip(".").rsplit(".", 1)[-1], "i")
        return self.take([wish] + list("ijkmnpqr"))

    def take(self, wishes):
        name = next(w for w in wishes if w not in self.taken)
        self.taken.add(name)
        return name


def spell(elements, names, declare):
    """Elements as pattern text. On the declaring side indices and words get their names; the other
    side refers to them."""
    out = ""
    for e in elements:
        kind = e[0]
        if kind == "text":
            out += e[1]
        elif kind == "index":
            if declare and e[1] not in names.known:
                names.known[e[1]] = names.index(out)
            out += "{" + names.known[e[1]] + "}"
        elif kind == "words":
            if declare:
                names.known[e[1]] = names.take(list("xyzwuv"))
                out += "{" + names.known[e[1]] + ": " + "|".join(e[2]) + "}"
            else:
                out += "{" + names.known[e[1]] + "}"
        elif kind == "rest":
            if declare:
                names.known[e[1]] = names.take(["path", "more"])
            out += "{" + names.known[e[1]] + "**}"
        else:
            raise Inexpressible(f"{kind} inside a pattern")
    return out


def read_target(text, groups):
    """The elements of a replacement; `\\1` stands for what the group held."""
    text = re.sub(r"\(\?.+?\)?\)", "", text.removeprefix("^")).replace("\\.", ".")
    out = []
    for part in re.split(r"(\\\d)", text):
        if re.fullmatch(r"\\\d", part):
            if int(part[1]) not in groups:
                raise Inexpressible(
                    f"the replacement takes group {part[1]}, which this reading of the regex lacks"
                )
            out += groups[int(part[1])]
        else:
            for n, piece in enumerate(part.split("*")):
                if n:
                    out.append(("glob",))
                out += literal(piece)
    return [e for e in join(out) if e[0] != "start"]


class Shape:
    """One reading of one source regex: what it matches, where it may begin, what it must not stand
    beside."""

    def __init__(self, elements, groups):
        self.groups = groups
        self.anchored = any(e[0] == "start" for e in elements)
        self.behind = [e[1] for e in elements if e[0] == "behind"]
        self.ahead = []
        body = []
        for e in elements:
            if e[0] == "ahead":
                self.ahead.append((list(body), e[1]))
            elif e[0] not in ("start", "behind"):
                body.append(e)
        self.body = join(body)


def read_source(regex):
    """The readings of a source regex."""
    regex = re.sub(r"(?<!\\)\*(?=\.)(?<=[._]\*)", GLOB, regex) if "*." in regex else regex
    return [Shape(e, g) for e, g in alternatives(sre_parse.parse(regex), {})]


def whole(text, anchored):
    """Body text as a whole-key pattern: dots at its ends are borders, and so are its ends without
    one."""
    body = text.strip(".")
    if not body:
        raise Inexpressible("nothing is left of the pattern")
    return ("" if anchored else "**.") + body + ".**"


def cut(text, left, right, name="part"):
    """A whole-key pattern that begins or ends inside a segment."""
    body = text.strip(".")
    return (
        "**."
        + ("{" + name + "*}" if left else "")
        + body
        + ("{" + name + "*}" if right else "")
        + ".**"
    )


def unless(shape, names):
    """The patterns that a look-around keeps away."""
    out = []
    head = "" if shape.anchored else "**."
    for e in shape.behind:
        text = spell(e, names, True) if all(x[0] in ("text", "index") for x in e) else ""
        if text.endswith(
            "."
        ):  # else it looks at letters of the same segment, which whole segments imply
            out.append("**." + text + spell(shape.body, names, False).strip(".") + ".**")
    for before, e in shape.ahead:
        text = spell(e, names, True)
        full = spell(before, names, False) + text
        if (
            not text.startswith((".", "_"))
            and not spell(before, names, False).endswith(".")
            and before
        ):
            continue  # letters of the same segment
        if text == "_":
            continue
        out.append(head + full.strip(".") + ".**")
    return out


def named(shape):
    """Names for a shape's captures, given by spelling it once."""
    names = Names()
    names.known = {}
    return names


def rename(source, target, offset=0):
    """The ways to write a rename: for each reading of the source, mode -> rule. `offset` is added
    to the index on the right."""
    out = []
    for shape in read_source(source):
        names = named(shape)
        goal = read_target(target, shape.groups)
        if not shape.body:
            # `^(?!x)` -> `model.`: a prefix for all but x
            left, right = "{path**}", spell(goal, names, False).strip(".") + ".{path**}"
            out.append({"whole": Rule(left, right, unless=unless(shape, names))})
            continue
        rest = shape.body[-1][0] == "rest"
        left = spell(shape.body, names, True)
        right = spell(goal, names, False)
        if offset:
            right = re.sub(r"\{(\w+)\}", rf"{{\1+{offset}}}", right, count=1)
        keep = unless(shape, names)
        if rest:
            out.append({"whole": Rule(left, right, unless=keep)})
            continue
        if not right.strip("."):
            if not shape.anchored:
                raise Inexpressible("takes a segment away anywhere, so its place is lost")
            out.append({"whole": Rule(left.strip(".") + ".{path**}", "{path**}", unless=keep)})
            continue
        ways = {}
        if not shape.anchored and left.startswith("."):
            # the regex wants something before it, which `**.` doesn't
            ways["above"] = Rule(
                *(whole("{above*}" + side, False) for side in (left, right)), unless=keep
            )
        if left.endswith("_"):
            if not right.endswith("_"):
                raise Inexpressible("cuts the start of a segment away")
            ways = {
                mode: Rule(
                    *(p.text[:-3] + "{part*}.**" for p in (r.left[0], r.right[0])), unless=keep
                )
                for mode, r in ways.items()
            }
            ways["whole"] = Rule(
                *(whole(side, shape.anchored)[:-3] + "{part*}.**" for side in (left, right)),
                unless=keep,
            )
        else:
            ways["whole"] = Rule(
                whole(left, shape.anchored), whole(right, shape.anchored), unless=keep
            )
            if not shape.anchored and left.startswith("."):
                ways["below"] = Rule(
                    whole(left, False), whole(right, False), unless=[*keep, left.strip(".") + ".**"]
                )
            if not shape.anchored and not left.startswith("."):
                ways["inside"] = [
                    Rule(cut(a, True, False), cut(b, True, False), unless=keep)
                    for a, b in spelled_out(left, right, 0)
                ]
            if not shape.anchored and not left.endswith("."):
                ways["start"] = [
                    Rule(cut(a, False, True), cut(b, False, True), unless=keep)
                    for a, b in spelled_out(left, right, -1)
                ]
        out.append(ways)
    return out


def spelled_out(left, right, end):
    """Where a pattern is to be cut at an enumeration, one pair of patterns for each word: two
    captures can't stand side by side."""
    segment = left.strip(".").split(".")[end]
    m = re.search(r"\{(\w): ([^{}]+)\}", segment)
    if not m:
        return [(left, right)]
    return [
        (left.replace(m[0], word), right.replace("{" + m[1] + "}", word))
        for word in m[2].split("|")
    ]


def convert_patterns(sources, targets):
    """The patterns of a converter: its sources as left sides, its targets as right sides, with
    `{e}` for the experts."""
    left, right, keep, anchored, captures = [], [], [], False, []
    for source in sources:
        shapes = read_source(source)
        if len(shapes) != 1:
            raise Inexpressible("a converter with alternatives")
        names = named(shapes[0])
        left.append(whole(spell(shapes[0].body, names, True), shapes[0].anchored))
        keep += unless(shapes[0], names)
        anchored = anchored or shapes[0].anchored
        captures = list(names.known.values())
    for target in targets:
        text = re.sub(r"\(\?.+?\)?\)", "", target.removeprefix("^")).replace("\\.", ".")
        if "\\" in text:
            raise Inexpressible("a converter whose target takes a group")
        right.append(whole(text, anchored))
    return left, right, keep, captures

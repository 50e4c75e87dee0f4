"""Key patterns of the rule language, as far as imported rules need them, and what rules do to one
key.

Patterns are whole keys; `**.` in front and `.**` at the end stand for any number of segments, the
fewest first. Rules here move names only: what an op does to tensors is the engine's.
"""

import re

PIECE = re.compile(r"\{([^{}]*)\}|([^{}]+)")
WORDS = re.compile(r"(\w+): (.+)")
INDEX = re.compile(r"(\w+?)(?:\+(\d+))?")


class Pattern:
    """One pattern; `match` gives its bindings, `fill` makes a key of them."""

    def __init__(self, text):
        self.text = text
        self.pieces = []  # (kind, value, extra)
        segments = self.segments(text)
        for i, segment in enumerate(segments):
            end = i == len(segments) - 1
            if segment == "**":
                self.pieces.append(("rest", "head" if i == 0 else "tail", i == 0))
            elif m := re.fullmatch(r"\{(\w+)\*\*\}", segment):
                self.pieces.append(("rest", m[1], not end))
            else:
                self._atoms(segment)
            if not end:
                self.pieces.append(("dot", None, None))

    @staticmethod
    def segments(text):
        """The text between dots that aren't inside braces."""
        out, depth, current = [], 0, ""
        for c in text:
            depth += (c == "{") - (c == "}")
            if c == "." and depth == 0:
                out.append(current)
                current = ""
            else:
                current += c
        return out + [current]

    def _atoms(self, segment):
        for braces, literal in PIECE.findall(segment):
            if literal:
                self.pieces.append(("text", literal.replace("\\*", "*"), None))
            elif m := re.fullmatch(r"(\w+)\*", braces):
                self.pieces.append(("part", m[1], None))
            elif m := re.fullmatch(r"(\w+): [^|]+\.\.[^|]+", braces):
                self.pieces.append(("index", m[1], 0))
            elif m := WORDS.fullmatch(braces):
                words = [w.strip().split("=>") for w in m[2].split("|")]
                self.pieces.append(("words", m[1], [(w[0].strip(), w[-1].strip()) for w in words]))
            else:
                m = INDEX.fullmatch(braces)
                self.pieces.append(("index", m[1], int(m[2] or 0)))

    def names(self):
        """The captures, in order."""
        return [v for k, v, _ in self.pieces if k not in ("text", "dot")]

    def words(self):
        """Captures declared here that aren't numbers: name -> (kind, extra)."""
        return {v: (k, x) for k, v, x in self.pieces if k in ("words", "part")}

    def _regex(self, other):
        out, seen = "", set()
        for i, (kind, value, extra) in enumerate(self.pieces):
            if kind == "dot":
                after, before = self.pieces[i + 1], self.pieces[i - 1]
                if not (after[0] == "rest" and not after[2] and i + 2 == len(self.pieces)) and not (
                    before[0] == "rest" and before[2]
                ):
                    out += r"\."
                continue
            if kind == "text":
                out += re.escape(value)
                continue
            if kind == "rest":
                alone = len(self.pieces) == 1
                inner = (
                    r"[^.]+(?:\.[^.]+)*"
                    if alone
                    else r"(?:[^.]+\.)*?"
                    if extra
                    else r"(?:\.[^.]+)*"
                )
            elif kind == "words":
                inner = "|".join(sorted((re.escape(a) for a, _ in extra), key=len, reverse=True))
            elif kind == "part":
                inner = "[^.]+"
            elif value in other and other[value][0] == "words":
                inner = "|".join(
                    sorted((re.escape(b) for _, b in other[value][1]), key=len, reverse=True)
                )
            elif value in other:
                inner = "[^.]+"
            else:
                inner = "0|[1-9][0-9]*"
            out += f"(?P={value})" if value in seen else f"(?P<{value}>{inner})"
            seen.add(value)
        return re.compile(out)

    def match(self, key, other=None):
        """The bindings if the key matches, else None. `other`: captures that the other side
        declares."""
        other = other or {}
        m = self._regex(other).fullmatch(key)
        if not m:
            return None
        bound = {}
        for kind, value, extra in self.pieces:
            if kind in ("text", "dot"):
                continue
            text = m[value]
            if kind == "rest":
                bound[value] = text.strip(".")
            elif kind == "words":
                bound[value] = [a for a, _ in extra].index(text)
            elif kind == "index" and value in other and other[value][0] == "words":
                bound[value] = [b for _, b in other[value][1]].index(text)
            elif kind == "index" and value not in other:
                if int(text) < extra:
                    return None
                bound[value] = int(text) - extra
            else:
                bound[value] = text
        return bound

    def fill(self, bound, other=None):
        """The key for these bindings; a capture without one becomes `*`."""
        other, out = other or {}, []
        segment = ""
        for kind, value, extra in self.pieces + [("dot", None, None)]:
            if kind == "dot":
                if segment:
                    out.append(segment)
                segment = ""
            elif kind == "text":
                segment += value
            elif value not in bound:
                segment += "*"
            elif kind == "words":
                segment += extra[bound[value]][0]
            elif kind == "index" and value in other and other[value][0] == "words":
                segment += other[value][1][bound[value]][1]
            elif kind == "index" and value not in other:
                segment += str(bound[value] + extra)
            else:
                segment += str(bound[value])
        return ".".join(out)


def example(pattern, fill):
    """A key of a pattern."""
    bound = {}
    for kind, value, _ in pattern.pieces:
        if kind == "rest":
            bound[value] = fill
        elif kind == "words":
            bound[value] = 0
        elif kind == "index":
            bound[value] = 3
        elif kind == "part":
            bound[value] = "some"
    return pattern.fill(bound)


class Rule:
    """One rule of a `rename` or `map`: patterns left and right, the ops between, what it leaves
    alone."""

    def __init__(self, left, right, arrow="<->", via="", unless=(), optional=False, late=False):
        self.left = [Pattern(p) for p in ([left] if isinstance(left, str) else left)]
        self.right = [Pattern(p) for p in ([right] if isinstance(right, str) else right)]
        self.arrow, self.via, self.optional = arrow, via, optional
        self.late = late  # a map that takes what other maps of its entry made
        self.unless = [Pattern(p) for p in unless]

    def _declared(self, patterns):
        return {k: v for p in patterns for k, v in p.words().items()}

    def forward(self, key):
        """The keys on the right, or None if the rule leaves the key alone."""
        if any(p.match(key) is not None for p in self.unless):
            return None
        return self._move(key, self.left, self.right)

    def backward(self, key):
        """The keys on the left, or None."""
        if self.arrow == "->":
            return None
        keys = self._move(key, self.right, self.left)
        if keys and any(p.match(k) is not None for p in self.unless for k in keys):
            return None
        return keys

    def _move(self, key, here, there):
        for pattern in here:
            bound = pattern.match(key, self._declared(there))
            if bound is not None:
                return [p.fill(bound, self._declared(here)) for p in there]
        return None

    def text(self, indent=""):
        """As it stands in a file, without the statement's word."""
        left = f",\n{indent}    ".join(f'"{p.text}"' for p in self.left)
        right = f",\n{indent}    ".join(f'"{p.text}"' for p in self.right)
        many = len(self.left) + len(self.right) > 2
        out = f"{left}\n{indent}{self.arrow} {right}" if many else f"{left} {self.arrow} {right}"
        if self.via:
            out += (f"\n{indent}" if many else " ") + f"via {self.via}"
        if self.unless:
            out += " unless " + ", ".join(f'"{p.text}"' for p in self.unless)
        return out + (" optional" if self.optional else "")


def scales_of(rule):
    """The rule for the block scales of what a rule packs: FP8 models have `weight_scale_inv` beside
    each weight, which is packed as the weights are."""
    packs = (
        rule.via.startswith("stack(")
        and rule.via.count("|") == rule.via.count("| concat(")
        and not rule.unless
        and len(rule.right) == 1
    )
    if (
        not packs
        or not all(p.text.endswith(".weight") for p in rule.left)
        or rule.right[0].text.endswith((".weight", "**"))
    ):
        return []
    left = [p.text + "_scale_inv" for p in rule.left]
    return [Rule(left, [rule.right[0].text + "_scale_inv"], rule.arrow, rule.via, optional=True)]


class Group:
    """A `rename` or `map` statement: its rules apply at once, the first that matches wins."""

    def __init__(self, word, rules):
        self.word, self.rules = word, rules

    def apply(self, keys, back=False):
        """The keys after it."""
        out = []
        for key in keys:
            moved = None
            for rule in self.rules:
                moved = rule.backward(key) if back else rule.forward(key)
                if moved is not None:
                    break
            out += [key] if moved is None else moved
        return out

    def text(self):
        rules = [one for rule in self.rules for one in (rule, *scales_of(rule))]
        if len(rules) == 1:
            return f"{self.word} {rules[0].text()}"
        return "\n".join([f"{self.word} {{"] + [f"  {r.text('  ')}" for r in rules] + ["}"])


class Drop:
    """A `drop` statement of one pattern."""

    def __init__(self, why, pattern):
        self.why, self.pattern = why, Pattern(pattern)

    def apply(self, keys, back=False):
        return keys if back else [key for key in keys if self.pattern.match(key) is None]

    def text(self):
        return f'# {self.why}\ndrop "{self.pattern.text}" optional'


class Use:
    """`use name under "path"`; `statements` are those of the file that it names."""

    def __init__(self, name, under, statements):
        self.name, self.under, self.statements = name, under, statements

    def apply(self, keys, back=False):
        head = self.under + "." if self.under else ""
        out = []
        for key in keys:
            if key.startswith(head):
                out += [head + k for k in run(self.statements, [key[len(head) :]], back)]
            else:
                out.append(key)
        return out

    def text(self):
        return f"use {self.name}" + (f' under "{self.under}"' if self.under else "")


def run(statements, keys, back=False):
    """The keys after all statements, or before them."""
    for statement in reversed(statements) if back else statements:
        keys = statement.apply(keys, back)
    return keys

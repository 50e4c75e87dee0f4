#!/usr/bin/env python3
"""Prints what a program can name through src/lib.rs: a line for each public item, by module.

A module is followed from src/lib.rs by its `pub mod` lines; an item of a private module counts
where a `pub use` names it. It is a coarse reading by lines, for a reviewer who compares two prints:

    python3 scripts/public_api.py > before; …; python3 scripts/public_api.py | diff before -
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent / "src"
ITEM = re.compile(
    r"pub (?:unsafe |const (?=fn))?(fn|struct|enum|trait|const|static|type|macro|use|mod) (.*)"
)


def lines_of(path: Path) -> list[str]:
    """The lines of a file before its inline tests, without comments and what a macro makes."""
    lines = [line.split("//")[0].rstrip() for line in path.read_text().splitlines()]
    ends = [at for at, line in enumerate(lines) if line.strip() == "mod tests {"]
    return lines[: ends[0]] if ends else lines


def file_of(folder: Path, name: str) -> tuple[Path, Path] | None:
    """The file of a module, and the folder of the modules in it."""
    for path in (folder / f"{name}.rs", folder / name / "mod.rs"):
        if path.exists():
            return path, folder / name
    return None


def whole(lines: list[str], at: int) -> str:
    """A declaration up to its body or its end, on one line."""
    text = ""
    for line in lines[at:]:
        text = f"{text} {line.strip()}".strip()
        body = line.rstrip().endswith("{") and not text.startswith("pub use")
        if body or line.rstrip().endswith((";", "}")):
            break
    text = re.sub(r"\s+", " ", text.removesuffix("{").removesuffix(";")).strip()
    return re.sub(r"\( ", "(", re.sub(r",? \)", ")", text))


def items(path: Path) -> list[tuple[str, str, str, bool]]:
    """Kind, name, declaration of the public items of a file, and whether it may grow. A method is
    named `Type::name`; the fields of a struct are left out."""
    lines = lines_of(path)
    found = []
    owner, grows = "", False
    for at, line in enumerate(lines):
        block = re.match(r"(?:pub )?(impl|trait)\b(?:<[^{]*?>)? ?(?:[^{]* for )?&?(\w+)", line)
        if block and not line.startswith(" "):
            owner = block.group(2)
        if line == "}":
            owner = ""
        grows = grows or line.strip() == "#[non_exhaustive]"
        match = ITEM.match(line.strip())
        if match and (not line.startswith(" ") or owner or match.group(1) == "enum"):
            kind, rest = match.groups()
            name = re.match(r"\w+", rest)
            if kind == "use":
                found.append((kind, "", whole(lines, at), False))
            elif name:
                inside = line.startswith(" ") and owner
                full = f"{owner}::{name.group()}" if inside else name.group()
                found.append((kind, full, whole(lines, at), grows))
        if line.strip() and not line.strip().startswith("#["):
            grows = False
    return found


def private_modules(path: Path) -> set[str]:
    """Modules that are declared without `pub`."""
    text = "\n".join(lines_of(path))
    return set(re.findall(r"^(?:pub\([^)]*\) )?mod (\w+);", text, re.M)) - {"tests"}


def names_used(declaration: str) -> tuple[list[str], list[str]]:
    """The path before the names of a `pub use`, and the names."""
    path = declaration.removeprefix("pub use ").removeprefix("self::")
    start, _, rest = path.partition("{")
    if rest:
        names = [name.strip().split(" as ")[0] for name in rest.rstrip("}").split(",")]
        return start.rstrip(":").split("::"), [name for name in names if name]
    *parts, last = path.split("::")
    return parts, [last.split(" as ")[0]]


def public(module: str, path: Path, folder: Path, out: list[str]) -> None:
    """Adds a line for each public item of a module, and of those in it."""
    hidden = private_modules(path)
    for kind, name, declaration, grows in items(path):
        if kind == "mod":
            inner = file_of(folder, name)
            if inner:
                public(f"{module}::{name}", *inner, out)
        elif kind == "use":
            parts, names = names_used(declaration)
            at = file_of(folder, parts[0]) if parts and parts[0] in hidden else None
            for part in parts[1:]:
                at = at and file_of(at[1], part)
            if not at:
                out.append(f"{module}: {declaration}")
                continue
            for _, item, text, item_grows in items(at[0]):
                if item.split("::")[0] in names or names == ["*"]:
                    out.append(shown(module, item, text, item_grows))
        else:
            out.append(shown(module, name, declaration, grows))
    # What a private module implements for a type that is public elsewhere.
    for name in hidden:
        inner = file_of(folder, name)
        for kind, full, declaration, _ in items(inner[0]) if inner else []:
            kept = any(line.startswith(f"{module}::{full.split('::')[0]} ") for line in out)
            line = shown(module, full, declaration, False)
            if kind == "fn" and "::" in full and kept and line not in out:
                out.append(line)


def shown(module: str, name: str, declaration: str, grows: bool) -> str:
    """A line of the print."""
    note = "  (non_exhaustive)" if grows else ""
    return f"{module}::{name}  {declaration.removeprefix('pub ')}{note}"


def main() -> int:
    """Prints the list."""
    out: list[str] = []
    public("regraft", ROOT / "lib.rs", ROOT, out)
    print("\n".join(sorted(set(out))))
    return 0


if __name__ == "__main__":
    sys.exit(main())

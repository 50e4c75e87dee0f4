#!/usr/bin/env python3
"""The longest functions and files of the project, by lines at rustfmt's width.

Usage: scripts/longest.py [N]      the N longest of each (20)

A function is counted from its `fn` line to the brace that closes it, comments included, as
tests/it/tidy.rs does.
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
OPENS = re.compile(
    r"^(\s*)(?:pub(?:\([^)]*\))? )?(?:const )?(?:unsafe )?(?:extern \"C\" )?fn (\w+)"
)


def functions(path):
    """Yields (lines, line, name) of each function of a formatted file."""
    lines = path.read_text().splitlines()
    for at, line in enumerate(lines):
        opening = OPENS.match(line)
        if not opening or line.rstrip().endswith((";", "}")):
            continue
        for end in range(at, len(lines)):
            if lines[end] == opening[1] + "}":
                yield end - at + 1, at + 1, opening[2]
                break
            if lines[end].startswith(opening[1] + ")") and lines[end].endswith(";"):
                break


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    folders = ["src", "seed/src", "python/src", "tests", "benches", "fuzz", "examples"]
    paths = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.rs"))
    longest = [(*function, path) for path in paths for function in functions(path)]
    print("functions")
    for lines, line, name, path in sorted(longest, key=lambda row: -row[0])[:count]:
        print(f"{lines:6}  {path.relative_to(ROOT)}:{line} {name}")
    print("files")
    sizes = [(len(path.read_text().splitlines()), path) for path in paths]
    for lines, path in sorted(sizes, key=lambda row: -row[0])[:count]:
        print(f"{lines:6}  {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()

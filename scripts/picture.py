"""Makes docs/plan.svg, the picture in README.md: what `regraft plan` prints of an example.

Usage: python3 scripts/picture.py [--check]    the binary is `$REGRAFT`, or target/debug/regraft
"""

import os
import subprocess
import sys
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMMAND = ["plan", "examples/mixtral", "--to", "model", "-q"]
COLUMNS = 108
CHARACTER, LINE, EDGE = 7.83, 19, 20
# Other spaces fall together in an SVG.
NO_BREAK = "\u00a0"


def colour(line: str) -> str:
    """Rules, keys, what they are made of, and the verdict are told apart."""
    if line.startswith("$"):
        return "#f0f6fc"
    if line.startswith("    <-"):
        return "#8b949e"
    if line.startswith("  "):
        return "#7ee787"
    if line.startswith("verdict"):
        return "#ffa657"
    return "#79c0ff" if '"' in line else "#c9d1d9"


def picture() -> str:
    binary = os.environ.get("REGRAFT", "target/debug/regraft")
    ran = subprocess.run([binary, *COMMAND], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [f"$ regraft {' '.join(COMMAND)}", "", *ran.stdout.rstrip().splitlines()]
    lines = [line if len(line) <= COLUMNS else line[: COLUMNS - 1] + "…" for line in lines]
    width, height = round(COLUMNS * CHARACTER + 2 * EDGE), len(lines) * LINE + 2 * EDGE
    svg = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        "font-family=\"ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace\" "
        'font-size="13">',
        "<title>What regraft plan prints</title>",
        f'<rect width="{width}" height="{height}" rx="8" fill="#0d1117"/>',
    ]
    for at, line in enumerate(lines):
        if line:
            y, length = EDGE + at * LINE + 13, round(len(line) * CHARACTER, 1)
            text = escape(line).replace(" ", NO_BREAK)
            svg.append(
                f'<text x="{EDGE}" y="{y}" fill="{colour(line)}" textLength="{length}" '
                f'lengthAdjust="spacingAndGlyphs">{text}</text>'
            )
    return "\n".join([*svg, "</svg>", ""])


def main() -> int:
    path, made = ROOT / "docs" / "plan.svg", picture()
    if "--check" in sys.argv[1:]:
        if path.read_text(encoding="utf-8") != made:
            print("docs/plan.svg isn't what is printed now: scripts/picture.py writes it")
            return 1
        return 0
    path.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Write rules/README.md: a table of the rule files, from what each says of itself.

    python3 scripts/rules_table.py            # writes it
    python3 scripts/rules_table.py --check    # fails if it isn't what would be written

Models and layouts come from the statements, what a file is and how it was verified from the comment
that it opens with.
"""

import os
import re
import sys

MODELS = r"^models ((?:[^\n]*,[ ]*\n)*[^\n]*)$"
RULES = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "rules"))


def read(path):
    """What one file says: (title, models, layouts, counts, verified)."""
    with open(path) as f:
        text = f.read()
    comment = "\n".join(
        line.removeprefix("##").strip() for line in text.splitlines() if line.startswith("##")
    )
    title = comment.split("\n\n")[0].replace("\n", " ").strip()
    code = "\n".join(
        re.sub(r'#(?=(?:[^"]*"[^"]*")*[^"]*$).*', "", line) for line in text.splitlines()
    )
    m = re.search(r"^ruleset \w+(?:: (\w+) (<->|->) (\w+))?", code, re.M)
    layouts = f"{m[1]} {m[2]} {m[3]}" if m and m[1] else ""
    models = [one.strip() for line in re.findall(MODELS, code, re.M) for one in line.split(",")]
    examples = re.sub(
        r"^example [^\n]*(?:,\n[^\n]*)*(?:\n(?:<->|->)[^\n]*)?$", "", code, flags=re.M
    )
    body = re.sub(r"^ruleset .*$", "", examples, flags=re.M)
    counts = []
    for word, n in (
        ("rule", len(re.findall(r"<->|->", body))),
        ("tie", len(re.findall(r"^\s*tie ", body, re.M))),
        ("use", len(re.findall(r"^\s*use ", body, re.M))),
        ("strip", len(re.findall(r"^\s*strip ", body, re.M))),
    ):
        if n:
            counts.append(f"{n} {word}" + ("s" if n > 1 and word != "strip" else ""))
    verified = ""
    if m := re.search(
        r"^(Verified .*?)(?=\n(?:[A-Z]\w+(?: \w+)*:|\Z)|\n\n|\Z)", comment, re.M | re.S
    ):
        verified = m[1].replace("\n", " ")
    return title, models, layouts, ", ".join(counts), verified


def row(name, facts):
    """A line of the table."""
    title, models, layouts, counts, verified = facts
    cells = (
        f"[{name}]({name}.graft)",
        ", ".join(models),
        layouts.replace("|", "\\|"),
        counts,
        verified,
    )
    return "| " + " | ".join(cells) + " |"


def table():
    """The whole page."""
    own, imported = [], []
    for folder, into in (("", own), ("transformers", imported)):
        for file in sorted(os.listdir(os.path.join(RULES, folder))):
            if file.endswith(".graft"):
                name = os.path.join(folder, file[: -len(".graft")])
                into.append((name, read(os.path.join(RULES, name + ".graft"))))
    head = "| file | models | layouts | holds | verified |\n|---|---|---|---|---|"
    out = [
        "# Rule files",
        "",
        (
            "All are built into the binary: `regraft apply SRC -o DST --to model` picks one by the "
            "checkpoint's config.json, a class in `architectures`"
        ),
        (
            "first, then its `model_type`; `--rules NAME` names one. `wrappers` and `tied_lm_head` "
            "stand around every file that is picked so."
        ),
        "",
        (
            "The layouts: *hub* is what is published, *model* what transformers v5 holds in "
            "memory, *meta* what Meta publishes, *ranks* that in a file for each rank; others are "
            "named after who publishes so. They are recognized by their keys."
        ),
        "",
        "This page is written by `scripts/rules_table.py`.",
        "",
        "## Written by hand",
        "",
        head,
        *(row(*r) for r in own),
        "",
        "## Imported from transformers",
        "",
        (
            "Written by `scripts/import_transformers.py`, which compares them with transformers "
            "on the keys of its models."
        ),
        "What they don't express is in [transformers/REPORT.md](transformers/REPORT.md).",
        "",
        head,
        *(row(*r) for r in imported),
    ]
    return "\n".join(out) + "\n"


def main():
    path = os.path.join(RULES, "README.md")
    page = table()
    if "--check" in sys.argv[1:]:
        with open(path) as f:
            sys.exit(
                0 if f.read() == page else "rules/README.md is stale: run scripts/rules_table.py"
            )
    with open(path, "w") as f:
        f.write(page)


if __name__ == "__main__":
    main()

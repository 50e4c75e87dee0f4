#!/usr/bin/env python3
"""Which entries of transformers' conversion registry changed between two versions.

    VENV/bin/python scripts/registry_changes.py note FOLDER  # writes registry-VERSION.json
    python3 scripts/registry_changes.py compare NEW.json     # with the newest that is noted here
    python3 scripts/registry_changes.py compare NEW.json OLD.json  # exit code 1 if any changed

A note has the version, and each entry's rules with their operations as lines of text. What changed
is to be looked at, rules/transformers/ to be written anew (scripts/import_transformers.py), and the
note of that version to be laid beside this file. Notes of versions before stay: rules/ serves every
entry of each of them, and where an entry lost rules, a layout `model_MAJOR_MINOR` has the names in
which the older version holds the model (tests/it/library/registry.rs).
"""

import argparse
import glob
import json
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))


def noted():
    """The notes beside this file, the oldest version first."""
    notes = []
    for path in glob.glob(os.path.join(HERE, "registry-*.json")):
        with open(path) as f:
            notes.append(json.load(f))
    return sorted(notes, key=lambda note: [int(n) for n in re.findall(r"\d+", note["version"])])


def registry():
    """The registry of the installed transformers: its version, and each entry's rules as text."""
    import transformers
    from graft_import.registry import Registry

    signatures = Registry().signatures
    entries = {name: [str(rule) for rule in rules] for name, rules in signatures.items()}
    return {"version": transformers.__version__, "entries": dict(sorted(entries.items()))}


def changes(old, new):
    """The names of entries that came, went, and have other rules now."""
    old, new = old["entries"], new["entries"]
    return {
        "new": sorted(new.keys() - old.keys()),
        "gone": sorted(old.keys() - new.keys()),
        "changed": sorted(name for name in old.keys() & new.keys() if old[name] != new[name]),
    }


def report(old, new):
    """Prints the changes, with the rules that an entry lost and got; how many entries there are."""
    found = changes(old, new)
    print(f"{old['version']} -> {new['version']}: {len(new['entries'])} entries")
    for what, names in found.items():
        print(f"{len(names)} {what}{': ' if names else ''}{', '.join(names)}")
    for name in found["changed"]:
        before, after = old["entries"][name], new["entries"][name]
        print(f"\n{name}")
        print("".join(f"  - {rule}\n" for rule in before if rule not in after), end="")
        print("".join(f"  + {rule}\n" for rule in after if rule not in before), end="")
    return sum(map(len, found.values()))


def main():
    args = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    steps = args.add_subparsers(dest="step", required=True)
    steps.add_parser("note").add_argument("folder")
    compare = steps.add_parser("compare")
    compare.add_argument("new")
    compare.add_argument("old", nargs="?", help="the newest note beside this script, if not given")
    options = args.parse_args()
    if options.step == "note":
        made = registry()
        with open(os.path.join(options.folder, f"registry-{made['version']}.json"), "w") as f:
            f.write(json.dumps(made, indent=1) + "\n")
        return
    with open(options.new) as f:
        new = json.load(f)
    old = noted()[-1]
    if options.old:
        with open(options.old) as f:
            old = json.load(f)
    sys.exit(1 if report(old, new) else 0)


if __name__ == "__main__":
    main()

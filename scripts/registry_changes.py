#!/usr/bin/env python3
"""Which entries of transformers' conversion registry changed between two versions.

    VENV/bin/python scripts/registry_changes.py note FILE          # of the installed version
    python3 scripts/registry_changes.py compare OLD.json NEW.json  # exit code 1 if any did

A note has the version, and each entry's rules with their operations as lines of text. What changed
is to be looked at, and rules/transformers/ to be written anew (scripts/import_transformers.py), and
then registry.json beside this file, which is the note of the version that they were written from.
"""

import argparse
import json
import sys


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
    steps.add_parser("note").add_argument("file")
    compare = steps.add_parser("compare")
    compare.add_argument("old")
    compare.add_argument("new")
    options = args.parse_args()
    if options.step == "note":
        with open(options.file, "w") as f:
            f.write(json.dumps(registry(), indent=1) + "\n")
        return
    notes = []
    for path in (options.old, options.new):
        with open(path) as f:
            notes.append(json.load(f))
    sys.exit(1 if report(*notes) else 0)


if __name__ == "__main__":
    main()

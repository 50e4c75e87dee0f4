#!/usr/bin/env python3
"""Write rule files from the conversion registry of an installed transformers.

    python -m venv venv && venv/bin/pip install torch 'transformers==5.24.*' timm scipy
    venv/bin/python scripts/import_transformers.py probe facts.jsonl     # some minutes; goes on
where it stopped
    venv/bin/python scripts/import_transformers.py write facts.jsonl     # writes
rules/transformers/ and its REPORT.md
    venv/bin/python scripts/import_transformers.py headers facts.jsonl headers/   # what
make_fixtures.py shrinks; some minutes
    regraft fmt rules && python scripts/rules_table.py                            # the house style,
and rules/README.md

`probe` builds every model class on torch's meta device and asks transformers which rules apply to
it, what they make of each key, and which tensors are tied. `write` turns the registry's regexes
into whole-segment patterns, one file for all classes that need the same, and checks each rule and
each file against what transformers made of the keys. A rule that can't be said, or that would do
something else on any key, isn't written: REPORT.md names it with the reason. Model types that a
file in rules/ itself serves are left to that file.
"""

import argparse
import json
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)


def main():
    args = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    args.add_argument("step", choices=["probe", "write", "headers"])
    args.add_argument("facts", help="what transformers said, one JSON object a line")
    args.add_argument("into", nargs="?", help="the directory that headers go to")
    args.add_argument("--only", nargs="*", help="probe these model types or classes")
    args.add_argument("--rules", default=os.path.join(HERE, "..", "rules"))
    options = args.parse_args()
    if options.step == "probe":
        from graft_import.probe import probe

        probe(options.facts, set(options.only) if options.only else None)
        return
    if options.step == "headers":
        from graft_import.headers import headers

        if not options.into:
            args.error("headers go to a directory")
        with open(options.facts) as f:
            headers([json.loads(line) for line in f], options.into)
        return
    from graft_import.write import Importer

    with open(options.facts) as f:
        importer = Importer([json.loads(line) for line in f], options.rules)
    importer.write()
    files = importer.files.values()
    print(
        f"{len(files)} files, {sum(len(f.statements) for f in files)} statements, "
        f"{sum(f.compared for f in files)} keys compared, "
        f"{sum(len(f.there) for f in files)} differ towards model, "
        f"{sum(len(f.back) for f in files)} towards hub"
    )


if __name__ == "__main__":
    main()

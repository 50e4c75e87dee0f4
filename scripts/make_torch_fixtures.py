#!/usr/bin/env python3
"""Write the cases in tests/fixtures/torch, tests/fixtures/numpy and tests/fixtures/dcp that were
not made elsewhere: small files of torch and numpy of every kind, broken and hostile ones, and what
is in them.

    python scripts/make_torch_fixtures.py [--into tests/fixtures] [--only torch]

Needs torch 2.15, numpy and safetensors. Nothing hostile is loaded. Files that torch writes differ
from run to run by an id that it makes up.
"""

import argparse
import os
import sys
import warnings

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from torch_fixtures import arrays, distributed, hostile, saved  # noqa: E402
from torch_fixtures.expect import Cases  # noqa: E402

PARTS = {"torch": [saved, hostile], "numpy": [arrays], "dcp": [distributed]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--into", default=os.path.join(HERE, "..", "tests", "fixtures"))
    parser.add_argument("--only", choices=PARTS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    for folder, makers in PARTS.items():
        if arguments.only in (None, folder):
            cases = Cases(os.path.join(arguments.into, folder))
            for maker in makers:
                maker.make(cases)
            print(f"{folder}: {len(cases.names)} cases")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Write src/config/base_prefixes.txt: under which name each transformers model type keeps its base
model.

Reads `base_model_prefix` off every model class of an installed transformers, by the model type of
its configuration; builds no model.

Usage: scripts/base_prefixes.py > src/config/base_prefixes.txt
"""

import collections
import importlib
import os
import pkgutil
import re
import sys

os.environ["TRANSFORMERS_VERBOSITY"] = "error"

HEADER = """\
# Under which name a class with a head keeps its base model, by model type. Made by
# scripts/base_prefixes.py; don't edit. Facts: `base_model_prefix` of the model classes of
# transformers {version}; several where classes of one type differ.
#
#   NAME PREFIX…
"""


def modules(package):
    """Every module of modelling code that can be imported here; what lacks a package of its own is
    passed over."""
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if ".modeling_" in found.name and not re.search(r"modeling_(tf|flax)_", found.name):
            try:
                yield importlib.import_module(found.name)
            except Exception as error:  # a backend that isn't installed
                print(f"{found.name}: {error}", file=sys.stderr)


def main():
    import transformers
    from transformers import PreTrainedModel

    prefixes = collections.defaultdict(set)
    for module in modules(transformers.models):
        for cls in vars(module).values():
            if (
                isinstance(cls, type)
                and issubclass(cls, PreTrainedModel)
                and cls.__module__ == module.__name__
            ):
                model_type = (
                    getattr(cls.config_class, "model_type", None) if cls.config_class else None
                )
                if model_type and re.fullmatch(r"\w+(\.\w+)*", cls.base_model_prefix or ""):
                    prefixes[model_type].add(cls.base_model_prefix)
    sys.stdout.write(HEADER.format(version=transformers.__version__))
    for model_type in sorted(prefixes):
        sys.stdout.write(" ".join([model_type, *sorted(prefixes[model_type])]) + "\n")


if __name__ == "__main__":
    main()

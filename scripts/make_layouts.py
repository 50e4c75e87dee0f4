#!/usr/bin/env python3
"""Make tiny checkpoints in publishers' layouts, and what the real converters make of them.

    python3 scripts/make_layouts.py --scripts MODELS --out DIR [NAME …]

MODELS is `src/transformers/models` of a checkout of transformers of December 2025, the last to
carry the conversion scripts. A checkpoint is the state dict of the publisher's own model where a
package or a checkout of its code can be imported (put them on PYTHONPATH); else its keys are
written out in `layouts_*.py` beside this file. The conversion is always the converter's own code.

Of each, `NAME.safetensors` is the checkpoint, and index.json has the fields of config.json that the
conversion needs, and the hash of the result that tests/fixtures/layouts/README.md describes.
With `--keep`, NAME.expected.safetensors holds the result too.
"""

import argparse
import hashlib
import importlib
import json
import os
import sys

import torch
from layouts import FAMILIES, converters
from safetensors.torch import save_file

DTYPES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def digest(tensors):
    """The hash of keys in order, each with its dtype, shape and bytes."""
    total = hashlib.sha256()
    for key in sorted(tensors):
        tensor = tensors[key].contiguous()
        total.update(f"{key} {DTYPES[tensor.dtype]} {list(tensor.shape)}\n".encode())
        total.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def filled(state_dict):
    """The same keys with values of their own: a permutation that goes wrong shows."""
    generator = torch.Generator().manual_seed(len(state_dict))
    out = {}
    for key, tensor in state_dict.items():
        # A single number that is there says something, as an alpha does.
        if tensor.is_floating_point() and not (tensor.ndim == 0 and tensor != 0):
            tensor = torch.rand(tensor.shape, generator=generator, dtype=torch.float32) - 0.5
        out[key] = tensor.clone()
    return out


def plain(tensors):
    """Tensors that share nothing, as safetensors wants them."""
    return {key: tensor.detach().clone().contiguous() for key, tensor in tensors.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scripts", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    converters.FOLDER = args.scripts
    for module in sorted(os.listdir(os.path.dirname(importlib.import_module("layouts").__file__))):
        if module.endswith(".py") and not module.startswith("_"):
            importlib.import_module(f"layouts.{module[:-3]}")
    path = os.path.join(args.out, "index.json")
    index = {}
    if os.path.exists(path):
        with open(path) as f:
            index = json.load(f)
    for name, family in FAMILIES.items():
        if args.names and name not in args.names:
            continue
        source = family.settle(filled(family.source()))
        expected = family.convert({key: tensor.clone() for key, tensor in source.items()})
        save_file(plain(source), os.path.join(args.out, f"{name}.safetensors"))
        if args.keep:
            save_file(plain(expected), os.path.join(args.out, f"{name}.expected.safetensors"))
        index[name] = {
            "rules": family.rules or name,
            "layout": family.layout,
            "config": family.config,
            "keys": len(expected),
            "sha256": digest(expected),
            "exact": family.exact,
        }
        if not family.told:
            index[name]["told"] = False
        print(f"{name}: {len(source)} keys, {len(expected)} after", file=sys.stderr)
    with open(path, "w") as f:
        f.write(json.dumps(index, indent=1))


if __name__ == "__main__":
    main()

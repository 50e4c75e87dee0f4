"""Families whose publishers' layouts are converted: each a tiny checkpoint and its converter."""

from dataclasses import dataclass

import torch

FAMILIES: dict[str, "Family"] = {}


@dataclass
class Family:
    """One tiny checkpoint."""

    layout: str
    source: object
    convert: object
    config: object = None
    exact: bool = True
    # The rule file, where its name isn't that of the family.
    rules: object = None
    # Whether keys tell the layout from the one that it is converted to.
    told: bool = True
    # What makes tensors equal that have to be, once each has values of its own.
    settle: object = lambda source: source


def family(name, **given):
    """Register the class below: `source` makes the checkpoint, `convert` what it becomes."""

    def register(made):
        if hasattr(made, "settle"):
            given["settle"] = made.settle
        FAMILIES[name] = Family(source=made.source, convert=made.convert, **given)
        return made

    return register


def shrunk(state_dict, to=2):
    """Tensors of the same names and ranks, no dimension longer than `to`: for names alone."""
    return {
        key: torch.zeros([min(length, to) for length in tensor.shape])
        for key, tensor in state_dict.items()
    }


def empty(shapes):
    """Tensors of these shapes."""
    return {key: torch.zeros(shape) for key, shape in shapes.items()}


def with_bias(shapes):
    """For each name and shape of a weight, that and its bias."""
    out = {}
    for name, shape in shapes.items():
        out[f"{name}.weight"] = shape
        out[f"{name}.bias"] = shape[:1]
    return out

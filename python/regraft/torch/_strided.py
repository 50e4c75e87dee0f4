"""Which parts of a tensor a rank has: torch says one box, which is wrong of a shard that is taken
in strides (``_StridedShard`` alone), so that one is looked at more closely."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.placement_types import _StridedShard


class Part(NamedTuple):
    """A box of a tensor, and where it lies in what a rank has of it."""

    offsets: tuple[int, ...]
    local: tuple[int, ...]
    sizes: tuple[int, ...]


def is_strided(tensor: Any) -> bool:
    """Whether a tensor has a shard in strides."""
    return isinstance(tensor, DTensor) and any(
        isinstance(placement, _StridedShard) for placement in tensor.placements
    )


def parts_of(tensor: Any) -> Iterator[Part]:
    """The boxes that a rank has of a tensor: each dimension is parted as torch does."""
    coordinate = tensor.device_mesh.get_coordinate()
    if coordinate is None:
        return
    along = [torch.arange(size) for size in tensor.shape]
    for size, at, placement in zip(tensor.device_mesh.shape, coordinate, tensor.placements):
        if not (placement.is_shard() or isinstance(placement, _StridedShard)):
            continue
        own = type(placement)(0, **_factor(placement))
        pieces, _ = own._split_tensor(
            along[placement.dim], size, with_padding=False, contiguous=True
        )
        along[placement.dim] = pieces[at]
    for runs in itertools.product(*(list(_runs(elements.tolist())) for elements in along)):
        offsets, local, sizes = zip(*runs) if runs else ((), (), ())
        yield Part(offsets, local, sizes)


def _factor(placement: Any) -> dict[str, int]:
    factor = getattr(placement, "split_factor", None)
    return {} if factor is None else {"split_factor": factor}


def _runs(elements: list[int]) -> Iterator[tuple[int, int, int]]:
    """Runs of neighbours: the first, its place, and how many."""
    start = 0
    for at in range(1, len(elements) + 1):
        if at == len(elements) or elements[at] != elements[at - 1] + 1:
            yield elements[start], start, at - start
            start = at

"""Where tensors lie in memory: what the engine reads into, and writes from, without a copy."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from . import _regraft
from ._plan import warn_of_overflow


class Place(NamedTuple):
    """A tensor in memory that the processor addresses."""

    address: int
    length: int
    """Bytes from the first to the last element, both counted."""
    strides: tuple[int, ...]
    """In elements."""


def place_of(tensor: Any, dtype: str, shape: Sequence[int]) -> Place | None:
    """Where a torch tensor of this dtype and shape (as the engine says them) lies; None if it is
    elsewhere than in plain memory, or some elements lie in one place."""
    if tensor.device.type != "cpu" or not _is_plain(tensor):
        return None
    if 0 in tensor.shape:
        return Place(0, 0, _row_major(shape))
    if dtype == "F4":
        strides = _row_major(shape) if tensor.is_contiguous() else None
        return None if strides is None else Place(tensor.data_ptr(), tensor.nbytes, strides)
    strides = tuple(tensor.stride())
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, strides))
    if any(stride == 0 and size > 1 for size, stride in zip(tensor.shape, strides)):
        return None
    return Place(tensor.data_ptr(), (last + 1) * tensor.element_size(), strides)


def _is_plain(tensor: Any) -> bool:
    import torch

    return (
        type(tensor) in (torch.Tensor, torch.nn.Parameter)
        and tensor.layout is torch.strided
        and not tensor.is_conj()
        and not tensor.is_neg()
    )


def _row_major(shape: Sequence[int]) -> tuple[int, ...]:
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


Box = tuple[str, tuple[int, ...], tuple[int, ...]]
"""The key of a target, the box's first element, and how many elements, along each dimension."""


def read_into(
    checkpoint: _regraft.Checkpoint,
    plan: _regraft.Plan,
    wanted: Iterable[tuple[Box, Place]],
) -> int:
    """Reads boxes into memory, whose tensors the caller holds; gives how many bytes were read of
    files. Where several share memory, the last stands."""
    read = 0
    for together in _apart(list(wanted)):
        report = json.loads(
            _regraft.read_into(
                checkpoint,
                plan,
                [box for box, _ in together],
                [(place.address, place.length) for _, place in together],
                [place.strides for _, place in together],
            )
        )
        read += report["bytes_read"]
        warn_of_overflow(report.get("overflowed", {}))
    return read


def _apart(wanted: list[tuple[Box, Place]]) -> Iterable[list[tuple[Box, Place]]]:
    """What can be read at once: of tensors that lie across each other, one after the other."""
    left = sorted(wanted, key=lambda one: one[1].address)
    while left:
        now, later, end = [], [], 0
        for one in left:
            if one[1].length and one[1].address < end:
                later.append(one)
                continue
            end = max(end, one[1].address + one[1].length)
            now.append(one)
        yield now
        left = later

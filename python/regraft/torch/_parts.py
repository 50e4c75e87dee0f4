"""Boxes of tensors, as the engine says them and as torch cuts them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from .._memory import Box


def box_of(key: str, dtype: str, offsets: Sequence[int], sizes: Sequence[int]) -> Box:
    """A box as the engine says it: torch counts two elements of F4 as one."""
    start, shape = tuple(offsets), tuple(sizes)
    if dtype == "F4" and shape:
        start, shape = (*start[:-1], start[-1] * 2), (*shape[:-1], shape[-1] * 2)
    return key, start, shape


def parts_within(tensor: Any, most: int) -> Iterator[tuple[tuple[int, ...], Any]]:
    """Parts of a tensor of at most so many elements, and where each begins."""
    for start, sizes in _boxes(tuple(tensor.shape), most):
        part = tensor
        for dim, (at, size) in enumerate(zip(start, sizes)):
            part = part.narrow(dim, at, size)
        yield start, part


def _boxes(shape: tuple[int, ...], most: int) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    if not shape or math.prod(shape) <= most:
        yield (0,) * len(shape), shape
        return
    step = max(1, most // math.prod(shape[1:]))
    for at in range(0, shape[0], step):
        size = min(step, shape[0] - at)
        # More than one row only if rows are small enough to be whole.
        for start, sizes in _boxes(shape[1:], most):
            yield (at, *start), (size, *sizes)

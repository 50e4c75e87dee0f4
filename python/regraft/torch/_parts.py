"""Boxes of tensors, as the engine says them and as torch cuts them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from .._memory import Box


def prefix_of(under: str) -> str:
    """What stands before each key of a model that lies there in a state dict."""
    return f"{under}." if under and not under.endswith(".") else under


def box_of(key: str, dtype: str, offsets: Sequence[int], sizes: Sequence[int]) -> Box:
    """A box as the engine says it: torch counts two elements of F4 as one."""
    start, shape = tuple(offsets), tuple(sizes)
    if dtype == "F4" and shape:
        start, shape = (*start[:-1], start[-1] * 2), (*shape[:-1], shape[-1] * 2)
    return key, start, shape


def parts_within(box: Box, dtype: str, tensor: Any, most: int) -> Iterator[tuple[Box, Any]]:
    """Parts of a box of at most so many elements as torch counts them, and of its tensor."""
    key, offsets, _ = box
    for start, sizes in _boxes(tuple(tensor.shape), most):
        part = tensor
        for dim, (at, size) in enumerate(zip(start, sizes)):
            part = part.narrow(dim, at, size)
        _, first, shape = box_of(key, dtype, start, sizes)
        yield (key, tuple(a + b for a, b in zip(offsets, first)), shape), part


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

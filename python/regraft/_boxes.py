"""Boxes of a plan's targets: what a rank of a sharded model holds of each tensor, read from files
without the rest."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from . import _regraft
from ._arrays import nbytes, ops_by_name, ops_of

Box = tuple[str, Sequence[int], Sequence[int]]
"""The key of a target, the box's first element, and how many elements, along each dimension."""

# Bytes that are read at once, where they are copied afterwards; and how boxes are aligned there.
_AT_ONCE = 64 << 20
_ALIGNMENT = 64


def read(
    checkpoint: Any,
    plan: _regraft.Plan,
    boxes: Iterable[Box],
    outs: Sequence[Any] | None,
    framework: str | None,
) -> tuple[list[Any], dict[str, int]]:
    """A tensor for each box, and how many elements of each key overflowed."""
    if not isinstance(checkpoint, _regraft.Checkpoint):
        raise TypeError(
            "the plan is for tensors in memory: boxes are read from an opened checkpoint"
        )
    given = [(key, [int(n) for n in start], [int(n) for n in shape]) for key, start, shape in boxes]
    if outs is None:
        outs = [None] * len(given)
    if len(outs) != len(given):
        raise ValueError(f"{len(outs)} tensors to read {len(given)} boxes into")
    # All is looked at before anything is read.
    asked = [_Asked(plan, box, out, framework) for box, out in zip(given, outs)]
    made: list[Any] = []
    overflowed: dict[str, int] = {}
    for group in _groups(asked):
        places, size = [], 0
        for box in group:
            places.append((size, box.nbytes))
            size += -(-box.nbytes // _ALIGNMENT) * _ALIGNMENT
        held, report = _regraft.read(checkpoint, plan, [box.box for box in group], places, size)
        for key, count in json.loads(report).get("overflowed", {}).items():
            overflowed[key] = overflowed.get(key, 0) + count
        made.extend(box.put(held, at, len(group) == 1) for box, (at, _) in zip(group, places))
    return made, overflowed


class _Asked:
    """A box that is asked for, and what it is read into."""

    def __init__(
        self,
        plan: _regraft.Plan,
        box: tuple[str, list[int], list[int]],
        out: Any,
        framework: str | None,
    ) -> None:
        key, start, shape = self.box = box
        found = plan.info(key)
        if found is None:
            raise KeyError(key)
        self.dtype, whole = found[0], list(found[1])
        if not len(start) == len(shape) == len(whole) or any(
            first < 0 or count < 0 or first + count > size
            for first, count, size in zip(start, shape, whole)
        ):
            raise ValueError(f"{key} has the shape {whole}: it has no box of {shape} at {start}")
        self.shape = tuple(shape)
        self.nbytes = nbytes(self.dtype, shape)
        self.out = out
        self.ops = ops_by_name(framework) if out is None else ops_of(out)
        if out is None:
            return
        if self.ops is None or self.ops.place(out) is None:
            raise TypeError(
                f"{key} is read into a tensor or an array of its own (of a distributed one, "
                f"`to_local()`), not {type(out).__name__}"
            )
        dtype, given = self.ops.info(out) or (out.dtype, out.shape)
        if dtype != self.dtype or tuple(given) != self.shape:
            raise ValueError(
                f"{key} is read as {self.dtype} {shape}, not into {dtype} {list(given)}"
            )

    def put(self, held: Any, at: int, alone: bool) -> Any:
        """The tensor, of bytes that hold it from a place on."""
        read = self.ops.from_buffer(held, self.dtype, self.shape, at, self.nbytes)
        if self.out is None and alone:
            return read
        with self.ops.guard():
            if self.out is None:
                return self.ops.own(read)
            self.ops.copy(self.out, read)
        return self.out


def _groups(asked: list[_Asked]) -> Iterable[list[_Asked]]:
    """Boxes that are read at once."""
    group: list[_Asked] = []
    size = 0
    for box in asked:
        if group and size + box.nbytes > _AT_ONCE:
            yield group
            group, size = [], 0
        group.append(box)
        size += box.nbytes
    if group:
        yield group

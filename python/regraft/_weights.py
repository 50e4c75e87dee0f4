"""The tensors of a checkpoint in another layout, one after the other, for who loads a model from
names and tensors."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, Union

from . import _regraft
from ._arrays import nbytes
from ._boxes import read
from ._files import Paths, _names, _paths
from ._options import DEFAULTS, Options, Unpack, takes
from ._plan import Plan
from ._rules import RulesLike, _plan, _told_by

Shard = Callable[
    [str, "tuple[int, ...]"], Union[None, bool, "tuple[tuple[int, ...], tuple[int, ...]]"]
]
"""Of a key and its shape: what of it is wanted, as offsets and sizes; None for all of it, False for
nothing."""


@takes(Options)
def weights(
    path: Paths,
    *,
    rules: RulesLike = None,
    shard: Shard | tuple[int, int, int] | None = None,
    ahead: int = 256 << 20,
    framework: str | None = None,
    allow_outside: bool = False,
    root: str | None = None,
    **options: Unpack[Options],
) -> Iterator[tuple[str, Any]]:
    """Iterates over (key, tensor) of a checkpoint, converted, in the order of its files.

    >>> model.load_weights(regraft.weights("hub", to="model"))

    path: what :func:`open` takes. rules and other options: as in :func:`plan`.
    shard: what of each tensor is wanted: a function of its key and shape that gives offsets and
    sizes, None for all of it, or False for nothing of it; or (dim, i, n) for the i-th of n equal
    parts of every tensor that has such a dimension and more than one. Nothing else is read.
    ahead: bytes that are read before they are asked for; a tensor may be larger.
    framework: ``torch`` or ``numpy``; the first of these that is installed if not given.

    Tensors are the caller's own. Reading goes on in a thread until the iterator is closed.
    """
    opened = _regraft.Checkpoint(
        _paths(path),
        allow_outside=allow_outside,
        root=root,
        names=_names(path),
        **_told_by(rules, {**DEFAULTS, **options}),
    )
    plan = _plan(opened, rules, options, beside=str(opened.directory))
    plan._warn()
    return _ahead(plan, list(_boxes(plan, _asking(shard))), ahead, framework)


def _asking(shard: Any) -> Shard:
    if shard is None:
        return lambda key, shape: None
    if callable(shard):
        return shard
    dim, at, of = shard
    if not 0 <= at < of:
        raise ValueError(f"there is no part {at} of {of}")

    def part(key: str, shape: tuple[int, ...]) -> Any:
        if len(shape) <= max(dim, 1):
            return None
        size = -(-shape[dim] // of)
        start = min(at * size, shape[dim])
        offsets, sizes = [0] * len(shape), list(shape)
        offsets[dim], sizes[dim] = start, min(size, shape[dim] - start)
        return tuple(offsets), tuple(sizes)

    return part


def _boxes(plan: Plan, shard: Shard) -> Iterator[tuple[str, Any, Any, int]]:
    """The boxes that are wanted, and the bytes of each, in the order of the files."""
    keys, _ = plan._columns()
    for key in keys:
        found = plan._inner.info(key)
        assert found is not None
        dtype, shape, _ = found
        box = shard(key, shape)
        if box is False:
            continue
        offsets, sizes = ((0,) * len(shape), shape) if box in (None, True) else box  # type: ignore
        yield key, offsets, sizes, nbytes(dtype, sizes)


def _ahead(
    plan: Plan, boxes: list[tuple[str, Any, Any, int]], most: int, framework: str | None
) -> Iterator[tuple[str, Any]]:
    """Reads boxes in a thread, as far ahead as memory is given for."""
    ready: queue.SimpleQueue[Any] = queue.SimpleQueue()
    room, closed = threading.Condition(), threading.Event()
    held = [0]

    def run() -> None:
        try:
            for group in _groups(boxes, max(1, most // 4)):
                size = sum(box[3] for box in group)
                with room:
                    while held[0] and held[0] + size > most and not closed.is_set():
                        room.wait()
                    if closed.is_set():
                        return
                    held[0] += size
                asked = [box[:3] for box in group]
                made, _ = read(plan._made_from[0], plan._inner, asked, None, framework)
                ready.put(list(zip(group, made)))
            ready.put(None)
        except BaseException as error:
            ready.put(error)

    thread = threading.Thread(target=run, name="regraft-weights", daemon=True)
    thread.start()
    try:
        while (group := ready.get()) is not None:
            if isinstance(group, BaseException):
                raise group
            while group:
                (key, _, _, size), tensor = group.pop(0)
                yield key, tensor
                del tensor
                with room:
                    held[0] -= size
                    room.notify()
    finally:
        closed.set()
        with room:
            room.notify()


def _groups(boxes: list[tuple[str, Any, Any, int]], most: int) -> Iterator[list[Any]]:
    group: list[Any] = []
    size = 0
    for box in boxes:
        if group and size + box[3] > most:
            yield group
            group, size = [], 0
        group.append(box)
        size += box[3]
    if group:
        yield group

"""A storage reader for ``torch.distributed.checkpoint``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.distributed.checkpoint import StorageReader
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner
from torch.futures import Future

from .. import _regraft
from .._arrays import Shape, torch_ops
from .._files import Paths, _names, _paths
from .._memory import Box, Place, place_of, read_into
from .._options import DEFAULTS, Options, Unpack, takes
from .._plan import Plan
from .._rules import RulesLike, _plan, _told_by
from ._parts import box_of, parts_within, prefix_of
from ._strided import is_strided, parts_of

# Bytes that pass through memory of their own, where they can't be read to their place.
_STAGED = 32 << 20


class Reader(StorageReader):
    """Lets ``torch.distributed.checkpoint.load`` read any checkpoint, through any rules.

    >>> dcp.load(model.state_dict(), storage_reader=Reader("hub"))

    Each rank reads the boxes of its own shards, whatever the mesh and the placements are, and no
    tensor is whole where its box isn't. Shards in memory are read into directly; those of other
    devices, dtypes or kinds pass through 32 MiB. What is tied is read once.

    path: what :func:`regraft.open` takes.
    rules: rules, their name or file, or several, as in :func:`regraft.plan`; without any, those
    that the config asks for. ``[]`` for none: the keys are the model's already.
    to: the layout that the model has; ``model`` where the config chooses the rules.
    under: where the model's keys lie in the state dict that is loaded: ``model`` for
    ``{"model": model.state_dict()}``.
    strict_files, allow_outside, root: ``strict``, ``allow_outside`` and ``root`` of
    :func:`regraft.open`. Other options are those of :func:`regraft.plan`.

    Keys that the state dict has and the checkpoint doesn't are the load planner's error, or none
    with ``allow_partial_load``. ``plan`` is the plan, and ``bytes_read`` what was read of files.
    """

    plan: Plan
    bytes_read: int = 0

    @takes(Options)
    def __init__(
        self,
        path: Paths,
        rules: RulesLike = None,
        *,
        under: str = "",
        strict_files: bool = True,
        allow_outside: bool = False,
        root: str | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__()
        self.path = path
        self._rules = rules
        self._prefix = prefix_of(under)
        self._how: dict[str, Any] = {
            "strict": strict_files,
            "allow_outside": allow_outside,
            "root": root,
        }
        if rules is None:
            options = {"to": "model", **options}
        self._options = options
        self._opened: _regraft.Checkpoint | None = None

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        return True

    def reset(self, checkpoint_id: Any = None) -> None:
        """Begins anew, of another path if one is given."""
        if checkpoint_id is not None:
            self.path = checkpoint_id
        self._opened, self.bytes_read = None, 0

    def read_metadata(self) -> Metadata:
        """The keys of the model with their dtypes and shapes, one box each. Headers are read."""
        self.bytes_read = 0
        paths = _paths(self.path)
        told_by = _told_by(self._rules, {**DEFAULTS, **self._options})
        self._opened = _regraft.Checkpoint(paths, names=_names(self.path), **self._how, **told_by)
        beside = str(self._opened.directory)
        self.plan = _plan(self._opened, self._rules, self._options, beside=beside)
        return Metadata(
            state_dict_metadata=_Targets(self.plan, self._prefix),
            storage_meta=StorageMeta(),
        )

    def set_up_storage_reader(
        self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any
    ) -> None:
        """What is said of the checkpoint, the coordinator says."""
        if is_coordinator:
            self.plan._warn()

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Reads the boxes that the planner asks for."""
        assert self._opened is not None
        wanted: list[tuple[Box, Place]] = []
        staged: list[tuple[Box, str, Any]] = []
        seen: dict[Place, Any] = {}
        resolved = []
        for item in plan.items:
            tensor = planner.resolve_tensor(item).detach()
            resolved.append((item, tensor))
            for offsets, part in _asked(item, planner, tensor):
                key = item.storage_index.fqn[len(self._prefix) :]
                found = self.plan._inner.info(key)
                if found is None:
                    raise KeyError(key)
                dtype, _, root = found
                tied = root or key
                box = box_of(key, dtype, offsets, part.shape)
                place = None
                if part.dtype == torch_ops().dtype(dtype):
                    place = place_of(part, dtype, box[2])
                if place is None:
                    staged.append((box, dtype, part))
                    continue
                # One tensor under two keys, as tied embeddings are in a model too.
                same = (tied, box[1:])
                if place.length and seen.get(place) == same:
                    continue
                seen[place] = same
                wanted.append((box, place))
        self.bytes_read += read_into(self._opened, self.plan._inner, wanted)
        self._through_memory(staged)
        for item, tensor in resolved:
            planner.commit_tensor(item, tensor)
        future: Future[None] = Future()
        future.set_result(None)
        return future

    def _through_memory(self, staged: list[tuple[Box, str, Any]]) -> None:
        """Reads boxes that are on another device, or become another dtype, some at a time."""
        assert self._opened is not None
        held: list[tuple[Box, Place]] = []
        copied: list[tuple[Any, Any]] = []
        size = 0
        for box, dtype, tensor in staged:
            own = torch_ops().dtype(dtype)
            for at, part in parts_within(box, dtype, tensor, max(1, _STAGED // own.itemsize)):
                read = torch.empty(part.shape, dtype=own)
                place = place_of(read, dtype, at[2])
                assert place is not None
                if size + read.nbytes > _STAGED:
                    self._copy(held, copied)
                    size = 0
                held.append((at, place))
                copied.append((part, read))
                size += read.nbytes
        self._copy(held, copied)

    def _copy(self, held: list[tuple[Box, Place]], copied: list[tuple[Any, Any]]) -> None:
        assert self._opened is not None
        if held:
            self.bytes_read += read_into(self._opened, self.plan._inner, held)
        for part, read in copied:
            part.copy_(read)
        held.clear()
        copied.clear()


def _asked(item: Any, planner: Any, tensor: Any) -> Iterator[tuple[tuple[int, ...], Any]]:
    """Where in the whole tensor what a planner asks for begins, and what it is read into."""
    whole: Any = (getattr(planner, "state_dict", None) or {}).get(item.dest_index.fqn)
    if not is_strided(whole):
        yield tuple(item.storage_offsets), tensor
        return
    for offsets, local, sizes in parts_of(whole):
        # Not what the planner gives, which may have cut it by the wrong box.
        part = whole.to_local().detach()
        for dim, (at, size) in enumerate(zip(local, sizes)):
            part = part.narrow(dim, at, size)
        yield offsets, part


class _Targets(Mapping[str, TensorStorageMetadata]):
    """The keys of a model, and what each is, said when it is asked for: there are many keys, and a
    rank asks for those that it has."""

    def __init__(self, plan: Plan, prefix: str) -> None:
        self._plan, self._prefix = plan, prefix
        self._known: dict[str, TensorStorageMetadata] = {}
        self._kinds: dict[tuple[str, Shape], tuple[TensorProperties, ChunkStorageMetadata]] = {}

    def __len__(self) -> int:
        return len(self._plan)

    def __iter__(self) -> Iterator[str]:
        prefix = self._prefix
        return iter([prefix + key for key in self._plan.keys()] if prefix else self._plan.keys())

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, str) or not key.startswith(self._prefix):
            return False
        return key[len(self._prefix) :] in self._plan

    def __getitem__(self, key: str) -> TensorStorageMetadata:
        known = self._known.get(key)
        if known is not None:
            return known
        found = self._plan._inner.info(key[len(self._prefix) :])
        if found is None or not key.startswith(self._prefix):
            raise KeyError(key)
        properties, chunk = self._kind(*found[:2])
        made = TensorStorageMetadata(properties, chunk.sizes, [chunk])
        self._known[key] = made
        return made

    def _kind(self, dtype: str, shape: Shape) -> tuple[TensorProperties, ChunkStorageMetadata]:
        """What tensors of one dtype and shape have in common: many objects keep Python's garbage
        collector busier than making them takes."""
        kind = self._kinds.get((dtype, shape))
        if kind is None:
            ops = torch_ops()
            size = torch.Size(ops.own_shape(dtype, shape))
            chunk = ChunkStorageMetadata(torch.Size([0] * len(size)), size)
            kind = TensorProperties(dtype=ops.dtype(dtype)), chunk
            self._kinds[dtype, shape] = kind
        return kind

    def __reduce__(self) -> Any:
        return dict, (dict(self),)

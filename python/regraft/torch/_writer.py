"""A storage writer for ``torch.distributed.checkpoint``."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Callable

import torch
from torch.distributed.checkpoint import StorageWriter
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner, WriteItemType
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from .. import _regraft
from .._arrays import torch_ops
from .._errors import CheckpointError
from .._memory import Box, Place, place_of
from .._options import DEFAULTS, SaveOptions, Unpack, takes
from .._plan import Plan, warn_of_overflow
from .._rules import PathLike, RulesLike, _plan
from ._parts import box_of, parts_within, prefix_of
from ._strided import is_strided, parts_of
from ._tied import Digests, is_one

# Bytes that are copied from other devices at once.
_STAGED = 64 << 20
# Beside the files while they are written: what the model is.
_MODEL = "model.json"


class Writer(StorageWriter):
    """Lets ``torch.distributed.checkpoint.save`` and ``async_save`` write safetensors files as they
    are published, from a sharded model, through rules.

    >>> dcp.save(model.state_dict(), storage_writer=Writer("out", like="hub"))

    Each rank writes the boxes of its own shards to their final places, in one pass: nothing is
    gathered and nothing is put together afterwards. The output appears when all ranks are done; if
    one fails, nothing does. The ranks need a file system in common.

    path: a directory to be made, or a file if it ends with ``.safetensors``.
    rules: rules, their name or file, or several, read backwards unless ``reverse=False``; without
    any, those that the config asks for, from what a model holds to what is published. ``[]`` for
    none.
    like: a directory whose config, tokenizer and other files that are no weights are copied beside;
    its config is the config if none is given.
    under: where the model's keys lie in the state dict: ``model`` for
    ``{"model": model.state_dict()}``.
    max_shard_size, single, materialize_ties, force, metadata: as in :func:`regraft.convert`.
    sync: whether the files are durable before they appear.
    Other options are those of :func:`regraft.plan`.

    What is computed from elements that several ranks hold is refused, with its key.
    """

    plan: Plan
    bytes_written: int = 0

    @takes(SaveOptions)
    def __init__(
        self,
        path: PathLike,
        rules: RulesLike = None,
        *,
        like: PathLike | None = None,
        under: str = "",
        reverse: bool = True,
        max_shard_size: int | None = DEFAULTS["max_shard_size"],
        single: bool = False,
        materialize_ties: bool = False,
        force: bool = False,
        metadata: Mapping[str, str] | None = None,
        sync: bool = True,
        **options: Unpack[SaveOptions],
    ) -> None:
        super().__init__()
        self.path = path
        self._rules, self._like = rules, like
        self._prefix = prefix_of(under)
        self._options: dict[str, Any] = dict(options)
        if rules is None:
            self._options.setdefault("to", "hub")
        else:
            self._options["reverse"] = reverse
        self._how: dict[str, Any] = {
            "max_shard_size": max_shard_size,
            "single": single,
            "materialize_ties": materialize_ties,
            "force": force,
            "metadata": dict(metadata or {}),
            "sync": sync,
        }
        self._is_coordinator = True
        self._output: _regraft.Output | None = None
        self._one: list[tuple[str, str]] = []

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_output": None}

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        return True

    def reset(self, checkpoint_id: Any = None) -> None:
        """Begins anew, to another path if one is given. What a save that failed left goes."""
        if checkpoint_id is not None:
            self.path = checkpoint_id
        if self._output is not None:
            self._output.abandon()
        self._output, self.bytes_written = None, 0

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        self.reset()
        self._is_coordinator = is_coordinator

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Makes all files, in a hidden place, and tells the ranks where."""
        model = self._model(plans)
        # What is tied by intent is taken for one, and found out to be when it is written.
        self._one = []

        def equal(a: str, b: str) -> int:
            self._one.append((a, b))
            return 0

        output = self._begin(model, equal)
        place = output.begin()
        output.aside(_MODEL).write_text(json.dumps({"model": model, "one": self._one}))
        told = (str(place), str(output.aside(_MODEL)))
        self._output = output
        self.plan._warn()
        return [dataclasses.replace(plan, storage_data=told) for plan in plans]

    def _model(self, plans: Iterable[SavePlan]) -> list[list[Any]]:
        """Keys, dtypes and shapes of the model that all ranks hold together."""
        names = torch_ops().names
        found: dict[str, tuple[str, tuple[int, ...]]] = {}
        held: dict[str, int] = {}
        for plan in plans:
            if not plan.usable:
                raise ValueError(
                    "a planner that remembers plans tells the writer nothing: "
                    "leave `enable_plan_caching` out"
                )
            for item in plan.items:
                key = self._key(item.index.fqn)
                if item.type == WriteItemType.BYTE_IO or item.tensor_data is None:
                    raise TypeError(
                        f"{item.index.fqn} is no tensor: files of safetensors hold tensors alone"
                    )
                data = item.tensor_data
                name = names.get(data.properties.dtype)
                if name is None:
                    raise TypeError(f"{item.index.fqn}: safetensors has no {data.properties.dtype}")
                _, _, shape = box_of(key, name, (0,) * len(data.size), data.size)
                found[key] = (name, shape)
                held[key] = held.get(key, 0) + math.prod(data.chunk.sizes)
        for key, (name, shape) in found.items():
            if held[key] * (2 if name == "F4" else 1) != math.prod(shape):
                raise ValueError(f"the ranks hold {held[key]} elements of {key}, which is {shape}")
        keys = list(found)
        return [keys, [found[key][0] for key in keys], [found[key][1] for key in keys]]

    def _key(self, fqn: str) -> str:
        if not fqn.startswith(self._prefix):
            raise KeyError(f"{fqn} doesn't begin with {self._prefix}, where the model's keys are")
        return fqn[len(self._prefix) :]

    def _begin(
        self, model: list[list[Any]], equal: Callable[[str, str], int | None]
    ) -> _regraft.Output:
        keys, dtypes, shapes = model
        header = _regraft.Header(keys, dtypes, [tuple(shape) for shape in shapes])
        like = None if self._like is None else os.fspath(self._like)
        options: Any = self._options
        self.plan = _plan(header, self._rules, options, beside=like, equal=equal)
        side_files = [] if like is None else _regraft.side_files([like], False)
        return _regraft.Output(
            self.plan._inner, header, os.fspath(self.path), side_files=side_files, **self._how
        )

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Writes the boxes that this rank has to their places."""
        try:
            return self._write_data(plan, planner)
        except BaseException:
            # Nothing will appear: other ranks that still write do so in vain.
            if self._output is not None:
                self._output.abandon()
            raise

    def _write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        place, model = plan.storage_data
        output = self._output
        with open(model) as file:
            told = json.load(file)
        one = [tuple(pair) for pair in told["one"]]
        if output is None:
            output = self._begin(told["model"], lambda a, b: 0 if (a, b) in one else None)
        tied, digests = {key for pair in one for key in pair}, Digests()
        here: list[tuple[Box, Place]] = []
        elsewhere: list[tuple[Box, str, Any]] = []
        # Tensors that were made to be written live as long.
        held = []
        for item in plan.items:
            tensor = planner.resolve_data(item)
            assert isinstance(tensor, torch.Tensor) and item.tensor_data is not None
            key = self._key(item.index.fqn)
            dtype = torch_ops().names[item.tensor_data.properties.dtype]
            for offsets, part in _held(item, planner, tensor.detach()):
                box = box_of(key, dtype, offsets, part.shape)
                found = place_of(part, dtype, box[2])
                if key in tied:
                    digests.add(box, found, part)
                if found is None:
                    elsewhere.append((box, dtype, part))
                else:
                    here.append((box, found))
                    held.append(part)
        rest = self._is_coordinator
        written = self._write(output, here, rest, place)
        staged: list[tuple[Box, Place]] = []
        held, size = [], 0
        for box, dtype, tensor in elsewhere:
            most = max(1, _STAGED // tensor.element_size())
            for at, part in parts_within(box, dtype, tensor, most):
                if size + part.nbytes > _STAGED and staged:
                    written += self._write(output, staged, False, place)
                    staged, held, size = [], [], 0
                copy = part.to("cpu", copy=True).contiguous()
                found = place_of(copy, dtype, at[2])
                assert found is not None
                staged.append((at, found))
                held.append(copy)
                size += part.nbytes
        if staged:
            written += self._write(output, staged, False, place)
        self.bytes_written = written
        future: Future[list[WriteResult]] = Future()
        future.set_result([WriteResult(MetadataIndex(""), written, digests.all(one))])
        return future

    def _write(
        self, output: _regraft.Output, boxes: list[tuple[Box, Place]], rest: bool, into: str
    ) -> int:
        report = json.loads(
            output.write(
                [box for box, _ in boxes],
                [(place.address, place.length) for _, place in boxes],
                [place.strides for _, place in boxes],
                rest,
                into,
            )
        )
        warn_of_overflow(report.get("overflowed", {}))
        return report["bytes_written"]

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Adds what is beside the files, and lets the output appear."""
        output, self._output = self._output, None
        assert output is not None
        written = sum(result.size_in_bytes for of_rank in results for result in of_rank)
        found = [result.storage_data for of_rank in results for result in of_rank]
        for a, b in self._one:
            if not is_one(a, b, found):
                output.abandon()
                raise CheckpointError(
                    f"{a} and {b} are tied by the config, and not known to be equal",
                    "unsupported",
                    key=a,
                    hint="`tied=False` writes both",
                )
        if written != output.nbytes:
            output.abandon()
            raise CheckpointError(
                f"{written} of {output.nbytes} bytes were written: nothing appears", "other"
            )
        output.finish()


def _held(item: Any, planner: Any, tensor: Any) -> Iterator[tuple[tuple[int, ...], Any]]:
    """Where in the whole tensor what a rank has begins, and that."""
    whole: Any = (getattr(planner, "state_dict", None) or {}).get(item.index.fqn)
    if not is_strided(whole):
        yield tuple(item.tensor_data.chunk.offsets), tensor
        return
    for offsets, local, sizes in parts_of(whole):
        part = whole.to_local().detach()
        for dim, (at, size) in enumerate(zip(local, sizes)):
            part = part.narrow(dim, at, size)
        yield offsets, part

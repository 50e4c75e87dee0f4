"""Checkpoints in files: opened as mappings of tensors that are read when they are touched, and
converted into new files."""

from __future__ import annotations

import json
import mmap
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Callable, Union
from weakref import WeakValueDictionary

from . import _regraft
from ._arrays import bits, nbytes, ops_by_name
from ._errors import CheckpointError
from ._execute import sources
from ._many import many
from ._options import DEFAULTS, ConvertOptions, Options, Unpack, takes
from ._plan import Plan, warn, warn_of_overflow
from ._rules import PathLike, RulesLike, _apply, _plan, _told_by


def _map(file: int, offset: int = 0) -> mmap.mmap:
    """A file from a place to its end, mapped for this process alone: what is written there stays in
    memory."""
    if not hasattr(mmap, "MAP_PRIVATE"):
        return mmap.mmap(file, 0, access=mmap.ACCESS_COPY, offset=offset)
    # Without a reservation a file larger than the memory could not be mapped so.
    reserve = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform.startswith("linux") else 0)
    return mmap.mmap(
        file,
        0,
        flags=mmap.MAP_PRIVATE | reserve,
        prot=mmap.PROT_READ | mmap.PROT_WRITE,
        offset=offset,
    )


class _Bytes(bytearray):
    """The bytes of a tensor that can't be a view of a file, for as long as one of its tensors
    lives."""

    __slots__ = ("__weakref__",)


_AT_ONCE = 16 << 20
"""How many bytes are read at once of a tensor in several parts."""

_AHEAD = 64 << 20
"""How many bytes of tensors far away are read before they are needed."""


open_file = open


class Checkpoint(Mapping[str, Any]):
    """Key -> tensor of a checkpoint in files. Made by :func:`open`.

    Tensors lie in the mapped files: none is read before it is touched, and what is written to one
    stays in this process. Keys that share bytes in a file share them here. While tensors live, the
    files must not shrink. What can't be a view is read when it is asked for, and lives as long as
    its tensors do: parts in several files, and elements at odd addresses.

    In another process, and as a copy, it is opened again: what was written to tensors is not there.
    """

    def __init__(
        self,
        inner: _regraft.Checkpoint,
        framework: str | None,
        again: dict[str, Any],
    ) -> None:
        self._inner = inner
        self._framework = framework
        self._again = again
        with many():
            self._keys, dtypes, shapes, sizes, places = inner.columns()
        self._places = dict(zip(self._keys, places))
        self._maps: dict[int, tuple[mmap.mmap, int]] = {}
        self._read: WeakValueDictionary[Any, _Bytes] = WeakValueDictionary()
        self.dtypes: Mapping[str, str] = dict(zip(self._keys, dtypes))
        """The dtype of each key, as the safetensors format names it."""
        self.shapes: Mapping[str, tuple[int, ...]] = dict(zip(self._keys, shapes))
        """The shape of each key."""
        if None in sizes:
            sizes = [nbytes(dtype, shape) for dtype, shape in zip(dtypes, shapes)]
        self.nbytes: Mapping[str, int] = dict(zip(self._keys, sizes))
        """The size of each key's tensor in bytes."""
        self.paths: list[str] = [str(path) for path in inner.paths]
        """The files."""
        self.metadata: Mapping[str, str] = inner.metadata
        """``__metadata__`` of the files."""
        self.unreadable: Mapping[str, str] = dict(inner.unreadable())
        """Keys of tensors that have no form here, and what each is. They are left out."""

    def __reduce__(self) -> Any:
        return _reopen, (self._framework, self._again)

    @property
    def notes(self) -> list[str]:
        """What is odd about the files but no error: which part of a nested file was taken, and what
        was left out."""
        return [text.strip() for text in self._inner.notes()]

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __contains__(self, key: object) -> bool:
        return key in self._places

    def __repr__(self) -> str:
        return (
            f"<regraft.Checkpoint: {len(self)} keys, {sum(self.nbytes.values()):,} bytes in "
            f"{len(self.paths)} files>"
        )

    def _repr_html_(self) -> str:
        return self._inner.to_html()

    def __getitem__(self, key: str) -> Any:
        if key in self.unreadable and key not in self._places:
            raise CheckpointError(
                f"it can't be read: {self.unreadable[key]}", "unsupported", None, key
            )
        return self._tensor(key, self.dtypes[key], self.shapes[key])

    def _tensor(self, key: str, dtype: str, shape: tuple[int, ...]) -> Any:
        ops = ops_by_name(self._framework)
        if not self._inner.has_bytes:
            raise CheckpointError("a manifest has no bytes", "unsupported", None, key)
        if self.nbytes[key] == 0:
            return ops.from_buffer(b"", dtype, shape, 0, 0)
        buffer, offset, count, strides = self._bytes(key)
        return ops.from_buffer(buffer, dtype, shape, offset, count, strides)

    def _bytes(self, key: str) -> tuple[Any, int, int, tuple[int, ...] | None]:
        """A buffer in which a tensor lies: the first byte, how many up to the last element, and
        strides."""
        place = self._places[key]
        if place is None:
            size = self.nbytes[key]
            found = self._read.get(key)
            if found is None:
                parts = range(0, size, _AT_ONCE)
                read = (self._inner.read(key, at, min(_AT_ONCE, size - at)) for at in parts)
                found = self._keep(key, size, read)
            return found, 0, size, None
        number, offset, count, strides = place
        mapped, start = self._mapped(number, key)
        first = start + offset
        if first + count > len(mapped):
            raise CheckpointError(
                "the file became shorter after its header was read",
                "corrupt",
                self.paths[number],
                key,
            )
        if first % max(bits(self.dtypes[key]) // 8, 1) == 0:
            return mapped, first, count, strides
        # No framework promises anything of elements at odd addresses.
        own = (number, offset, count)
        found = self._read.get(own)
        if found is None:
            with memoryview(mapped) as view, view[first : first + count] as part:
                found = self._keep(own, count, [part])
        return found, 0, count, strides

    @many()
    def _views(self, keys: Iterable[str]) -> dict[str, Any]:
        """Those of these tensors that are views of files, all at once."""
        from_buffer = ops_by_name(self._framework).from_buffer
        dtypes, shapes, places = self.dtypes, self.shapes, self._places
        alignments = {dtype: max(bits(dtype) // 8, 1) for dtype in set(dtypes.values())}
        made = {}
        for key in keys:
            place = places[key]
            if place is None:
                continue
            number, offset, count, strides = place
            mapped, start = self._maps.get(number) or self._mapped(number, key)
            first, dtype = start + offset, dtypes[key]
            if count and first % alignments[dtype] == 0 and first + count <= len(mapped):
                made[key] = from_buffer(mapped, dtype, shapes[key], first, count, strides)
        return made

    def _fetch(self, keys: Sequence[str]) -> dict[str, _Bytes]:
        """The bytes of tensors far away, read at once: what lies close together comes by one
        request. For as long as they are held, the tensors are there."""
        dtypes = [self.dtypes[key] for key in keys]
        shapes = [self.shapes[key] for key in keys]
        plan = _plan(_regraft.Header(list(keys), dtypes, shapes), [], {})
        boxes = [(key, [0] * len(shape), list(shape)) for key, shape in zip(keys, shapes)]
        ends = list(accumulate(self.nbytes[key] for key in keys))
        places = [(end - self.nbytes[key], self.nbytes[key]) for key, end in zip(keys, ends)]
        read, _ = _regraft.read(self._inner, plan._inner, boxes, places, ends[-1])
        with memoryview(read) as view:
            return {
                key: self._keep(key, size, [view[at : at + size]])
                for key, (at, size) in zip(keys, places)
            }

    def _keep(self, name: Any, size: int, parts: Iterable[Any]) -> _Bytes:
        """Bytes of their own, which all that asks for them shares as long as any of it lives."""
        made, at = _Bytes(size), 0
        with memoryview(made) as view:
            for part in parts:
                view[at : at + len(part)] = part
                at += len(part)
        return self._read.setdefault(name, made)

    def _mapped(self, number: int, key: str) -> tuple[mmap.mmap, int]:
        """The map of a blob, and where in it the blob begins."""
        found = self._maps.get(number)
        if found is not None:
            return found
        path = self.paths[number] if number < len(self.paths) else None
        try:
            if path is None:
                made = self._unpacked(number)
            else:
                with open_file(path, "rb") as file:
                    made = _map(file.fileno()), 0
        except (OSError, ValueError) as error:
            raise CheckpointError(f"cannot map: {error}", "io", path, key) from error
        # Two threads may map at once; all views must share one, so the first stands.
        return self._maps.setdefault(number, made)

    def _unpacked(self, number: int) -> tuple[mmap.mmap, int]:
        """What is compressed in a file, or has the other byte order, unpacked by the engine."""
        file, start = self._inner.unpacked(number)
        try:
            before = start % mmap.ALLOCATIONGRANULARITY
            return _map(file, start - before), before
        finally:
            os.close(file)

    @property
    def directory(self) -> str:
        """Where the files lie, and config.json beside them."""
        return str(self._inner.directory)

    @takes(Options)
    def plan(self, rules: RulesLike = None, **options: Unpack[Options]) -> Plan:
        """Plans rules, or without any those that config.json asks for. Options as in
        :func:`regraft.plan`."""
        equal = self._differing_bytes if self._inner.has_bytes else None
        return _plan(self._inner, rules, options, equal=equal, beside=self.directory)

    def _differing_bytes(self, a: str, b: str) -> int | None:
        """In the map, where a tensor may have been written to; as bits, since a framework may lack
        the dtype."""
        dtype, shape = self.dtypes[a], self.shapes[a]
        if (dtype, shape) != (self.dtypes[b], self.shapes[b]):
            return None
        whole = {8: "U8", 16: "I16", 32: "I32", 64: "I64"}.get(bits(dtype))
        if whole is None:
            whole, shape = "U8", (self.nbytes[a],)
        both = [self._tensor(key, whole, shape) for key in (a, b)]
        return ops_by_name(self._framework).differing_bytes(*both)

    @takes(Options)
    def apply(self, rules: RulesLike = None, **options: Unpack[Options]) -> dict[str, Any]:
        """Applies rules, or without any those that config.json asks for. What is a view of a tensor
        in a file stays there, unread.

        Options as in :func:`regraft.apply`.
        """
        return _apply(self, rules, options)

    def _carry_out(self, plan: Plan) -> dict[str, Any]:
        # Each tensor is asked for when it is needed, and let go of after that: it may have to be
        # read.
        far = not self._inner.is_on_disk
        given = _AsNeeded(self, sources(plan._recipe(), plan._columns()[1]) if far else [])
        if not far and self._inner.has_bytes:
            given.update(self._views(node for node in plan._recipe() if type(node) is str))
        return plan._carry_out(given, consumed=given)

    def _header_columns(self) -> tuple[list[str], list[str], list[tuple[int, ...]]]:
        return self._keys, list(self.dtypes.values()), list(self.shapes.values())


class _AsNeeded(dict[str, Any]):
    """Tensors of a checkpoint, each asked for once and kept until it is taken out. Of those that
    are soon needed (``order``), what fits into ``_AHEAD`` is read with the first of them."""

    def __init__(self, opened: Checkpoint, order: list[str]) -> None:
        super().__init__()
        self._opened = opened
        self._order = order
        self._next = 0
        self._ahead: dict[str, _Bytes] = {}

    def __missing__(self, key: str) -> Any:
        if key not in self._ahead:
            self._read_ahead(key)
        self[key] = self._opened[key]
        self._ahead.pop(key, None)
        return self[key]

    def _read_ahead(self, key: str) -> None:
        batch, size = [key], self._opened.nbytes[key]
        here = {key, *self.keys(), *self._ahead}
        for following in self._order[self._next :]:
            if following not in here:
                size += self._opened.nbytes[following]
                if size > _AHEAD:
                    break
                batch.append(following)
            self._next += 1
        # One alone may be larger than any batch, and is read in parts.
        if len(batch) > 1:
            self._ahead.update(self._opened._fetch(batch))

    def __contains__(self, key: object) -> bool:
        return key in self._opened

    def pop(self, key: str, *_: Any) -> Any:
        value = self[key]
        del self[key]
        return value


Paths = Union[PathLike, Sequence[PathLike], Mapping[str, PathLike]]


def _paths(given: Paths) -> list[str]:
    if isinstance(given, (str, os.PathLike)):
        return [os.fspath(given)]
    return [os.fspath(path) for path in (given.values() if isinstance(given, Mapping) else given)]


def _names(given: Paths) -> list[str] | None:
    """What stands before the keys of each, if they are named."""
    return list(given) if isinstance(given, Mapping) else None


@takes()
def open(
    path: Paths,
    *,
    framework: str | None = None,
    strict: bool = True,
    allow_outside: bool = False,
    root: str | None = None,
) -> Checkpoint:
    """Opens a checkpoint: a safetensors file; what ``torch.save`` wrote (``.pt``, ``.pth``,
    ``.bin``, ``.ckpt``); ``.npz`` and ``.npy``; a directory of such files, with or without an
    index; a directory of ``torch.distributed.checkpoint``; an index; or several of them as one; or
    an address of any (``hf://org/name``, ``https://…``, ``s3://…``, ``gs://…``, ``az://…``). No
    code of a file is run, and neither torch nor numpy is needed to open one. Of a mapping from
    names to paths, the keys of each begin with its name: ``{"rank0": …}`` gives
    ``rank0.norm.weight``; so files with equal keys are told apart. Those of the name ``""`` stay as
    they are.

    framework: ``torch`` or ``numpy``; the first of these that is installed if not given.
    strict: whether keys in the shards that the index doesn't know, or places elsewhere, are errors.
    allow_outside: whether symbolic links may lead out of the directory.
    root: where in a file with dicts in dicts the state dict lies, as ``ema.model``; empty for all
    of the file; where it usually does if not given. ``notes`` says what was taken and left out.

    Only headers are read. A tensor that has no form here (sparse, quantized, on the meta device) is
    left out with a warning. Raises CheckpointError if a file is missing, corrupt, or of another
    kind.
    """
    if framework is not None:
        ops_by_name(framework)
    again = {"strict": strict, "allow_outside": allow_outside, "root": root}
    opened = _opened(path, framework, again)
    if opened.unreadable:
        warn(_unreadable(opened.unreadable))
    return opened


def _opened(path: Paths, framework: str | None, options: dict[str, Any]) -> Checkpoint:
    paths, names = _paths(path), _names(path)
    inner = _regraft.Checkpoint(paths, names=names, **options)
    # As they were found: a revision is a commit by then.
    again: Paths = dict(zip(names, inner.sources)) if names is not None else inner.sources
    return Checkpoint(inner, framework, {"path": again, **options})


def _reopen(framework: str | None, again: dict[str, Any]) -> Checkpoint:
    again = dict(again)
    return _opened(again.pop("path"), framework, again)


def _unreadable(found: Mapping[str, str]) -> str:
    shown = ", ".join(f"{key} ({what})" for key, what in list(found.items())[:4])
    more = ", …" if len(found) > 4 else ""
    tensors = "1 tensor" if len(found) == 1 else f"{len(found)} tensors"
    return f"warning[RG349]: left out, since they can't be read: {tensors}: {shown}{more}"


@dataclass(frozen=True)
class Conversion:
    """What a conversion did. Counts are of keys, sizes in bytes."""

    plan: Plan
    """How each key was made."""
    files: tuple[str, ...]
    """The files written, by name."""
    aliased: int
    """Ties that were not written, as their source is."""
    copied: int
    """Tensors whose elements were moved at most."""
    transformed: int
    """Tensors whose elements were computed."""
    bytes_read: int
    bytes_written: int
    details: Mapping[str, Any]
    """Everything that the engine reports."""


# Options that the engine takes as they are.
_AS_GIVEN = (
    "max_shard_size",
    "single",
    "materialize_ties",
    "side_files",
    "write_record",
    "force",
    "memory",
    "resume",
    "checksums",
    "rank",
)


@takes(ConvertOptions)
def convert(
    src: Paths,
    dst: PathLike,
    *,
    rules: RulesLike = None,
    **options: Unpack[ConvertOptions],
) -> Conversion:
    """Converts a checkpoint into new files, streamed, in the engine's own threads. The output
    appears whole or not at all.

    src: what :func:`open` takes; strict, allow_outside, root: as there. dst: a directory to be
    made, or a file if it ends with ``.safetensors``. rules .. record: as in :func:`regraft.plan`;
    where rules say so (``shards``), files of ranks are told apart, and one is written for each.
    max_shard_size: most bytes of tensors in one file, but for those of ranks; ``single``: one file,
    however large.
    materialize_ties: write tied tensors under each of their keys.
    side_files: copy config, tokenizer and other files that are no weights from source directories.
    write_record: write what the way back can't know from the rules beside the output, where it is
    looked for.
    force: replace an output that is there.
    memory: most bytes that all threads together hold in buffers (64 MiB if not given).
    resume: continue what a killed run of the same work left beside the output.
    checksums: write BLAKE3 of each file and tensor beside the files.
    rank: (rank, world size) of this process among several that share the work; the last to finish
    puts the output in its place.
    progress: called with (bytes done, bytes in all), from this thread; or a bar as tqdm makes them
    (``total``, ``update``); or True for tqdm's own.

    An exception of ``progress``, and Ctrl-C, end the run and leave nothing behind.
    """
    given: dict[str, Any] = {**DEFAULTS, **options}
    paths = _paths(src)
    opened = _regraft.Checkpoint(
        paths,
        given["strict"],
        given["allow_outside"],
        given["root"],
        names=_names(src),
        **_told_by(rules, given),
    )
    made = _plan(opened, rules, options, beside=str(opened.directory))
    made._warn()
    tell, close = _progress(given["progress"])
    try:
        written = _regraft.write(
            made._inner,
            os.fspath(dst),
            metadata=dict(given["metadata"] or {}),
            progress=tell,
            **{name: given[name] for name in _AS_GIVEN},
        )
    finally:
        close()
    report = json.loads(written)
    warn_of_overflow(report.get("overflowed", {}))
    return Conversion(
        plan=made,
        files=tuple(report["files"]),
        aliased=report["aliased"],
        copied=report["copied"],
        transformed=report["transformed"],
        bytes_read=report["bytes_read"],
        bytes_written=report["bytes_written"],
        details=report,
    )


def _progress(given: Any) -> tuple[Callable[[int, int], object] | None, Callable[[], object]]:
    def nothing() -> None:
        pass

    if given is None or given is False:
        return None, nothing
    close: Callable[[], object] = nothing
    if given is True:
        try:
            from tqdm.auto import tqdm
        except ImportError:
            raise ImportError(
                "progress=True shows a bar of tqdm, which is not installed; give a function instead"
            ) from None
        given = tqdm(unit="B", unit_scale=True, unit_divisor=1024)
        close = given.close
    if callable(getattr(given, "update", None)):
        bar, seen = given, [0]

        def tell(done: int, total: int) -> None:
            if getattr(bar, "total", None) != total:
                bar.total = total
            bar.update(done - seen[0])
            seen[0] = done

        return tell, close
    if not callable(given):
        raise TypeError("progress is a function of (done, total), a bar with `update`, or True")
    return given, close

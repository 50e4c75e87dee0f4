"""Checkpoints in files: opened as mappings of tensors that are read when they are touched, and
converted into new files."""

from __future__ import annotations

import json
import mmap
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Union

from . import _regraft
from ._arrays import nbytes, ops_by_name
from ._errors import CheckpointError
from ._options import DEFAULTS, ConvertOptions, Options, Unpack, takes
from ._plan import Plan, warn_of_overflow
from ._rules import PathLike, RulesLike, _apply, _plan, _told_by


def _map(path: str) -> mmap.mmap:
    """A file mapped for this process alone: what is written there stays in memory."""
    with open_file(path, "rb") as file:
        if not hasattr(mmap, "MAP_PRIVATE"):
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        # Without a reservation a file larger than the memory could not be mapped so.
        reserve = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform.startswith("linux") else 0)
        return mmap.mmap(
            file.fileno(),
            0,
            flags=mmap.MAP_PRIVATE | reserve,
            prot=mmap.PROT_READ | mmap.PROT_WRITE,
        )


open_file = open


class Checkpoint(Mapping[str, Any]):
    """Key -> tensor of a checkpoint in files. Made by :func:`open`.

    Tensors lie in the mapped files: none is read before it is touched, and what is written to one
    stays in this process. While they live, the files must not shrink. In another process, and as a
    copy, it is opened again: what was written to tensors is not there.
    """

    def __init__(
        self,
        inner: _regraft.Checkpoint,
        framework: str | None,
        again: tuple[Paths, bool, bool],
    ) -> None:
        self._inner = inner
        self._framework = framework
        self._again = again
        self._keys, dtypes, shapes, places = inner.columns()
        self._places = dict(zip(self._keys, places))
        self._maps: dict[int, mmap.mmap] = {}
        self.dtypes: Mapping[str, str] = dict(zip(self._keys, dtypes))
        """The dtype of each key, as the safetensors format names it."""
        self.shapes: Mapping[str, tuple[int, ...]] = dict(zip(self._keys, shapes))
        """The shape of each key."""
        self.nbytes: Mapping[str, int] = {
            key: nbytes(self.dtypes[key], self.shapes[key]) for key in self._keys
        }
        """The size of each key's tensor in bytes."""
        self.paths: list[str] = [str(path) for path in inner.paths]
        """The files."""
        self.metadata: Mapping[str, str] = inner.metadata
        """``__metadata__`` of the files."""
        self.notes: list[str] = inner.notes
        """What is odd about the files but no error."""

    def __reduce__(self) -> Any:
        return _reopen, (self._framework, *self._again)

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

    def __getitem__(self, key: str) -> Any:
        return self._tensor(key, self.dtypes[key], self.shapes[key])

    def _tensor(self, key: str, dtype: str, shape: tuple[int, ...]) -> Any:
        place = self._places[key]
        if place is None:
            raise CheckpointError("a manifest has no bytes", "unsupported", None, key)
        number, offset, count = place
        ops = ops_by_name(self._framework)
        if count == 0:
            return ops.from_buffer(b"", dtype, shape, 0, 0)
        if number not in self._maps:
            path = self.paths[number]
            try:
                self._maps[number] = _map(path)
            except (OSError, ValueError) as error:
                raise CheckpointError(f"cannot map: {error}", "io", path, key) from error
        mapped = self._maps[number]
        if offset + count > len(mapped):
            raise CheckpointError(
                "the file became shorter after its header was read",
                "corrupt",
                self.paths[number],
                key,
            )
        return ops.from_buffer(mapped, dtype, shape, offset, count)

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
        """In the map, where a tensor may have been written to; as bytes, since a framework may lack
        the dtype."""
        if self.dtypes[a] != self.dtypes[b] or self.shapes[a] != self.shapes[b]:
            return None
        bytes_of = [self._tensor(key, "U8", (self.nbytes[key],)) for key in (a, b)]
        return ops_by_name(self._framework).differing_bytes(*bytes_of)

    @takes(Options)
    def apply(self, rules: RulesLike = None, **options: Unpack[Options]) -> dict[str, Any]:
        """Applies rules, or without any those that config.json asks for. What is a view of a tensor
        in a file stays there, unread.

        Options as in :func:`regraft.apply`.
        """
        return _apply(self, rules, options)

    def _carry_out(self, plan: Plan) -> dict[str, Any]:
        if plan._nodes is None:
            plan._nodes = plan._inner.nodes()
        used = {node: self[node] for node in plan._nodes if type(node) is str}
        return plan._carry_out(used)

    def _header_columns(self) -> tuple[list[str], list[str], list[tuple[int, ...]]]:
        return self._keys, list(self.dtypes.values()), list(self.shapes.values())


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
) -> Checkpoint:
    """Opens a checkpoint: a safetensors file, a directory with or without an index, an index, or
    several of them as one. Of a mapping from names to paths, the keys of each begin with its name:
    ``{"rank0": …}`` gives ``rank0.norm.weight``; so files with equal keys are told apart.

    framework: ``torch`` or ``numpy``; the first of these that is installed if not given.
    strict: whether keys in the shards that the index doesn't know, or places elsewhere, are errors.
    allow_outside: whether symbolic links may lead out of the directory.

    Only headers are read. Raises CheckpointError if a file is missing, corrupt, or of another kind.
    """
    if framework is not None:
        ops_by_name(framework)
    paths, names = _paths(path), _names(path)
    inner = _regraft.Checkpoint(paths, strict, allow_outside, names=names)
    again: Paths = dict(zip(names, paths)) if names is not None else paths
    return Checkpoint(inner, framework, (again, strict, allow_outside))


def _reopen(framework: str | None, paths: Paths, strict: bool, allow_outside: bool) -> Checkpoint:
    return open(paths, framework=framework, strict=strict, allow_outside=allow_outside)


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

    src: a safetensors file, a directory, an index, or several of them, named or not, as
    :func:`open` takes them. dst: a directory to be made, or a file if it ends with
    ``.safetensors``. rules .. record: as in :func:`regraft.plan`; where rules say so (``shards``),
    files of ranks are told apart, and one is written for each.
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
        paths, given["strict"], given["allow_outside"], names=_names(src), **_told_by(rules, given)
    )
    made = _plan(opened, rules, options, beside=str(opened.directory))
    made._warn()
    side_files = _regraft.side_files(paths, given["allow_outside"]) if given["side_files"] else []
    tell, close = _progress(given["progress"])
    with tempfile.TemporaryDirectory() as scratch:
        if given["write_record"]:
            side_files.append(Path(scratch) / _regraft.RECORD_FILE)
            side_files[-1].write_text(made.record)
        try:
            written = _regraft.write(
                opened,
                made._inner,
                os.fspath(dst),
                metadata=dict(given["metadata"] or {}),
                side_files=side_files,
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

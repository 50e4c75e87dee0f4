"""Plans: how each key of the result is made from the keys of a checkpoint."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import _regraft
from ._boxes import read
from ._errors import Diagnostic, PlanError, RegraftWarning, diagnostics_from_json
from ._execute import execute
from ._facts import columns, nested_finding
from ._many import many
from ._result import dressed


@dataclass(frozen=True)
class Target:
    """A key of the result."""

    key: str
    dtype: str
    """As the safetensors format names it: ``BF16``."""
    shape: tuple[int, ...]
    sources: tuple[str, ...]
    """The keys of the checkpoint that it is made from, in order."""
    rules: tuple[str, ...]
    """The rules that made it, in the order in which they applied; none if it passed through."""
    tied_to: str | None
    """The key of the result that it is one tensor with, by a tie."""


@dataclass(frozen=True)
class Report:
    """How a plan meets its target, and what becomes of keys that no target uses."""

    missing: tuple[str, ...]
    """Keys that the target asks for and nothing gives."""
    unexpected: tuple[str, ...]
    """Keys that are given and the target doesn't know; they are left out."""
    mismatched: tuple[str, ...]
    """Keys whose shape or dtype is not the target's."""
    ties: Mapping[str, str]
    """Keys that are one tensor with another, and that one."""
    dropped: Mapping[str, str]
    """Keys of the checkpoint that no target uses, and why."""

    def _repr_html_(self) -> str:
        return _regraft.report_html(
            self.missing,
            self.unexpected,
            self.mismatched,
            list(self.ties.items()),
            list(self.dropped.items()),
        )


class Plan:
    """How each key of the result is made. Iterating gives its :class:`Target` s, in natural order
    of their keys.

    It never changes. In another process it is made again from what it was made from, without the
    tensors.
    """

    def __init__(
        self,
        inner: _regraft.Plan,
        made_from: tuple[Any, Any, dict[str, Any]],
        nested: tuple[str, ...] = (),
    ) -> None:
        self._inner = inner
        self._made_from = made_from
        self._nested = nested
        self._keys: list[str] | None = None
        self._nodes: list[Any] | None = None
        self._targets: tuple[list[str], list[int]] | None = None

    def __reduce__(self) -> Any:
        source, rules, how = self._made_from
        header = source.as_header() if isinstance(source, _regraft.Checkpoint) else source
        return _again, (header, rules, how, self._inner.compared(), self._nested)

    def __copy__(self) -> Plan:
        return self

    def __deepcopy__(self, memo: Any) -> Plan:
        return self

    def __len__(self) -> int:
        return len(self._inner)

    def __iter__(self) -> Iterator[Target]:
        return (self[key] for key in self.keys())

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._inner.info(key) is not None

    def __getitem__(self, key: str) -> Target:
        found = self._inner.target(key)
        if found is None:
            raise KeyError(key)
        dtype, shape, sources, rules, tied_to = found
        return Target(key, dtype, tuple(shape), tuple(sources), tuple(rules), tied_to)

    def __repr__(self) -> str:
        rules = ", ".join(
            f"{name} (backwards)" if backwards else name for name, backwards in self._inner.stages
        )
        return (
            f"<regraft.Plan: {len(self)} keys, by {rules or 'no rules'}, "
            f"{self.verdict or 'no verdict'}>"
        )

    def __str__(self) -> str:
        return self._inner.to_text()

    def _repr_html_(self) -> str:
        return self._inner.to_html()

    def keys(self) -> list[str]:
        """The keys of the result, in natural order."""
        if self._keys is None:
            self._keys = self._inner.keys()
        return list(self._keys)

    @property
    def verdict(self) -> str | None:
        """In which layout the checkpoint was found: ``converts``, ``already``, ``mixed``,
        ``neither``; None if no rule could tell."""
        return self._inner.verdict

    @property
    def tied(self) -> tuple[bool, str] | None:
        """Whether word embeddings are tied by intent, and what decided."""
        return self._inner.tied

    @property
    def rules(self) -> list[tuple[str, bool]]:
        """The names of the rules in order, and whether each is read backwards."""
        return self._inner.stages

    @property
    def findings(self) -> list[Diagnostic]:
        """Notes and warnings."""
        return [finding for _, finding in self._found()]

    def _found(self) -> list[tuple[str, Diagnostic]]:
        """What was found, rendered and as it is."""
        rendered, structured = self._inner.findings()
        found = list(zip(rendered, diagnostics_from_json(structured)))
        if self._nested:
            found.append(nested_finding(list(self._nested)))
        return found

    @property
    def report(self) -> Report:
        """Missing, unexpected and mismatched keys (none where no target was asked for), ties and
        dropped keys."""
        missing, unexpected, mismatched = self._inner.report() or ((), (), ())
        return Report(
            missing=tuple(missing),
            unexpected=tuple(unexpected),
            mismatched=tuple(mismatched),
            ties=dict(self._inner.ties()),
            dropped=dict(self._inner.dropped()),
        )

    @property
    def record(self) -> str:
        """What was done that the rules, read backwards, can't know, as JSON: give it to the way
        back as ``record``."""
        return self._inner.record().decode()

    def to_json(self) -> str:
        """The whole plan as JSON: nodes, targets, drops, rules, findings."""
        return self._inner.to_json()

    def to_dict(self) -> dict[str, Any]:
        """The whole plan as plain data."""
        return json.loads(self.to_json())

    def explain(self, key: str) -> str:
        """How a key of the result is made, or what becomes of a key of the checkpoint.

        Raises KeyError if it is neither.
        """
        found = self._inner.explain(key)
        if found is None:
            raise KeyError(key)
        return found

    def apply(self, state_dict: Any, *, inplace: bool = False) -> Any:
        """Carries the plan out over a state dict, or an opened checkpoint, with the keys, dtypes
        and shapes that it was made for."""
        from ._files import Checkpoint

        opened = state_dict if isinstance(state_dict, Checkpoint) else None
        keys, dtypes, shapes = columns(state_dict) if opened is None else opened._header_columns()
        wrong = self._inner.misfits(keys, dtypes, shapes)
        if wrong is not None:
            raise PlanError(f"the plan was made for another state dict: {wrong}")
        if opened is None:
            return self._carry_out(state_dict, inplace)
        if inplace:
            raise TypeError("files are not edited in place: `regraft.convert` writes new ones")
        return opened._carry_out(self)

    def read(
        self,
        key: str,
        offsets: Sequence[int],
        sizes: Sequence[int],
        out: Any = None,
        *,
        framework: str | None = None,
    ) -> Any:
        """A box of a tensor of the result: ``sizes`` elements along each dimension, from
        ``offsets`` on. Only what the box is made of is read, and the rest of the tensor is never
        made. The plan is one for an opened checkpoint, from whose files it reads: what was written
        to its tensors is not there.

        out: a tensor or an array of the box's dtype and shape to read into, with any strides and on
        any device; it is returned. One is made if not given.
        framework: of what is made: ``torch`` or ``numpy``, the first of these that is installed if
        not given.

        Raises KeyError if the result has no such key, ValueError for a box that leaves the tensor
        or doesn't fit ``out``.
        """
        outs = None if out is None else [out]
        return self.read_boxes([(key, offsets, sizes)], outs, framework=framework)[0]

    def read_boxes(
        self,
        boxes: Iterable[tuple[str, Sequence[int], Sequence[int]]],
        outs: Sequence[Any] | None = None,
        *,
        framework: str | None = None,
    ) -> list[Any]:
        """Boxes of tensors of the result, as key, offsets and sizes: as :meth:`read` for each, but
        what lies close together in the files is read at once. ``outs`` has what each is read into,
        or None for one that is made."""
        made, overflowed = read(self._made_from[0], self._inner, boxes, outs, framework)
        warn_of_overflow(overflowed)
        return made

    def _columns(self) -> tuple[list[str], list[int]]:
        """The keys of the result as a dict has them, and the number of the node that each is."""
        if self._targets is None:
            with many():
                self._targets = self._inner.targets()
        return self._targets

    def _recipe(self) -> list[Any]:
        """Every node, inputs first."""
        if self._nodes is None:
            with many():
                self._nodes = self._inner.nodes()
        return self._nodes

    def _carry_out(self, source: Any, inplace: bool = False, consumed: Any = None) -> Any:
        """The result; tensors leave ``consumed`` once nothing needs them any more."""
        made, overflowed = execute(
            self._recipe(), self._columns(), source, consumed=source if inplace else consumed
        )
        result = dressed(made, source, self._moves())
        if inplace:
            source.clear()
            source.update(result)
            if hasattr(result, "_metadata"):
                source._metadata = result._metadata
        # Last, since a warning may be an exception.
        warn_of_overflow(overflowed)
        return source if inplace else result

    def _moves(self) -> Iterator[tuple[str, str]]:
        """Each key of the result that is one tensor of the checkpoint as it is, and the key that it
        had."""
        nodes = self._recipe()
        for key, number in zip(*self._columns()):
            if type(nodes[number]) is str:
                yield key, nodes[number]

    def _warn(self, told: list[str] | None = None, but: tuple[str, ...] = ()) -> None:
        """Warns of what was found, once for each text in ``told``, where the package was called."""
        for text, finding in self._found():
            if (
                finding.severity != "warning"
                or finding.code in but
                or (told is not None and text in told)
            ):
                continue
            if told is not None:
                told.append(text)
            warn(text)


def warn(text: str) -> None:
    """Warns where the package was called."""
    warnings.warn(text.strip(), RegraftWarning, stacklevel=_depth())


def warn_of_overflow(overflowed: Mapping[str, int]) -> None:
    """Warns of values that were finite before they were computed with, and are infinite or NaN now,
    as the engine says it."""
    for text in _regraft.overflow_findings(dict(overflowed)) if overflowed else ():
        warn(text)


def _depth() -> int:
    """How many frames up the caller of this package is."""
    here, depth = os.path.dirname(os.path.abspath(__file__)) + os.sep, 1
    frame = sys._getframe(1)
    while frame.f_back is not None and os.path.abspath(frame.f_code.co_filename).startswith(here):
        frame, depth = frame.f_back, depth + 1
    return depth


def _again(
    header: Any,
    rules: Any,
    how: dict[str, Any],
    asked: list[tuple[str, str, int | None]],
    nested: tuple[str, ...],
) -> Plan:
    """A plan in another process. Bytes can't be compared there: what was found stands."""
    known = {(a, b): differing for a, b, differing in asked}
    inner = _regraft.plan(header, rules, equal=lambda a, b: known.get((a, b)), **how)
    return Plan(inner, (header, rules, how), nested)

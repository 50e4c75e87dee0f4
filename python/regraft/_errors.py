"""What can go wrong, as exceptions with the rendered diagnostic as their text and its parts as
fields."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Span:
    """A place in rule text."""

    file: str
    """The rule file, or ``rules`` for text."""
    start: int
    """First byte."""
    end: int
    """One past the last byte."""
    line: int
    """From 1."""
    column: int
    """From 1, in characters."""


@dataclass(frozen=True)
class Diagnostic:
    """What was found about rules, or about how they fit a checkpoint."""

    code: str
    """As ``RG101``; ``docs/diagnostics.md`` explains each."""
    severity: str
    """``note``, ``warning`` or ``error``."""
    message: str
    span: Span | None
    """Where in the rule text, if anywhere."""
    keys: tuple[str, ...]
    """The keys concerned, all of them."""
    hints: tuple[str, ...]
    """What to do about it."""

    @classmethod
    def _from_json(cls, data: Any) -> Diagnostic:
        primary = data.get("primary")
        return cls(
            code=data["code"],
            severity=data["severity"],
            message=data["message"],
            span=Span(**primary[0]) if primary else None,
            keys=tuple(data.get("keys", ())),
            hints=tuple(data.get("hints", ())),
        )


def diagnostics_from_json(text: str) -> list[Diagnostic]:
    return [Diagnostic._from_json(data) for data in json.loads(text)]


class RegraftError(Exception):
    """Base of every exception of this package."""

    diagnostics: Sequence[Diagnostic]
    """What was found, if this is about rules."""
    code: str | None
    """The code of the first error, as ``RG101``."""
    span: Span | None
    """Where the first error is in the rule text."""
    keys: tuple[str, ...]
    """The keys that the first error is about."""

    def __init__(self, message: str, diagnostics: str | Sequence[Diagnostic] = ()) -> None:
        super().__init__(message.rstrip())
        found = (
            diagnostics_from_json(diagnostics)
            if isinstance(diagnostics, str)
            else list(diagnostics)
        )
        self.diagnostics = found
        first = next((one for one in found if one.severity == "error"), found[0] if found else None)
        self.code = first.code if first else None
        self.span = first.span if first else None
        self.keys = first.keys if first else ()

    def __reduce__(self) -> Any:
        return type(self), (self.args[0], list(self.diagnostics))


class RulesError(RegraftError):
    """Rules are wrong, or there are none of that name."""


class PlanError(RegraftError):
    """Rules don't fit this checkpoint; nothing was done."""


class CheckpointError(RegraftError):
    """A file is missing, unreadable or corrupt, or of a kind that regraft doesn't read."""

    kind: str
    """``io``, ``corrupt``, ``limit``, ``exists``, ``unsupported`` or ``other``."""
    file: str | None
    """The file concerned."""
    key: str | None
    """The key concerned."""
    hint: str | None
    """What to do about it."""

    def __init__(
        self,
        message: str,
        kind: str = "other",
        file: Any = None,
        key: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(f"{message}\nhint: {hint}" if hint else message)
        self._parts = (message, kind, file, key, hint)
        self.kind = kind
        self.file = None if file is None else str(file)
        self.key = key
        self.hint = hint
        self.keys = () if key is None else (key,)

    def __reduce__(self) -> Any:
        return type(self), self._parts


class OutputExistsError(CheckpointError, FileExistsError):
    """The output is there already, or would lie in its own source."""


class RegraftWarning(UserWarning):
    """A finding that doesn't stop the work: a rule that matched nothing, a layout that is mixed."""


def raised(kind: str, message: str) -> BaseException:
    """The exception that a checkpoint utility raises, by its name in Python."""
    import builtins

    if kind == "JSONDecodeError":
        return json.JSONDecodeError(message, "", 0)
    if kind == "UnicodeDecodeError":
        return UnicodeDecodeError("utf-8", b"", 0, 0, message)
    if kind == "UnpicklingError":
        import pickle

        return pickle.UnpicklingError(message)
    if kind == "SafetensorError":
        try:
            from safetensors import SafetensorError
        except ImportError:
            return ValueError(message)
        return SafetensorError(message)
    found = getattr(builtins, kind, None)
    if isinstance(found, type) and issubclass(found, Exception):
        return found(message)
    return RegraftError(f"{kind}: {message}")

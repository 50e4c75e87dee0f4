"""The options of the verbs, once: their names, types and defaults, for editors and type checkers,
and to tell which name was meant."""

from __future__ import annotations

import difflib
import functools
import inspect
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Callable, TypedDict, TypeVar, cast

if TYPE_CHECKING:
    from typing_extensions import Unpack
elif sys.version_info >= (3, 11):
    from typing import Unpack
else:

    class Unpack:
        """Stands for typing's, which this Python lacks."""

        def __class_getitem__(cls, item: Any) -> Any:
            return item


__all__ = ["DEFAULTS", "ConvertOptions", "Options", "SaveOptions", "Unpack", "takes"]


class SaveOptions(TypedDict, total=False):
    """The options of :func:`regraft.plan` but the direction, which a hook that saves has a default
    of its own for. :func:`regraft.plan` says what each means."""

    config: Any
    target: Any
    part: bool
    from_: str | None
    to: str | None
    tied: bool | None
    parameters: Mapping[str, Any] | None
    strict: bool
    allow_lossy: bool
    record: Any


class Options(SaveOptions, total=False):
    """What :func:`regraft.plan` and :func:`regraft.apply` take besides the source and rules."""

    reverse: bool


class ConvertOptions(Options, total=False):
    """What :func:`regraft.convert` takes besides source, output and rules; it says what each
    means."""

    max_shard_size: int | None
    single: bool
    materialize_ties: bool
    side_files: bool
    write_record: bool
    force: bool
    metadata: Mapping[str, str] | None
    memory: int | None
    resume: bool
    checksums: bool
    rank: tuple[int, int] | None
    allow_outside: bool
    root: str | None
    progress: None | bool | Callable[[int, int], object] | Any


DEFAULTS: ConvertOptions = {
    "config": None,
    "target": None,
    "part": False,
    "from_": None,
    "to": None,
    "reverse": False,
    "tied": None,
    "parameters": None,
    "strict": True,
    "allow_lossy": False,
    "record": None,
    "max_shard_size": 5_000_000_000,
    "single": False,
    "materialize_ties": False,
    "side_files": True,
    "write_record": False,
    "force": False,
    "metadata": None,
    "memory": None,
    "resume": False,
    "checksums": False,
    "rank": None,
    "allow_outside": False,
    "root": None,
    "progress": None,
}
"""What an option is where it isn't given."""


def _refuse(name: str, given: Iterable[str], known: Iterable[str]) -> None:
    known = list(known)
    for option in given:
        if option not in known:
            close = difflib.get_close_matches(option, known, 1)
            hint = f"did you mean `{close[0]}`?" if close else "it has " + ", ".join(known)
            raise TypeError(f"{name} has no option `{option}`: {hint}")


_F = TypeVar("_F", bound=Callable[..., Any])


def takes(options: Any = None) -> Callable[[_F], _F]:
    """Lets a function say which of its options was meant, and shows those that it takes by
    ``**options: Unpack[...]`` in its signature, with their defaults."""
    types: Mapping[str, Any] = {} if options is None else options.__annotations__
    several = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=default,
            annotation=getattr(types[name], "__forward_arg__", types[name]),
        )
        for name, default in DEFAULTS.items()
        if name in types
    ]

    def of(function: _F) -> _F:
        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        spelled_out = signature.replace(parameters=[*own, *several])
        known = [p.name for p in (*own, *several) if p.kind is not p.POSITIONAL_ONLY]

        @functools.wraps(function)
        def call(*args: Any, **given: Any) -> Any:
            _refuse(function.__name__, given, known)
            return function(*args, **given)

        call.__signature__ = spelled_out  # type: ignore[attr-defined]
        return cast(_F, call)

    return of

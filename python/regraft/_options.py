"""The options of the verbs, once: for editors and type checkers, and to tell which name was
meant."""

from __future__ import annotations

import difflib
import functools
import inspect
import sys
from collections.abc import Iterable, Mapping
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    TypedDict,
    TypeVar,
    cast,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack
elif sys.version_info >= (3, 11):
    from typing import Unpack
else:

    class Unpack:
        """Stands for typing's, which this Python lacks."""

        def __class_getitem__(cls, item: Any) -> Any:
            return item


__all__ = ["Options", "Unpack", "checked", "named"]


class Options(TypedDict, total=False):
    """What :func:`regraft.plan` and :func:`regraft.apply` take besides the source and rules; they
    say what each means."""

    config: Any
    target: Any
    part: bool
    from_: str | None
    to: str | None
    reverse: bool
    tied: bool | None
    parameters: Mapping[str, Any] | None
    strict: bool
    allow_lossy: bool
    record: Any


def _refuse(name: str, given: Iterable[str], known: Iterable[str]) -> None:
    known = list(known)
    for option in given:
        if option not in known:
            close = difflib.get_close_matches(option, known, 1)
            hint = f"did you mean `{close[0]}`?" if close else "it has " + ", ".join(known)
            raise TypeError(f"{name} has no option `{option}`: {hint}")


def checked(name: str, given: Mapping[str, Any], *more: str) -> None:
    """Refuses options that there are not. ``more`` is what the function takes besides."""
    _refuse(name, given, [*Options.__annotations__, *more])


_F = TypeVar("_F", bound=Callable[..., Any])


def named(function: _F) -> _F:
    """Lets a function with its options spelled out say which one was meant."""
    kinds = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    known = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind in kinds
    ]

    @functools.wraps(function)
    def call(*args: Any, **given: Any) -> Any:
        _refuse(function.__name__, given, known)
        return function(*args, **given)

    return cast(_F, call)

"""A result as the state dict that it comes from is: an OrderedDict where that is one, with the
versions of modules that torch keeps beside it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any


def moved_metadata(
    metadata: Mapping[str, Any], moves: Iterable[tuple[str, str]]
) -> OrderedDict[str, Any]:
    """``_metadata`` of a state dict, which has an entry for each module, under the names that
    modules have afterwards.

    moves: pairs of a key and the one key that it is made from. What moved is known by its tensors,
    and its parents by theirs.
    """
    back: dict[str, str] = {}
    for new, old in moves:
        new_path, old_path = new.split(".")[:-1], old.split(".")[:-1]
        while True:
            new_name = ".".join(new_path)
            if new_name in back:
                break
            back[new_name] = ".".join(old_path)
            if not new_path or not old_path or new_path[-1] != old_path[-1]:
                break
            new_path.pop(), old_path.pop()
    gone = {old for new, old in back.items() if new != old}
    result: OrderedDict[str, Any] = OrderedDict()
    names: dict[str, list] = {}
    for new, old in back.items():
        names.setdefault(old, []).append(new)
    for old, entry in metadata.items():
        for new in names.get(old, ()):
            result[new] = entry
        if old not in back and (old == "" or old not in gone):
            result.setdefault(old, entry)
    return result


def dressed(
    made: dict[str, Any], source: Any, moves: Iterable[tuple[str, str]] | None
) -> dict[str, Any]:
    """The result in the type of its source."""
    if not isinstance(source, OrderedDict):
        return made
    result: OrderedDict[str, Any] = OrderedDict(made)
    metadata = getattr(source, "_metadata", None)
    if isinstance(metadata, Mapping):
        result._metadata = moved_metadata(metadata, moves or ())  # type: ignore[attr-defined]
    return result

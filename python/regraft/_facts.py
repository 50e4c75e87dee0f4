"""From what Python has to what the engine takes: headers, configs, targets, parameters."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from typing import Any

from . import _regraft
from ._arrays import ops_of, seen_ops
from ._errors import Diagnostic, PlanError
from ._many import many
from ._modules import shared_names
from ._optimizer import is_state

# A value that is no tensor has a place in a plan under its key: it can be renamed or dropped, and
# nothing else.
_OPAQUE = ("U8", (0,))


_STATE = ".quant_state.bitsandbytes__"
_LONGEST_STATE = 1 << 16


def states(state_dict: Mapping[str, Any], keys: list[str]) -> list[tuple[str, bytes]]:
    """What quantized tensors say of themselves, in bytes that nothing else tells."""
    found = []
    for key in keys:
        if _STATE in key:
            ops = ops_of(value := state_dict[key])
            info = None if ops is None else ops.info(value)
            if info is not None and info[0] == "U8" and math.prod(info[1]) <= _LONGEST_STATE:
                found.append((key, bytes(value.tolist())))
    return found


@many()
def columns(state_dict: Mapping[str, Any]) -> tuple[list[str], list[str], list[tuple[int, ...]]]:
    """Keys, dtypes and shapes of a state dict."""
    if not isinstance(state_dict, Mapping):
        hint = (
            "; give its `state_dict()`" if callable(getattr(state_dict, "state_dict", None)) else ""
        )
        raise TypeError(
            f"a state dict is a mapping of keys to tensors, not {type(state_dict).__name__}{hint}"
        )
    for key in state_dict:
        if not isinstance(key, str):
            raise TypeError(
                f"the keys of a state dict are text, and {key!r} is {type(key).__name__}"
            )
    dtypes: list[str] = []
    shapes: list[tuple[int, ...]] = []
    kinds = [(ops.tensor_type, ops.info) for ops in seen_ops()]
    for value in state_dict.values():
        for tensor_type, info in kinds:
            if isinstance(value, tensor_type):
                found = info(value)
                break
        else:
            found = None
        if found is None:
            found = _OPAQUE
        dtypes.append(found[0])
        shapes.append(found[1])
    return list(state_dict), dtypes, shapes


def _tensors_in(value: Any, depth: int = 4) -> bool:
    """Whether there is a tensor in a mapping, or in what it holds."""
    if isinstance(value, Mapping) and depth:
        return any(_tensors_in(item, depth - 1) for item in value.values())
    if isinstance(value, (list, tuple)) and depth:
        return any(_tensors_in(item, depth - 1) for item in value[:64])
    return ops_of(value) is not None


def _state_dicts_in(value: Any, path: str, depth: int = 3) -> list[str]:
    """Where in a checkpoint there are state dicts: names and tensors."""
    if not isinstance(value, Mapping) or not depth:
        return []
    if any(isinstance(key, str) and ops_of(item) is not None for key, item in value.items()):
        return [path]
    return [
        place
        for key, item in value.items()
        for place in _state_dicts_in(item, f"{path}[{key!r}]", depth - 1)
    ]


def refuse_nested(state_dict: Mapping[str, Any]) -> None:
    """A whole training checkpoint, whose state dict lies under a key of it, is no state dict:
    nothing in it could match."""
    nested = []
    for key, value in state_dict.items():
        if ops_of(value) is not None:
            return
        if (
            isinstance(value, (Mapping, list, tuple))
            and not str(key).endswith("_extra_state")
            and _tensors_in(value)
        ):
            nested.append(key)
    if not nested:
        return
    if set(state_dict) <= {"state", "param_groups"}:
        message = "this is the state of an optimizer by numbers of parameters"
        hint = (
            "by their names it can be converted: `get_optimizer_state_dict(model, optimizer)`, "
            "with `flatten_optimizer_state_dict` or without"
        )
    else:
        message = (
            "this is a whole checkpoint, not a state dict: its tensors lie under "
            f"{', '.join(repr(key) for key in nested)}"
        )
        places = _state_dicts_in(state_dict, "checkpoint")
        hint = (
            f"give the state dict alone: {' or '.join(f'`{place}`' for place in places[:4])}"
            if places
            else "give the state dict alone"
        )
        named = [key for key, value in state_dict.items() if is_state(value)]
        if named:
            hint += f"; the optimizer's, `checkpoint[{named[0]!r}]`, follows by the same rules"
    raise PlanError(
        f"error: {message}\nhelp: {hint}",
        [Diagnostic("", "error", message, None, tuple(str(key) for key in nested), (hint,))],
    )


def nested_beside(state_dict: Mapping[str, Any]) -> list[str]:
    """Keys beside tensors that hold state dicts of their own: rules reach none of what is in
    them."""
    kinds = tuple(ops.tensor_type for ops in seen_ops())
    beside = (
        (key, value)
        for key, value in state_dict.items()
        if not isinstance(value, kinds) and isinstance(value, Mapping)
    )
    return [
        str(key)
        for key, value in beside
        if not str(key).endswith("_extra_state") and _state_dicts_in(value, "")
    ]


def nested_finding(keys: list[str]) -> tuple[str, Diagnostic]:
    what = (
        "1 key holds a dict of tensors"
        if len(keys) == 1
        else f"{len(keys)} keys hold dicts of tensors"
    )
    shown = ", ".join(repr(key) for key in keys[:4]) + (" …" if len(keys) > 4 else "")
    message = (
        f"{what}, beside tensors: what is in {'it' if len(keys) == 1 else 'them'} stays as it is "
        f"({shown})"
    )
    hint = "give each state dict alone, or take out what is none"
    return f"warning: {message}\n = help: {hint}", Diagnostic(
        "", "warning", message, None, tuple(keys), (hint,)
    )


def holds_nothing() -> bool:
    """Whether this process is one of several that hold nothing, as all but the first do with a full
    state dict on rank 0."""
    from .checkpoint_utils import get_rank_safe, get_world_size_safe

    return get_world_size_safe() > 1 and get_rank_safe() != 0


def plain(value: Any) -> Any:
    """A value as JSON has it. What has no form there becomes text; floats that JSON lacks become
    null."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return [plain(item) for item in sorted(value, key=str)]
    to_dict = getattr(value, "to_dict", None)
    if callable(to_dict):
        return plain(to_dict())
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "shape", None) == ():
        return plain(item())
    return str(value)


def config(given: Any, beside: str | None = None) -> _regraft.Config:
    """A config: a mapping, a file, an object as transformers has them; without any, the config.json
    beside a checkpoint."""
    if given is None:
        return _regraft.Config("null") if beside is None else _regraft.Config.beside(beside)
    if isinstance(given, (str, os.PathLike)):
        return _regraft.Config.read(os.fspath(given))
    if isinstance(given, Mapping):
        fields = plain(given)
    else:
        to_dict = getattr(given, "to_dict", None)
        if not callable(to_dict) and not hasattr(given, "__dict__"):
            raise TypeError(
                "a config is a mapping, a path, or an object with fields, not "
                f"{type(given).__name__}"
            )
        fields = plain(to_dict() if callable(to_dict) else vars(given))
        # A class may leave its default out of the mapping.
        if hasattr(given, "tie_word_embeddings"):
            fields.setdefault("tie_word_embeddings", plain(given.tie_word_embeddings))
    return _regraft.Config(json.dumps(fields))


def parameters(given: Mapping[str, Any] | None) -> str:
    return json.dumps(plain(given or {}))


def record(given: Any, beside: str | None = None) -> tuple[bytes, str] | None:
    """The record of the conversion that is turned back: its text, or the plan that made it; of a
    checkpoint, the file beside it."""
    if given is None:
        return None if beside is None else _regraft.record_beside(beside)
    given = getattr(given, "record", given)
    if isinstance(given, (str, bytes)):
        return (given.encode() if isinstance(given, str) else given), "record"
    raise TypeError(f"a record is the text of one, or a plan, not {type(given).__name__}")


def _named_dtype(dtype: Any) -> str:
    for ops in seen_ops():
        names = getattr(ops, "names", {})
        try:
            if dtype in names:
                return names[dtype]
        except TypeError:
            continue
    return str(dtype)


def wanted(given: Any) -> _regraft.Wanted | None:
    """The keys of a target: a path, a module, a mapping of keys to tensors or (dtype, shape), or
    keys."""
    if given is None:
        return None
    if isinstance(given, (str, os.PathLike)):
        return _regraft.Wanted.read(os.fspath(given))
    header = getattr(given, "_header_columns", None)
    if callable(header):
        return _regraft.Wanted(*header())
    state_dict = getattr(given, "state_dict", None)
    shared: list[list[str]] = []
    if callable(state_dict):
        module, given = given, state_dict()
        shared = shared_names(module, given)
    if isinstance(given, Mapping):
        refuse_nested(
            {key: value for key, value in given.items() if not isinstance(value, (tuple, list))}
        )
    keys: list[str] = []
    dtypes: list[str | None] = []
    shapes: list[tuple[int, ...] | None] = []
    items: Iterable[tuple[str, Any]] = (
        given.items() if isinstance(given, Mapping) else ((key, None) for key in given)
    )
    for key, value in items:
        keys.append(key)
        ops = ops_of(value)
        info = None
        if ops is not None:
            info = ops.info(value)
        elif isinstance(value, (tuple, list)) and len(value) == 2:
            info = (_named_dtype(value[0]), tuple(value[1]))
        dtypes.append(info[0] if info else None)
        shapes.append(tuple(info[1]) if info else None)
    return _regraft.Wanted(keys, dtypes, shapes, True, shared)

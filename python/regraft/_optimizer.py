"""Optimizer state by names of parameters, which follows its parameters: the same rules, once for
each kind of state.

It has two forms. Flat, each value has a key (``state.<name>.exp_avg``, ``param_groups.<name>.lr``);
nested, there are dicts in dicts (``{"state": {name: {"exp_avg": ...}}, "param_groups": [...]}``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable

from ._arrays import BINARY, ops_of
from ._errors import Diagnostic, PlanError

_STATE, _GROUPS = "state.", "param_groups."

# What optimizers of torch and of training frameworks keep for each element of a parameter.
_KINDS = {
    "exp_avg",
    "exp_avg_sq",
    "max_exp_avg_sq",
    "exp_inf",
    "momentum_buffer",
    "square_avg",
    "grad_avg",
    "acc_delta",
    "sum",
    "prev",
    "master_param",
    "exp_avg_diff",
}


def is_state(state_dict: Any) -> bool:
    """Whether this is the state of an optimizer by names of parameters, as torch's
    ``get_optimizer_state_dict`` gives it, with ``flatten_optimizer_state_dict`` or without."""
    return _is_flat(state_dict) or _is_nested(state_dict)


def _is_flat(state_dict: Any) -> bool:
    if not isinstance(state_dict, Mapping) or not state_dict:
        return False
    known = False
    for key in state_dict:
        if not isinstance(key, str) or not key.startswith((_STATE, _GROUPS)):
            return False
        known = known or (key.startswith(_STATE) and key.rpartition(".")[2] in _KINDS)
    return known


def _is_nested(state_dict: Any) -> bool:
    if not isinstance(state_dict, Mapping) or set(state_dict) != {"state", "param_groups"}:
        return False
    state, groups = state_dict["state"], state_dict["param_groups"]
    if not isinstance(state, Mapping) or not isinstance(groups, (list, tuple)):
        return False
    if not all(isinstance(group, Mapping) for group in groups):
        return False
    names = [*state, *(name for group in groups for name in group.get("params", ()))]
    return (
        bool(names)
        and all(isinstance(name, str) for name in names)
        and all(isinstance(of, Mapping) for of in state.values())
    )


def refused(message: str, hint: str, keys: tuple[str, ...] = ()) -> PlanError:
    return PlanError(
        f"error: {message}\nhelp: {hint}", [Diagnostic("", "error", message, None, keys, (hint,))]
    )


def _split(key: str) -> tuple[str, str, str]:
    first = _STATE if key.startswith(_STATE) else _GROUPS
    name, _, kind = key[len(first) :].rpartition(".")
    return first, name, kind


def _is_per_element(state: Mapping[str, Any], kind: str) -> bool:
    return kind in _KINDS or any(
        ops_of(value) is not None and len(value.shape) > 0 for value in state.values()
    )


_Kinds = dict[tuple[str, str], dict[str, Any]]
"""(``state.`` or ``param_groups.``, what is kept) -> name of a parameter -> value."""

_GROUP = "group"
"""What is kept of a parameter's group where the form is nested: its number."""


def convert(
    state_dict: Mapping[str, Any],
    make: Callable[[Mapping[str, Any]], Any],
    make_names: Callable[[Mapping[str, Any]], Any],
) -> dict[str, Any]:
    """The state under the names, and in the shapes, that rules give the parameters. ``make`` plans
    one kind of state, and ``make_names`` what is known by its name alone."""
    if _is_nested(state_dict):
        return _as_nested(_moved(_of_nested(state_dict), make, make_names), state_dict)
    kinds: _Kinds = {}
    for key, value in state_dict.items():
        first, name, kind = _split(key)
        kinds.setdefault((first, kind), {})[name] = value
    moved = _moved(kinds, make, make_names)
    return {
        f"{first}{name}.{kind}": value
        for (first, kind), values in moved.items()
        for name, value in values.items()
    }


def _of_nested(state_dict: Mapping[str, Any]) -> _Kinds:
    kinds: _Kinds = {}
    for name, state in state_dict["state"].items():
        for kind, value in state.items():
            kinds.setdefault((_STATE, kind), {})[name] = value
    for number, group in enumerate(state_dict["param_groups"]):
        for name in group.get("params", ()):
            kinds.setdefault((_GROUPS, _GROUP), {})[name] = number
    return kinds


def _as_nested(moved: _Kinds, given: Mapping[str, Any]) -> dict[str, Any]:
    state: dict[str, dict[str, Any]] = {}
    numbers = moved.pop((_GROUPS, _GROUP), {})
    for (_, kind), values in moved.items():
        for name, value in values.items():
            state.setdefault(name, {})[kind] = value
    groups = [dict(group) for group in given["param_groups"]]
    for number, group in enumerate(groups):
        if "params" in group:
            group["params"] = [name for name, found in numbers.items() if found == number]
    made = {"state": state, "param_groups": groups}
    return {key: made[key] for key in given}


def _moved(
    kinds: _Kinds,
    make: Callable[[Mapping[str, Any]], Any],
    make_names: Callable[[Mapping[str, Any]], Any],
) -> _Kinds:
    result: _Kinds = {}
    sources: dict[str, tuple[str, ...]] = {}
    gone: set[str] = set()
    for (first, kind), state in kinds.items():
        if first == _STATE and _is_per_element(state, kind):
            plan = make(state)
            _check(plan, kind)
            result[first, kind] = plan._carry_out(state)
            sources.update(_sources(plan))
            gone.update(name for name, _ in plan._inner.dropped())
    sources.update(_without_state(kinds, sources, gone, make_names))
    # What is kept once for a parameter, as a step or a learning rate, has to be the same in all
    # that one parameter is made of.
    for (first, kind), state in kinds.items():
        if first == _STATE and _is_per_element(state, kind):
            continue
        of_kind = result[first, kind] = {}
        used = set(gone)
        for name, come_from in sources.items():
            values = [state[source] for source in come_from if source in state]
            used.update(come_from)
            if not values:
                continue
            if any(not _same(values[0], value) for value in values[1:]):
                keys = tuple(f"{first}{source}.{kind}" for source in come_from)
                raise refused(
                    f"{name} is made of several parameters, and their {kind} differs",
                    f"an optimizer has one {kind} for each parameter: leave it out, or make them "
                    "equal",
                    keys,
                )
            of_kind[name] = values[0]
        of_kind.update((name, value) for name, value in state.items() if name not in used)
    return result


_FITS_NOTHING = "RG321"


def _without_state(
    kinds: _Kinds, sources: Mapping[str, Any], gone: set[str], make_names: Any
) -> dict[str, Any]:
    """What becomes of parameters that have no state for each element: that were never used, or that
    are frozen."""
    known = {source for come_from in sources.values() for source in come_from} | gone
    names = {name: None for state in kinds.values() for name in state if name not in known}
    if not names:
        return {}
    try:
        plan = make_names(names)
    except PlanError as error:
        if error.code == _FITS_NOTHING:
            return {}
        keys = tuple(names)
        raise refused(
            (
                f"{len(keys)} parameters have no state, as {keys[0]}, and by their names alone it "
                "can't be told what they become"
            ),
            (
                "take the state after a step of the optimizer that uses every parameter, or leave "
                "these out"
            ),
            keys,
        ) from error
    return _sources(plan)


def _sources(plan: Any) -> dict[str, tuple[str, ...]]:
    """What each parameter is made of, in the order of memory."""
    return {key: plan[key].sources for key in plan._columns()[0]}


def _same(a: Any, b: Any) -> bool:
    ops = ops_of(a)
    if ops is not None and ops_of(b) is ops:
        return a is b or bool((a == b).all())
    return bool(a == b)


def _check(plan: Any, kind: str) -> None:
    """Moments are of a parameter's gradients: they move as it does, and don't change as its values
    do."""
    computed: list[str] = [
        node[0] for node in plan._inner.nodes() if type(node) is tuple and node[0] in _VALUES
    ]
    if computed:
        what = ", ".join(sorted(set(computed)))
        raise refused(
            f"the rules compute values of parameters ({what}), and {kind} of an optimizer is no "
            "such value",
            "convert the parameters alone and start the optimizer anew, or use rules that only "
            "move and cut",
        )


_VALUES = (
    "add",
    "mul",
    "neg",
    "exp",
    "log",
    *BINARY,
    "norm",
    "absmax",
    "product",
    "unpack",
    "decode",
    "lookup",
    "count",
    "one_for_zero",
    "fill",
    "sinusoids",
)

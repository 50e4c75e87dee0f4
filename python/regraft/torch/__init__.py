"""regraft in training code: keys without wrappers, ties made real, and hooks that apply rules where
a module loads and saves."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, MutableMapping
from typing import Any

from .. import _regraft
from .._errors import Diagnostic, PlanError
from .._modules import Names, config_of, level_of, shared_names, tensor_paths
from .._optimizer import is_state
from .._options import Options, SaveOptions, Unpack, takes
from .._result import moved_metadata
from .._rules import RulesLike, _apply, _plan, _resolve, load
from ..checkpoint_utils import (
    _same_tensor_storage,
    ensure_tied_lm_head,
    materialize_missing_tied_lm_head,
)

__all__ = ["add_load_hook", "add_save_hook", "ensure_tied", "materialize_ties", "normalize_keys"]

_LOADED: dict[str, Any] = {}


def _rules(name: str) -> Any:
    if name not in _LOADED:
        _LOADED[name] = load(name)
    return _LOADED[name]


# How many models an average is of, as torch's AveragedModel counts them.
_COUNT = "n_averaged"


def _is_average(keys: Mapping[str, Any]) -> bool:
    """Whether these are the keys of an averaged model: its count, and everything else under
    ``module``."""
    return (
        _COUNT in keys
        and len(keys) > 1
        and all(key == _COUNT or key.startswith("module.") for key in keys)
    )


def _refuse_flat(keys: Any) -> None:
    flat = tuple(
        key
        for key in keys
        if any(
            part == "_flat_param" or part.startswith("_fsdp_flattened") for part in key.split(".")
        )
    )
    if flat:
        hint = (
            "one flat parameter stands for many tensors: save with `FSDP.state_dict_type(model, "
            "StateDictType.FULL_STATE_DICT)`"
        )
        message = f"{len(flat)} keys are flat parameters of FSDP, as {flat[0]}"
        raise PlanError(
            f"{message}\nhelp: {hint}", [Diagnostic("", "error", message, None, flat, (hint,))]
        )


def normalize_keys(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """The state dict with keys as the bare module has them: what ``torch.compile``, FSDP,
    activation checkpointing, DDP and Lightning leave in keys is gone. Tensors are the same objects.

    ``module`` goes only where every key carries it, since it is a legal name; and of an averaged
    model (torch's AveragedModel), whose count ``n_averaged`` goes as well. The order stays, an
    OrderedDict gives one, and ``_metadata`` follows the names. The state of an optimizer by names
    follows its parameters. Raises PlanError where two keys would become one, and for flat
    parameters of FSDP.
    """
    if is_state(state_dict):
        return _apply(state_dict, _rules("wrappers"), {})
    _refuse_flat(state_dict)
    rules = [_rules("swa"), _rules("wrappers")] if _is_average(state_dict) else [_rules("wrappers")]
    return _plan(state_dict, rules, {})._carry_out(state_dict)


def materialize_ties(
    state_dict: MutableMapping[str, Any], model: Any, *, compat: str | None = None
) -> list[str]:
    """Adds to a state dict, in place, what it lacks because it is tied in the model; gives the keys
    that were added.

    First the output head, as :func:`regraft.checkpoint_utils.materialize_missing_tied_lm_head`
    finds its source, also on a pipeline stage that has no embedding; then every key whose tensor in
    the model is one with that of a key that is there. Each is an alias, never a copy. The model may
    be in wrappers (DDP, FSDP, ``torch.compile``, DeepSpeed, PEFT, an average), and the state dict
    have their names or not.
    """
    clean = {_regraft.normalize_param_name(key, False): key for key in state_dict}
    if any(key != name for name, key in clean.items()):
        # Names as the wrappers left them: what is added is called as its module is.
        work = {name: state_dict[key] for name, key in clean.items()}
        added = materialize_ties(work, model, compat=compat)
        paths = {_regraft.normalize_param_name(path, False): path for path in tensor_paths(model)}
        for name in added:
            state_dict[paths.get(name, name)] = work[name]
        return [paths.get(name, name) for name in added]
    before = set(state_dict)
    model = level_of(model, state_dict).module
    materialize_missing_tied_lm_head(state_dict, model, compat=compat)
    groups: dict[int, list[str]] = {}
    for name, param in model.named_parameters(remove_duplicate=False):
        groups.setdefault(id(param), []).append(_regraft.normalize_param_name(name, False))
    for names in groups.values():
        if len(names) < 2:
            continue
        source = next((name for name in names if name in state_dict), None)
        if source is not None:
            for name in names:
                if name not in state_dict:
                    state_dict[name] = state_dict[source]
    return [key for key in state_dict if key not in before]


def ensure_tied(model: Any, *, compat: str | None = None) -> bool:
    """Makes the head of a tied model one with its input embedding, and says whether it is:
    :func:`regraft.checkpoint_utils.ensure_tied_lm_head`."""
    return ensure_tied_lm_head(model, compat=compat)


# What torch itself tells about what a module lacks or doesn't know.
_TOLD_BY_TORCH = ("RG305", "RG306")


class _Hook:
    """What both hooks are. They pickle and deepcopy with the module that they are on."""

    def __init__(self, rules: RulesLike, options: Options) -> None:
        self._rules = rules
        self._options = options

    def _chosen(self, module: Any) -> Options:
        config = config_of(module) if "config" not in self._options else None
        return self._options if config is None else {**self._options, "config": config}

    def _converts(self, options: Options) -> bool:
        return self._rules is not None or options.get("config") is not None


def _mine(state_dict: Mapping[str, Any], prefix: str) -> Any:
    """A module's own part of a state dict, with what torch keeps beside it."""
    mine: OrderedDict[str, Any] = OrderedDict(
        (key[len(prefix) :], value) for key, value in state_dict.items() if key.startswith(prefix)
    )
    metadata = getattr(state_dict, "_metadata", None)
    if isinstance(metadata, Mapping):
        path = prefix[:-1]
        own = (
            (name, entry)
            for name, entry in metadata.items()
            if name == path or name.startswith(prefix)
        )
        mine._metadata = OrderedDict((name[len(prefix) :], entry) for name, entry in own)  # type: ignore[attr-defined]
    return mine


class _LoadHook(_Hook):
    def __init__(self, rules: RulesLike, ties: bool, options: Options) -> None:
        super().__init__(rules, options)
        self._ties = ties

    def __call__(
        self,
        module: Any,
        state_dict: MutableMapping[str, Any],
        prefix: str,
        local_metadata: Any = None,
        *_: Any,
    ) -> None:
        mine = _mine(state_dict, prefix)
        if not mine:
            return
        names = Names(module)
        beside = {key: mine.pop(key, value) for key, value in names.beside.items()}
        made: Any = normalize_keys(mine)
        if names.in_peft:
            made = _without(made, _PEFT_PREFIX)
        options = self._chosen(module)
        if self._converts(options):
            made = self._convert(made, names, options)
        if self._ties:
            materialize_ties(made, names.layers[-1].module)
            if isinstance(local_metadata, Mapping) and local_metadata.get(
                "assign_to_params_buffers"
            ):
                _as_one_parameter(made, names.layers[-1].module)
        result = {names.where_it_loads(key): value for key, value in made.items()}
        result.update(beside)
        _replace(state_dict, prefix, result, made, names)

    def _convert(self, made: Any, names: Names, options: Options) -> Any:
        if "target" in options:
            return _apply(made, self._rules, options)
        # The module that loads is the target. What it lacks or doesn't know torch tells, for its
        # own `strict`; so all is made.
        options = {"strict": False, **options, "target": names.keys}
        plan = _plan(made, self._rules, options)
        unknown = plan.report.unexpected
        if unknown:
            options["target"] = [*names.keys, *unknown]
            plan = _plan(made, self._rules, options)
        plan._warn(but=_TOLD_BY_TORCH)
        return plan._carry_out(made)


def _as_one_parameter(made: MutableMapping[str, Any], model: Any) -> None:
    """Where tensors are assigned, torch makes a parameter of each key: one for those that are one
    in the model and in what is loaded, or the model would come out with two parameters in one
    memory."""
    import torch

    params = dict(model.named_parameters(remove_duplicate=False))
    bare = {_regraft.normalize_param_name(name, False): param for name, param in params.items()}
    for group in shared_names(model, bare):
        param, value = bare[group[0]], made.get(group[0])
        if (
            not isinstance(value, torch.Tensor)
            or isinstance(value, torch.nn.Parameter)
            or not isinstance(param, torch.nn.Parameter)
        ):
            continue
        others = [made.get(name) for name in group[1:]]
        if all(
            other is value
            or (isinstance(other, torch.Tensor) and _same_tensor_storage(other, value))
            for other in others
        ):
            one = torch.nn.Parameter(value, requires_grad=param.requires_grad)
            made.update((name, one) for name in group)


_PEFT_PREFIX = "base_model.model."


def _without(made: Any, prefix: str) -> Any:
    """Without a prefix that all keys have."""
    if not all(key.startswith(prefix) for key in made):
        return made
    result = OrderedDict((key[len(prefix) :], value) for key, value in made.items())
    metadata = getattr(made, "_metadata", None)
    if isinstance(metadata, Mapping):
        result._metadata = moved_metadata(metadata, [(key[len(prefix) :], key) for key in made])  # type: ignore[attr-defined]
    return result


class _SaveHook(_Hook):
    def __call__(
        self, module: Any, state_dict: MutableMapping[str, Any], prefix: str, *_: Any
    ) -> None:
        mine = _mine(state_dict, prefix)
        if not mine:
            return
        made: Any = normalize_keys(mine)
        options = self._chosen(module)
        if self._converts(options):
            # PEFT saves and loads under its own prefix: what is behind it is converted.
            inside = _without(made, _PEFT_PREFIX)
            done = _apply(inside, self._rules, options)
            made = done if inside is made else _under(done, _PEFT_PREFIX)
        _replace(state_dict, prefix, made, made, None)


def _under(made: Any, prefix: str) -> Any:
    result = OrderedDict((prefix + key, value) for key, value in made.items())
    metadata = getattr(made, "_metadata", None)
    if isinstance(metadata, Mapping):
        result._metadata = moved_metadata(metadata, [(prefix + key, key) for key in made])  # type: ignore[attr-defined]
    return result


@takes(Options)
def add_load_hook(
    model: Any, rules: RulesLike = None, *, ties: bool = True, **options: Unpack[Options]
) -> Any:
    """Lets ``model.load_state_dict`` take checkpoints of another layout; gives a handle whose
    ``remove()`` undoes that.

    Wrappers go from the keys, then ``rules`` apply (without any, those that the model's config asks
    for, if it has one), keys that the model has wrappers in get them back, and with ``ties`` what
    the checkpoint lacks because it is tied is added. The model is the target, so that ``strip ...
    if wanted`` and ``prefix`` know what it asks for; what it misses or doesn't know torch tells, as
    for any checkpoint. Options are those of :func:`regraft.apply`.

    The config is that of the module inside the wrappers. With ``assign=True``, what is tied stays
    one parameter. What wrappers hold themselves, as the count of an averaged model, stays where the
    checkpoint lacks it: a count of 0 means that the next update replaces the average. Hooked models
    pickle and deepcopy, their hooks with them.
    """
    _resolve(rules)
    return model.register_load_state_dict_pre_hook(_LoadHook(rules, ties, options))


@takes(SaveOptions)
def add_save_hook(
    model: Any, rules: RulesLike = None, *, reverse: bool = True, **options: Unpack[SaveOptions]
) -> Any:
    """Lets ``model.state_dict()`` give another layout: wrappers go from the keys, then ``rules``
    apply, backwards unless ``reverse=False`` (without any, those that the model's config asks for,
    from what the model holds to what is published). Gives a handle whose ``remove()`` undoes that.

    Put it on the outermost module, wrappers included. ``get_model_state_dict`` of torch.distributed
    looks keys up in the module, and fails on those that are renamed: there, apply rules to what it
    gives. Of PEFT's prefix only what is behind it is converted, since PEFT itself asks for it; the
    count of an averaged model is left out, since no published layout has it: keep it beside, to go
    on averaging.
    """
    _resolve(rules)
    hook = _SaveHook(rules, {**options, "reverse": reverse})
    handle = model.register_state_dict_post_hook(hook)
    return handle if handle is not None else _Handle(model, hook)


def _replace(
    state_dict: MutableMapping[str, Any],
    prefix: str,
    made: Mapping[str, Any],
    bare: Any,
    names: Names | None,
) -> None:
    """Puts a module's own part of a state dict in place of what it was; the dict itself, which
    others hold, stays. ``bare`` has the versions of the modules by their bare names; for a module
    that loads they are added under the names that it looks for."""
    for key in [key for key in state_dict if key.startswith(prefix)]:
        del state_dict[key]
    for key, value in made.items():
        state_dict[prefix + key] = value
    metadata, found = getattr(state_dict, "_metadata", None), getattr(bare, "_metadata", None)
    if metadata is None or found is None:
        return
    if names is None:
        for name in [name for name in metadata if name.startswith(prefix) or name == prefix[:-1]]:
            del metadata[name]
        metadata.update({(prefix + name).rstrip("."): entry for name, entry in found.items()})
        return
    moved = moved_metadata(found, [(names.where_it_loads(key), key) for key in bare])
    for name, entry in moved.items():
        metadata.setdefault((prefix + name).rstrip("."), entry)


class _Handle:
    """A handle for versions of torch that give none."""

    def __init__(self, model: Any, hook: Any) -> None:
        self._parts: tuple[Any, Any] = (model, hook)

    def remove(self) -> None:
        model, hook = self._parts
        hooks = getattr(model, "_state_dict_hooks", {})
        for number, known in list(hooks.items()):
            if known is hook:
                del hooks[number]

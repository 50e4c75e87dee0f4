"""regraft in training code: keys without wrappers, ties made real, and hooks that apply rules where a module loads and saves."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, MutableMapping, Optional, Tuple

from . import _regraft
from ._errors import Diagnostic, PlanError
from ._rules import RulesLike, apply, load
from .checkpoint_utils import ensure_tied_lm_head, materialize_missing_tied_lm_head

__all__ = ["add_load_hook", "add_save_hook", "ensure_tied", "materialize_ties", "normalize_keys"]

_WRAPPERS: List[Any] = []


def _wrappers() -> Any:
    if not _WRAPPERS:
        _WRAPPERS.append(load("wrappers"))
    return _WRAPPERS[0]


def _refuse_flat(keys: Any) -> None:
    flat = tuple(key for key in keys if any(part == "_flat_param" or part.startswith("_fsdp_flattened") for part in key.split(".")))
    if flat:
        hint = "one flat parameter stands for many tensors: save with `FSDP.state_dict_type(model, StateDictType.FULL_STATE_DICT)`"
        message = f"{len(flat)} keys are flat parameters of FSDP, as {flat[0]}"
        raise PlanError(f"{message}\nhelp: {hint}", [Diagnostic("", "error", message, None, flat, (hint,))])


def normalize_keys(state_dict: Mapping[str, Any]) -> Dict[str, Any]:
    """The state dict with keys as the bare module has them: what ``torch.compile``, FSDP, activation checkpointing, DDP and
    Lightning leave in keys is gone. Tensors are the same objects.

    ``module`` goes only where every key carries it, since it is a legal name. Raises PlanError where two keys would become one,
    and for flat parameters of FSDP.
    """
    _refuse_flat(state_dict)
    made = _wrappers().plan(state_dict)
    return made._carry_out(state_dict)


def materialize_ties(state_dict: MutableMapping[str, Any], model: Any, *, compat: Optional[str] = None) -> List[str]:
    """Adds to a state dict, in place, what it lacks because it is tied in the model; gives the keys that were added.

    First the output head, as :func:`regraft.checkpoint_utils.materialize_missing_tied_lm_head` finds its source, also on a
    pipeline stage that has no
    embedding; then every key whose tensor in the model is one with that of a key that is there. Each is an alias, never a copy.
    """
    before = set(state_dict)
    materialize_missing_tied_lm_head(state_dict, model, compat=compat)
    groups: Dict[int, List[str]] = {}
    for name, param in model.named_parameters(remove_duplicate=False):
        groups.setdefault(id(param), []).append(_regraft.normalize_param_name(name, False))
    for names in groups.values():
        source = next((name for name in names if name in state_dict), None)
        if source is not None:
            for name in names:
                if name not in state_dict:
                    state_dict[name] = state_dict[source]
    return [key for key in state_dict if key not in before]


def ensure_tied(model: Any, *, compat: Optional[str] = None) -> bool:
    """Makes the head of a tied model one with its input embedding, and says whether it is:
    :func:`regraft.checkpoint_utils.ensure_tied_lm_head`."""
    return ensure_tied_lm_head(model, compat=compat)


def _options(model: Any, rules: RulesLike, options: Mapping[str, Any]) -> Dict[str, Any]:
    options = dict(options)
    config = getattr(model, "config", None)
    if "config" not in options and config is not None and (isinstance(config, Mapping) or hasattr(config, "to_dict")):
        options["config"] = config
    return options


def _own_names(model: Any) -> Dict[str, str]:
    """The key that each tensor has in the module's state dict, by its key without wrappers. Some wrappers take themselves out of
    state dicts."""
    own: Dict[str, str] = {}
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    names += [name for name, _ in model.named_buffers(remove_duplicate=False)]
    names += [f"{name}._extra_state" if name else "_extra_state" for name, _ in model.named_modules()]
    for name in names:
        own.setdefault(_regraft.normalize_param_name(name, False), _regraft.clean_tensor_name(name, False))
    return own


def add_load_hook(model: Any, rules: RulesLike = None, *, ties: bool = True, **options: Any) -> Any:
    """Lets ``model.load_state_dict`` take checkpoints of another layout; gives a handle whose ``remove()`` undoes that.

    Wrappers go from the keys, then ``rules`` apply (without any, those that the model's config asks for, if it has one), keys
    that the model has
    wrappers in get them back, and with ``ties`` what the checkpoint lacks because it is tied is added. Options are those of
    :func:`regraft.apply`.
    """

    def hook(module: Any, state_dict: MutableMapping[str, Any], prefix: str, *_: Any) -> None:
        mine = {key[len(prefix) :]: value for key, value in state_dict.items() if key.startswith(prefix)}
        made: MutableMapping[str, Any] = normalize_keys(mine)
        chosen = _options(module, rules, options)
        if rules is not None or "config" in chosen:
            made = apply(made, rules=rules, **chosen)
        if ties:
            materialize_ties(made, module)
        own = _own_names(module)
        _replace(state_dict, prefix, mine, {own.get(key, key): value for key, value in made.items()})

    return model.register_load_state_dict_pre_hook(hook)


def add_save_hook(model: Any, rules: RulesLike = None, *, reverse: bool = True, **options: Any) -> Any:
    """Lets ``model.state_dict()`` give another layout: wrappers go from the keys, then ``rules`` apply, backwards unless
    ``reverse=False`` (without
    any, those that the model's config asks for, from what the model holds to what is published). Gives a handle whose
    ``remove()`` undoes that.

    Put it on the outermost module, wrappers included.
    """

    def hook(module: Any, state_dict: MutableMapping[str, Any], prefix: str, *_: Any) -> None:
        mine = {key[len(prefix) :]: value for key, value in state_dict.items() if key.startswith(prefix)}
        made: MutableMapping[str, Any] = normalize_keys(mine)
        chosen = _options(module, rules, options)
        if rules is not None or "config" in chosen:
            made = apply(made, rules=rules, reverse=reverse, **chosen)
        _replace(state_dict, prefix, mine, made)

    handle = model.register_state_dict_post_hook(hook)
    return handle if handle is not None else _Handle(model, hook)


def _replace(state_dict: MutableMapping[str, Any], prefix: str, mine: Mapping[str, Any], made: Mapping[str, Any]) -> None:
    """Puts a module's own part of a state dict in place of what it was; the dict itself, which others hold, stays."""
    for key in mine:
        del state_dict[prefix + key]
    for key, value in made.items():
        state_dict[prefix + key] = value


class _Handle:
    """A handle for versions of torch that give none."""

    def __init__(self, model: Any, hook: Any) -> None:
        self._parts: Tuple[Any, Any] = (model, hook)

    def remove(self) -> None:
        model, hook = self._parts
        hooks = getattr(model, "_state_dict_hooks", {})
        for number, known in list(hooks.items()):
            if known is hook:
                del hooks[number]

"""Modules in wrappers: what is inside, under which prefix, and what each tensor is called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from . import _regraft

# The attribute under which a wrapper holds what it wraps, and nothing else: what the rule file
# `wrappers` lists, and EMA's.
_WRAPPED = (*_regraft.wrappers(), "ema_model")

# Wrappers that take their own name out of state dicts and put it back when they load.
_SELF_NAMED = ("_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_fpw_module")

_PEFT = "base_model.model"


class Layer(NamedTuple):
    """A wrapper, or what is inside of all."""

    prefix: str
    """What is in front of its tensors' names, seen from the outermost."""
    module: Any


def _children(module: Any) -> dict[str, Any]:
    return {
        name: child for name, child in getattr(module, "_modules", {}).items() if child is not None
    }


def _inside(module: Any) -> tuple[str, Any] | None:
    children = _children(module)
    if len(children) == 1:
        ((name, child),) = children.items()
        # A wrapper has no parameters of its own; a plain container of that name may.
        own = name == "module" and any(
            param is not None for param in getattr(module, "_parameters", {}).values()
        )
        if name in _WRAPPED and not own:
            return name, child
    if "base_model" in children:
        # PEFT: a PeftModel around a tuner around the model.
        tuner = _children(children["base_model"])
        if list(tuner) == ["model"]:
            return _PEFT, tuner["model"]
    return None


def layers(model: Any) -> list[Layer]:
    """A module, and what is inside of it, wrapper by wrapper; the last is the module itself."""
    found, seen = [Layer("", model)], {id(model)}
    while True:
        inside = _inside(found[-1].module)
        if inside is None or id(inside[1]) in seen:
            return found
        seen.add(id(inside[1]))
        found.append(Layer(f"{found[-1].prefix}{inside[0]}.", inside[1]))


def bare(model: Any) -> Any:
    """The module inside its wrappers."""
    return layers(model)[-1].module


def attribute(model: Any, name: str) -> Any:
    """An attribute of the module inside its wrappers, else of the innermost wrapper that has it: a
    wrapper's own may be another thing."""
    for layer in reversed(layers(model)):
        found = getattr(layer.module, name, None)
        if found is not None:
            return found
    return None


def _is_model_config(config: Any) -> bool:
    fields = ("model_type", "architectures", "tie_word_embeddings")
    return any(
        field in config if isinstance(config, Mapping) else hasattr(config, field)
        for field in fields
    )


def config_of(model: Any) -> Any:
    """The config that rules go by: of the module inside, or of a wrapper, if it is a model's; with
    the class that the module really has."""
    inside = bare(model)
    for layer in reversed(layers(model)):
        config = getattr(layer.module, "config", None)
        if config is None or not (isinstance(config, Mapping) or hasattr(config, "to_dict")):
            continue
        if layer.module is not inside and not _is_model_config(config):
            continue
        return _of_class(config, inside)
    return None


def _of_class(config: Any, module: Any) -> Any:
    """The config says of which class the checkpoint was that it came with; where it says nothing,
    the module does."""
    said = (
        config.get("architectures")
        if isinstance(config, Mapping)
        else getattr(config, "architectures", None)
    )
    if said or not hasattr(type(module), "base_model_prefix"):
        return config
    # FSDP2 makes a class of its own, `FSDPLlamaModel`, in front of the model's.
    named = next(
        (cls.__name__ for cls in type(module).__mro__ if not cls.__name__.startswith("FSDP")), None
    )
    fields = dict(config) if isinstance(config, Mapping) else dict(config.to_dict())
    if not isinstance(config, Mapping) and hasattr(config, "tie_word_embeddings"):
        # A class may leave its default out of the mapping.
        fields.setdefault("tie_word_embeddings", config.tie_word_embeddings)
    return dict(fields, architectures=[named])


def _tensor_names(model: Any) -> Iterator[tuple[str, str]]:
    """Each tensor of a module's state: the name of its module, and its own."""
    for name, module in model.named_modules(remove_duplicate=False):
        for own, value in getattr(module, "_parameters", {}).items():
            if value is not None:
                yield name, own
        left_out = getattr(module, "_non_persistent_buffers_set", ())
        for own, value in getattr(module, "_buffers", {}).items():
            if value is not None and own not in left_out:
                yield name, own


def tensor_paths(model: Any) -> list[str]:
    """The name of each tensor of a module's state, wrappers and all."""
    return [f"{module}.{name}" if module else name for module, name in _tensor_names(model)]


def shared_names(model: Any, keys: Any) -> list[list[str]]:
    """Keys of a module's state dict that are one tensor in it: by what it holds, or by what it says
    (transformers' ``all_tied_weights_keys``)."""
    if not callable(getattr(model, "named_modules", None)):
        return []
    groups: dict[Any, list[str]] = {}
    names: dict[str, Any] = {}
    modules: dict[str, Any] = dict(model.named_modules(remove_duplicate=False))
    for module, own in _tensor_names(model):
        held = modules[module]
        tensor = held._parameters.get(own)
        path = _regraft.clean_tensor_name(f"{module}.{own}" if module else own, False)
        path = path if path in keys else f"{module}.{own}" if module else own
        if path in keys and path not in names:
            names[path] = id(held._buffers.get(own) if tensor is None else tensor)
            groups.setdefault(names[path], []).append(path)
    inner = layers(model)[-1]
    said = getattr(inner.module, "all_tied_weights_keys", None)
    if isinstance(said, Mapping):
        for target, source in said.items():
            one, other = (
                next((name for name in (f"{inner.prefix}{key}", str(key)) if name in names), None)
                for key in (target, source)
            )
            if one is not None and other is not None and names[one] != names[other]:
                moved = groups.pop(names[one])
                groups[names[other]].extend(moved)
                names.update((name, names[other]) for name in moved)
    return [group for group in groups.values() if len(group) > 1]


class Names:
    """What the tensors of a module are called: as the module inside has them, and as the whole does
    where it loads."""

    def __init__(self, model: Any) -> None:
        self.layers = layers(model)
        self.own: dict[str, str] = {}
        """The name where it loads, by the bare one."""
        self.keys: list[str] = []
        """The bare names of the tensors in a state dict, in the module's order."""
        self.beside: dict[str, Any] = {}
        """What wrappers hold themselves, as the count of an averaged model."""
        prefix = self.layers[-1].prefix
        self.front = self._where_it_loads(prefix + "x")[:-1]
        """What wrappers around the whole put in front of a name where it loads."""
        others = []
        for path in tensor_paths(model):
            if path.startswith(prefix):
                key = self._bare(path[len(prefix) :])
                self.keys.append(key)
                self.own.setdefault(key, self._where_it_loads(path))
                if ".base_layer." in key:
                    others.append((key.replace(".base_layer.", "."), key))
        for layer in self.layers[:-1]:
            left_out = getattr(layer.module, "_non_persistent_buffers_set", ())
            for name, value in getattr(layer.module, "_buffers", {}).items():
                if value is not None and name not in left_out:
                    self.beside[layer.prefix + name] = value
        for path, _ in model.named_modules(remove_duplicate=False):
            extra = f"{path}._extra_state" if path else "_extra_state"
            if extra.startswith(prefix):
                self.own.setdefault(self._bare(extra[len(prefix) :]), self._where_it_loads(extra))
        # A layer that PEFT took over is found under its old name.
        for key, taken in others:
            self.own.setdefault(key, self.own[taken])

    def where_it_loads(self, key: str) -> str:
        """The name where it loads of a bare one. What the module doesn't show, as FSDP1 doesn't
        what is flat, is behind the wrappers too."""
        return self.own.get(key, self.front + key)

    @property
    def in_peft(self) -> bool:
        """Whether PEFT is among the wrappers."""
        return any(_PEFT in layer.prefix for layer in self.layers)

    @staticmethod
    def _bare(path: str) -> str:
        return _regraft.normalize_param_name(path, False)

    @staticmethod
    def _where_it_loads(path: str) -> str:
        """Wrappers that name themselves did so already for the module that loads, and those inside
        will do it in their turn."""
        first, _, rest = path.partition(".")
        clean = _regraft.clean_tensor_name(path, False)
        return f"{first}.{clean}" if rest and first in _SELF_NAMED else clean


def level_of(model: Any, keys: Any) -> Layer:
    """The layer of a module's wrappers whose names a state dict has: all of them in front, some, or
    none."""
    found = layers(model)
    if len(found) == 1:
        return found[0]
    paths = tensor_paths(model)
    best, most = found[-1], 0
    for layer in reversed(found):
        count = 0
        for path in paths:
            if path.startswith(layer.prefix):
                name = _regraft.normalize_param_name(path[len(layer.prefix) :], False)
                count += name in keys or name.replace(".base_layer.", ".") in keys
        if count > most:
            best, most = layer, count
    return best

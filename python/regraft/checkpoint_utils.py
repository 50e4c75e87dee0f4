"""The checkpoint utilities of training code, over real modules and state dicts: drop-in for those
of NVIDIA NeMo AutoModel 0.7.0.

Names and signatures are those of ``nemo_automodel.components.checkpoint.utils`` and
``nemo_automodel.shared.tied_weights``. What a module is made of is looked up here; every decision
is the engine's. Modules may be wrapped: by DDP, FSDP, ``torch.compile``, activation checkpointing.

Every function takes ``compat``: ``"strict"`` is regraft's own behaviour, stricter where the
reference is unsafe (``docs/seed.md`` lists each difference); ``"reference"`` is that of AutoModel,
exactly, raised errors included. Without it, what :func:`set_compat` said last counts, at first
``"strict"``.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from enum import Enum
from typing import Any

from . import _regraft
from ._arrays import local
from ._facts import plain
from ._modules import attribute, level_of

__all__ = [
    "TieSupport",
    "canonical_parameter_fqn",
    "clean_tensor_name",
    "compat_mode",
    "consume_prefix_in_state_dict_if_present",
    "ensure_tied_lm_head",
    "estimate_state_dict_bytes",
    "estimate_tensor_bytes",
    "format_bytes",
    "format_output_file_count",
    "get_controlling_tie_word_embeddings",
    "get_input_embeddings_weight_and_name",
    "get_lm_head_weight_and_name",
    "get_rank_safe",
    "get_safetensors_index_total_size",
    "get_tied_lm_head_source_names",
    "get_world_size_safe",
    "has_local_tied_lm_head",
    "is_rank_0",
    "is_tied_word_embeddings",
    "materialize_missing_tied_lm_head",
    "resolve_trust_remote_code",
    "set_compat",
]

# What set_compat said, in every thread; and what holds for the length of a `with`, in its own.
_said = "strict"
_compat: ContextVar[str | None] = ContextVar("regraft_compat", default=None)


class TieSupport(Enum):
    """Which settings of ``tie_word_embeddings`` a model class supports, as its attribute
    ``tie_word_embeddings_support``.

    The enumeration of AutoModel itself serves as well: members are told by their values.
    """

    BOTH = "both"
    TIED_ONLY = "tied_only"
    UNTIED_ONLY = "untied_only"


def _checked(compat: str) -> str:
    if compat not in ("strict", "reference"):
        raise ValueError(f"compat is 'strict' or 'reference', not {compat!r}")
    return compat


def set_compat(compat: str) -> None:
    """Whose behaviour the functions have that aren't told: ``"strict"`` or ``"reference"``. In
    every thread, those under way too."""
    global _said
    _said = _checked(compat)
    if _compat.get() is not None:
        _compat.set(_said)


@contextmanager
def compat_mode(compat: str) -> Iterator[None]:
    """:func:`set_compat` for the length of a ``with``, in this thread (or task) alone."""
    token = _compat.set(_checked(compat))
    try:
        yield
    finally:
        _compat.reset(token)


def _reference(compat: str | None) -> bool:
    return ((_compat.get() or _said) if compat is None else _checked(compat)) == "reference"


# Facts of modules and tensors


def _dtype_name(tensor: Any) -> str:
    return str(tensor.dtype).replace("torch.", "")


def _facts(tensor: Any) -> tuple[Any, ...]:
    """A tensor's facts: of a distributed one, what this rank holds, under the shape of the
    whole."""
    here = local(tensor)
    shape = tuple(tensor.shape)
    if here.device.type == "meta":
        return shape, _dtype_name(tensor), id(tensor), id(tensor), 0, [1] * len(shape), False, True
    try:
        storage = here.untyped_storage()
        place = storage.data_ptr()
        offset, strides = here.storage_offset(), list(here.stride())
    except (RuntimeError, NotImplementedError, AttributeError):
        return shape, _dtype_name(tensor), id(tensor), id(tensor), 0, [1] * len(shape), True, False
    return shape, _dtype_name(tensor), id(tensor), place, offset, strides, True, True


_FLAG = "tie_word_embeddings"


def _config_fields(config: Any, reference: bool) -> Any:
    """The fields of a config that ties depend on, under the names that a config.json has."""
    if isinstance(config, Mapping) and not reference:
        return plain(config)

    def flag(of: Any) -> Any:
        value = getattr(of, _FLAG)
        # The reference takes anything that Python takes for true.
        return bool(value) if reference else plain(value)

    fields: dict[str, Any] = {}
    for name in ("model_type", "architectures"):
        if isinstance(getattr(config, name, None), (str, list, tuple)):
            fields[name] = plain(getattr(config, name))
    if hasattr(config, _FLAG):
        fields[_FLAG] = flag(config)
        return fields
    thinker = getattr(config, "thinker_config", None)
    if thinker is not None:
        fields["thinker_config"] = {_FLAG: flag(thinker)} if hasattr(thinker, _FLAG) else {}
    text = getattr(config, "get_text_config", lambda: None)()
    if text is None and not reference:
        text = getattr(config, "text_config", None)
    if text is not None and text is not config:
        fields["text_config"] = {_FLAG: flag(text)} if hasattr(text, _FLAG) else {}
        if isinstance(getattr(text, "model_type", None), str):
            fields["text_config"]["model_type"] = text.model_type
    return fields


def _config(config: Any, reference: bool) -> _regraft.Config | None:
    return (
        None if config is None else _regraft.Config(json.dumps(_config_fields(config, reference)))
    )


def _attribute(model: Any, name: str, reference: bool) -> Any:
    return getattr(model, name, None) if reference else attribute(model, name)


class _Snapshot:
    """A module's facts, with the tensors that they are of."""

    def __init__(self, model: Any, reference: bool) -> None:
        self.names: list[str] = []
        self.params: list[Any] = []
        for name, param in model.named_parameters(remove_duplicate=False):
            self.names.append(name)
            self.params.append(param)
        support = _attribute(model, "tie_word_embeddings_support", reference)
        declared = _attribute(model, "_tied_weights_keys", reference)
        pairs = None
        if isinstance(declared, Mapping):
            pairs = [
                (target, source)
                for target, source in declared.items()
                if isinstance(target, str) and isinstance(source, str)
            ]
        self.inner = _regraft.Model(
            [(name, _facts(param)) for name, param in zip(self.names, self.params)],
            [name for name, _ in model.named_modules()],
            _config(_attribute(model, "config", reference), reference),
            support.value if isinstance(support, Enum) else None,
            pairs,
            self._embedding_module(model, reference),
        )

    def _embedding_module(self, model: Any, reference: bool) -> str | None:
        """The module that the model names as its input embedding."""
        ask = _attribute(model, "get_input_embeddings", reference)
        if not callable(ask):
            return None
        try:
            weight = getattr(ask(), "weight", None)
        except (
            Exception
        ):  # A stage may have lost its embedding, and models fail on that in their own ways.
            return None
        for name, param in zip(self.names, self.params):
            if param is weight and (name == "weight" or name.endswith(".weight")):
                return name[: -len("weight")].rstrip(".")
        return None

    def found(self, place: tuple[int, str] | None) -> tuple[Any, str | None]:
        return (None, None) if place is None else (self.params[place[0]], place[1])


# Names


def _normalize_param_name(name: str, *, compat: str | None = None) -> str:
    """A parameter's name without wrappers: of ``torch.compile``, activation checkpointing, and in
    strict mode FSDP1."""
    return _regraft.normalize_param_name(name, _reference(compat))


def canonical_parameter_fqn(name: str, *, compat: str | None = None) -> str:
    """A parameter's name as state dicts have it: without the wrapper of activation
    checkpointing."""
    return _regraft.canonical_parameter_fqn(name, _reference(compat))


def clean_tensor_name(name: str, *, compat: str | None = None) -> str:
    """A tensor's name without the wrappers of FSDP1 and activation checkpointing."""
    return _regraft.clean_tensor_name(name, _reference(compat))


def consume_prefix_in_state_dict_if_present(
    state_dict: MutableMapping[str, Any], prefix: str, *, compat: str | None = None
) -> None:
    """Takes a prefix off the keys of a state dict, in place; in strict mode only where every key
    carries it."""
    keys = list(state_dict)
    consumed = _regraft.consume_prefix(keys, prefix, _reference(compat))
    if [key for key, _ in consumed] != keys:
        values = list(state_dict.values())
        state_dict.clear()
        state_dict.update((key, values[at]) for key, at in consumed)
    # The names of modules, which `state_dict()` keeps for `load_state_dict()`.
    metadata = getattr(state_dict, "_metadata", None)
    if metadata is not None and prefix and len(prefix) > 1:
        if _reference(compat) or [key for key, _ in consumed] != keys:
            for key in list(metadata):
                if key and (key == prefix[:-1] or key.startswith(prefix)):
                    metadata[key[len(prefix) :]] = metadata.pop(key)


def _get_module_by_normalized_name(
    model: Any, normalized_module_name: str, *, compat: str | None = None
) -> Any:
    """The first module whose name is this one once normalized; the model itself for the empty name,
    None if there is none."""
    if normalized_module_name == "":
        return model
    modules = list(model.named_modules())
    found = _regraft.module_by_normalized_name(
        [name for name, _ in modules], normalized_module_name, _reference(compat)
    )
    return None if found is None else next(module for name, module in modules if name == found)


# Ties


def get_controlling_tie_word_embeddings(config: Any, *, compat: str | None = None) -> bool:
    """Whether a config says that word embeddings are tied: by the flag that rules, of the config
    itself, its thinker or its text config."""
    reference = _reference(compat)
    made = _config(config, reference)
    return made is not None and _regraft.controlling_tie(made, reference)


def is_tied_word_embeddings(model: Any, *, compat: str | None = None) -> bool:
    """Whether a model's word embeddings are tied by intent: what its class supports, if only one
    way, else what its config says."""
    reference = _reference(compat)
    support = _attribute(model, "tie_word_embeddings_support", reference)
    config = _config(_attribute(model, "config", reference), reference)
    value = support.value if isinstance(support, Enum) else None
    return _regraft.Model([], [], config, value, None, None).is_tied(reference)


def get_lm_head_weight_and_name(model: Any, *, compat: str | None = None) -> tuple[Any, str | None]:
    """The weight of the output head and its normalized name; (None, None) where this stage has
    none."""
    reference = _reference(compat)
    snapshot = _Snapshot(model, reference)
    return snapshot.found(snapshot.inner.lm_head(reference))


def get_input_embeddings_weight_and_name(
    model: Any, *, compat: str | None = None
) -> tuple[Any, str | None]:
    """The weight of the input embedding and its normalized name; (None, None) where this stage has
    none."""
    reference = _reference(compat)
    snapshot = _Snapshot(model, reference)
    return snapshot.found(snapshot.inner.input_embeddings(reference))


def get_tied_lm_head_source_names(
    model: Any, lm_head_param_name: str | None = None, *, compat: str | None = None
) -> list[str]:
    """The keys that a tied head may come from, best first."""
    reference = _reference(compat)
    return _Snapshot(model, reference).inner.tied_sources(lm_head_param_name, reference)


def _same_tensor_storage(left: Any, right: Any, *, compat: str | None = None) -> bool:
    """Whether two tensors are one in memory."""
    if left is right:
        return True
    a, b = local(left), local(right)
    return a is b or _regraft.same_tensor_storage(_facts(a), _facts(b), _reference(compat))


def has_local_tied_lm_head(model: Any, *, compat: str | None = None) -> bool:
    """Whether this model, or stage, has a head and an embedding that are one tensor, and is tied by
    intent."""
    reference = _reference(compat)
    return is_tied_word_embeddings(model, compat=compat) and _Snapshot(
        model, reference
    ).inner.has_local_tied(reference)


def ensure_tied_lm_head(model: Any, *, compat: str | None = None) -> bool:
    """Makes the head of a tied model one with its input embedding, and says whether it is.

    The model's own ``tie_weights`` comes first. A head of another shape, and in strict mode of
    another dtype, is kept.
    """
    reference = _reference(compat)
    if not is_tied_word_embeddings(model, compat=compat):
        return False
    latest = _Snapshot(model, reference)
    tie_weights = _attribute(model, "tie_weights", reference)

    def own_way() -> Any:
        nonlocal latest
        tie_weights()
        latest = _Snapshot(model, reference)
        return latest.inner

    tied, assigned = latest.inner.ensure_tied(own_way if callable(tie_weights) else None, reference)
    if assigned is None and tied and not reference:
        # Two parameters over one storage are two to an optimizer, and to whatever moves a module.
        ends = latest.inner.lm_head(reference), latest.inner.input_embeddings(reference)
        if (
            ends[0] is not None
            and ends[1] is not None
            and latest.params[ends[0][0]] is not latest.params[ends[1][0]]
        ):
            assigned = ends[0][0], ends[1][0]
    if assigned is None:
        return tied
    head, embedding = assigned
    module_name, _, leaf = latest.names[head].rpartition(".")
    try:
        setattr(model.get_submodule(module_name), leaf, latest.params[embedding])
    except (AttributeError, TypeError, RuntimeError):
        return False
    return has_local_tied_lm_head(model, compat=compat)


def materialize_missing_tied_lm_head(
    state_dict: MutableMapping[str, Any],
    model: Any,
    *,
    allow_current_lm_head_fallback: bool = False,
    compat: str | None = None,
) -> bool:
    """Adds the head of a tied model to a state dict that lacks it, as an alias of its source, and
    says whether it did.

    In strict mode a source must have the head's shape and dtype, and no scale that would stay
    behind; the next candidate is tried otherwise.
    """
    reference = _reference(compat)
    if not is_tied_word_embeddings(model, compat=compat):
        return False
    if not reference:
        # Under the names that the state dict has, which may be without those of wrappers.
        model = level_of(model, state_dict).module
    snapshot = _Snapshot(model, reference)
    head = snapshot.inner.lm_head(reference)
    if head is None or head[1] in state_dict:
        return False
    import torch

    # Other tensors can't be asked for; but a scale among them matters.
    tensors = [
        _facts(value) if isinstance(value, torch.Tensor) else None for value in state_dict.values()
    ]
    found = snapshot.inner.materialize(
        list(state_dict), tensors, allow_current_lm_head_fallback, reference
    )
    if found is None:
        return False
    key, source = found
    tensor = snapshot.params[head[0]] if source is None else state_dict[source]
    state_dict[key] = tensor.detach()
    return True


# Sizes


def estimate_tensor_bytes(tensor: Any, *, compat: str | None = None) -> int:
    """Bytes of a tensor's elements, whatever storage it shares."""
    dtype = getattr(tensor, "dtype", None)
    if _reference(compat) and "torch" not in type(dtype).__module__:
        # Anything that answers like a tensor is one to the reference.
        return int(tensor.numel()) * int(tensor.element_size())
    size = _regraft.tensor_bytes(tuple(tensor.shape), _dtype_name(tensor))
    if size is None:
        raise OverflowError("the size exceeds 64 bits")
    return size


def estimate_state_dict_bytes(
    state_dict: Mapping[str, Any], *, compat: str | None = None
) -> int | None:
    """Bytes of all tensors of a state dict, shared ones as often as they are there; None if a value
    is no tensor."""
    try:
        return sum(estimate_tensor_bytes(tensor, compat=compat) for tensor in state_dict.values())
    except (AttributeError, RuntimeError, TypeError, ValueError, OverflowError):
        return None


def get_safetensors_index_total_size(index_path: Any, *, compat: str | None = None) -> int | None:
    """The size that a safetensors index records, in bytes; None if there is none to be read."""
    return _regraft.index_total_size(
        None if index_path is None else os.fspath(index_path), _reference(compat)
    )


def format_bytes(num_bytes: int, *, compat: str | None = None) -> str:
    """``1.5 GiB``"""
    return _regraft.format_bytes(num_bytes, _reference(compat))


def format_output_file_count(count: int, *, compat: str | None = None) -> str:
    """``1 output file``, ``2 output files``"""
    return _regraft.format_output_file_count(count, _reference(compat))


# Ranks


def _process_group() -> Any:
    torch = sys.modules.get("torch")
    distributed = getattr(torch, "distributed", None)
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return distributed
    return None


def get_rank_safe(*, compat: str | None = None) -> int:
    """This process's rank: of its process group, else ``RANK`` of the environment, else 0."""
    group = _process_group()
    return group.get_rank() if group else _regraft.rank(os.environ.get("RANK"), _reference(compat))


def get_world_size_safe(*, compat: str | None = None) -> int:
    """How many processes there are: of the process group, else ``WORLD_SIZE`` of the environment,
    else 1."""
    group = _process_group()
    return (
        group.get_world_size()
        if group
        else _regraft.world_size(os.environ.get("WORLD_SIZE"), _reference(compat))
    )


def is_rank_0(*, compat: str | None = None) -> bool:
    """Whether this process is the main one."""
    group = _process_group()
    return (
        group.get_rank() == 0
        if group
        else _regraft.is_rank_0(os.environ.get("RANK"), _reference(compat))
    )


# Trust and dtypes


def resolve_trust_remote_code(
    pretrained_model_name_or_path: Any,
    *,
    patterns: list[str] | None = None,
    compat: str | None = None,
) -> bool:
    """Whether a repository's code may run: its name is on the allow-list (``nvidia/*``, or
    ``patterns``), and it is no directory."""
    name = pretrained_model_name_or_path
    kind, text = "other", ""
    if not name:
        kind = "falsy"
    elif isinstance(name, str):
        kind, text = "text", name
    elif isinstance(name, os.PathLike):
        kind, text = "path", os.fspath(name)
    elif isinstance(name, int):
        kind = "int"
    elif isinstance(name, bytes):
        kind, text = "bytes", os.fsdecode(name)
    return _regraft.trust_remote_code(kind, text, type(name).__name__, patterns, _reference(compat))


def _get_checkpoint_tensor_dtypes(
    pretrained_model_name_or_path: Any,
    hf_config: Any,
    load_kwargs: Mapping[str, Any] | None = None,
    *,
    compat: str | None = None,
) -> dict[str, Any]:
    """The dtype of each tensor of a checkpoint, from its headers alone: a file or directory, or
    ``load_kwargs["state_dict"]``.

    Nothing is fetched: the name of a repository that is no directory is an OSError.
    """
    import torch

    load_kwargs = dict(load_kwargs or {})
    given = load_kwargs.get("state_dict")
    if isinstance(given, Mapping):
        return {
            key: tensor.dtype for key, tensor in given.items() if isinstance(tensor, torch.Tensor)
        }
    if load_kwargs.get("gguf_file") is not None:
        return {}
    found = _regraft.checkpoint_tensor_dtypes(
        os.fspath(pretrained_model_name_or_path),
        getattr(hf_config, "transformers_weights", None),
        load_kwargs.get("use_safetensors"),
        load_kwargs.get("variant"),
        load_kwargs.get("subfolder") or None,
        _reference(compat),
    )
    missing = sorted({name for _, name in found if not hasattr(torch, name)})
    if missing:
        raise TypeError(f"torch {torch.__version__} has no dtype {', '.join(missing)}")
    return {key: getattr(torch, name) for key, name in found}

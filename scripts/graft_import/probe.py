"""Ask an installed transformers what it does to the keys of each of its models.

Every model class is built on torch's meta device (no weights, no downloads) from its default
configuration, with few layers where the configuration takes that. Written down, one JSON object a
line, resumable:

  class, model_type, base_prefix
  program  the conversion rules in order: [module path or "", registry entry, index of the rule in
that entry]
  ties     target -> [source, when], as the class declares them: `tied`, `always`, or the flag that
rules as path=default
  model    model key -> hub name that transformers' reverse renaming gives it (experts as `*`)
  hub      hub key -> model name that transformers' renaming gives it

Of keys that differ only in numbers, the first and the last of the model are kept.
"""

import json
import os
import re
import signal
import sys

NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")


# Heads that add one small layer to a model that is asked anyway; they come last.
HEADS = (
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForMultipleChoice",
    "ForNextSentencePrediction",
)
LAYERS = 8  # enough for every kind of layer that a default configuration mixes
EXPERTS = 4


QWEN4 = {
    "indexer_n_heads": 4,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 16,
    "indexer_budget": 64,
    "indexer_compress_ratio": 4,
    "ple_layer_ids": [1, 2],
}

# Model types whose class is that of another type: its own name in the Auto classes, and only that.
BORROWED = {
    "exaone": "LlamaForCausalLM",
    "sarvam_mla": "DeepseekV3ForCausalLM",
    "sarvam_moe": "Glm4MoeForCausalLM",
}

# What a default configuration lacks before its model can be built: model type -> fields, dotted
# where they lie inside another configuration.
LACKING = {
    "aya_vision": {"vision_config.num_attention_heads": 16},
    "beit": {"out_indices": [3, 5, 7, 11]},
    "deepseek_ocr2": {"text_config.mlp_layer_types": ["dense"] + ["sparse"] * 11},
    "dots1": {
        "n_routed_experts": 4,
        "moe_intermediate_size": 16,
        "intermediate_size": 16,
        "n_shared_experts": 1,
        "first_k_dense_replace": 1,
    },
    "emu3": {"vocabulary_map": {}},
    "chameleon": {"vocabulary_map": {}},
    "esm": {"vocab_size": 33},
    "hunyuan_v1_moe": {"head_dim": 128},
    "hunyuan_v1_dense": {"head_dim": 128},
    "hunyuan_vl": {"text_config.head_dim": 128},
    "hunyuan_vl_text": {"head_dim": 128},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 16},
    "ministral": {"head_dim": 128},
    "nemotron": {"head_dim": 128, "num_key_value_heads": 8},
    "reformer": {"is_decoder": True},
    "sapiens2": {
        "head_config.upsample_out_channels": [8, 8],
        "head_config.upsample_kernel_sizes": [4, 4],
        "head_config.conv_out_channels": [8, 8, 8],
        "head_config.conv_kernel_sizes": [1, 1, 1],
        "head_config.scale_conv_out_channels": [8, 8, 8],
        "head_config.scale_conv_kernel_sizes": [1, 1, 1],
        "head_config.scale_final_input_size": 8,
        "head_config.scale_final_hidden_sizes": [8, 8, 8],
    },
    "qwen3_omni_moe": {
        "talker_config.text_config.shared_expert_intermediate_size": 16,
        "talker_config.spatial_merge_size": 2,
    },
    "qwen4_exp_text": QWEN4,
    "qwen4_exp": {f"text_config.{name}": value for name, value in QWEN4.items()},
    "t5gemma2_encoder": {"text_config.dropout_rate": 0.0},
}


class Late(Exception):
    """A model took too long to build."""


def classes():
    """(model type, class name) of every model that an Auto class names, registry entries' own types
    first."""
    import transformers
    import transformers.models.auto.modeling_auto as auto
    from transformers.conversion_mapping import _build_checkpoint_conversion_mapping

    registry = _build_checkpoint_conversion_mapping()
    found = {}
    for name in dir(auto):
        if name.endswith("_MAPPING_NAMES"):
            for model_type, names in getattr(auto, name).items():
                for one in names if isinstance(names, (tuple, list)) else [names]:
                    if not one.endswith("Config"):
                        found.setdefault(one, model_type)
    for name in registry:  # a class that no Auto class names
        if (
            name not in found
            and hasattr(transformers, name)
            and hasattr(getattr(transformers, name), "config_class")
        ):
            found[name] = getattr(transformers, name).config_class.model_type

    def order(entry):
        model_type, name = entry
        plain = any(name.endswith(head) for head in HEADS) and name not in registry
        return plain, model_type not in registry and name not in registry, model_type, name

    return sorted(((t, c) for c, t in found.items()), key=order)


def sample(keys):
    """The first and the last of the keys that differ in numbers only."""
    by = {}
    for key in keys:
        by.setdefault(NUMBER.sub("#", key), []).append(key)
    return [k for ks in by.values() for k in (ks[:1] if len(ks) == 1 else [ks[0], ks[-1]])]


def configs(config):
    """A configuration and those inside it."""
    yield config
    for value in vars(config).values():
        if hasattr(value, "model_type") and hasattr(value, "to_dict"):
            yield from configs(value)


def shrink(config):
    """Fewer layers and experts, and shorter the lists that have one item per layer."""
    for one in list(configs(config)):
        for name, value in list(vars(one).items()):
            if isinstance(value, bool) or not isinstance(value, int):
                continue
            if (
                name
                in ("num_hidden_layers", "num_layers", "encoder_layers", "decoder_layers", "depth")
                and value > LAYERS
            ):
                for other, items in list(vars(one).items()):
                    if isinstance(items, list) and len(items) == value:
                        setattr(one, other, items[:LAYERS])
                setattr(one, name, LAYERS)
            elif re.fullmatch(r"(moe_)?(num|n)_(local_|routed_)?experts", name) and value > EXPERTS:
                setattr(one, name, EXPERTS)


def build(cls):
    """The model on the meta device, with few layers and experts if its configuration lets itself be
    told."""
    import torch
    from transformers.initialization import no_init_weights

    error = None
    for small in (True, False):
        try:
            config = cls.config_class()
            for name, value in LACKING.get(cls.config_class.model_type, {}).items():
                *path, field = name.split(".")
                inner = config
                for step in path:
                    inner = getattr(inner, step)
                setattr(inner, field, value)
            if small:
                shrink(config)
            with torch.device("meta"), no_init_weights():
                return cls(config)
        except Late:
            raise
        except Exception as e:  # any class may refuse its own defaults
            error = e
    raise error


def conversions(model):
    """The rules for a model as (module path, entry, index, transform); transformers itself decides
    which apply."""
    from transformers import conversion_mapping as cm

    registry = cm._build_checkpoint_conversion_mapping()
    claimed = []
    original = cm.get_checkpoint_conversion_mapping

    def tagged(entry):
        found = original(entry)
        if found is not None:
            claimed.append((entry, found))
        return found

    cm.get_checkpoint_conversion_mapping = tagged
    try:
        transforms = cm.get_model_conversion_mapping(model, add_legacy=False)
    finally:
        cm.get_checkpoint_conversion_mapping = original
    by_id = {id(t): (entry, i) for entry, found in claimed for i, t in enumerate(found)}
    base = model.base_model_prefix
    modules = {n for n, _ in model.named_modules()}
    out = []
    for t in transforms:
        entry, index = by_id[id(t)]
        if t.scope_prefix is None:
            path = ""
        else:
            full = f"{base}.{t.scope_prefix}".strip(".") if base in modules else t.scope_prefix
            path = full if full in modules else t.scope_prefix
            # a module below that has the base prefix's name keeps it
            if path == "" and base in modules:
                path = base
        out.append((path, entry, index, t))
    assert all(e in registry for _, e, _, _ in out)
    return out


def ask(cls):
    """All that is written down about one class."""
    from transformers.core_model_loading import (
        PrefixChange,
        WeightConverter,
        WeightRenaming,
        apply_converters,
        apply_renamings,
        rename_source_key,
        revert_weight_conversion,
    )

    model = build(cls)
    program = conversions(model)
    transforms = [t for *_, t in program]
    state = model.state_dict()
    hub, hub_names, model_names = list(state), {}, {}
    note = None
    if transforms:
        back = [t.reverse_transform() for t in transforms[::-1] if not isinstance(t, PrefixChange)]
        renames = [t for t in back if isinstance(t, WeightRenaming)]
        converters = [t for t in back if isinstance(t, WeightConverter)]
        for key in sample(state):
            name, pattern = apply_converters(key, converters)
            model_names[key] = apply_renamings(name, renames)
        try:
            hub = list(revert_weight_conversion(model, state))
            model._weight_conversions = list(conversions_again(model))
            hub += [k for k in revert_weight_conversion(model, state) if k not in set(hub)]
        except Exception as e:
            note = f"transformers can't revert its own rules here: {type(e).__name__}: {e}"[:200]
            hub = []
        fresh = conversions_again(model)
        renames = [t for t in fresh if isinstance(t, WeightRenaming)]
        converters = [t for t in fresh if isinstance(t, WeightConverter)]
        for key in sample(hub):
            hub_names[key] = rename_source_key(key, renames, converters)[0]
    else:
        model_names = {k: k for k in sample(state)}
    ties, note = declared_ties(model, state, note)
    return {
        "class": cls.__name__,
        "model_type": cls.config_class.model_type,
        "base_prefix": model.base_model_prefix,
        "program": [[path, entry, index] for path, entry, index, _ in program],
        "ties": ties,
        "model": model_names,
        "hub": hub_names,
        "note": note,
    }


def config_paths(config, path=""):
    """Where each configuration lies within the root's: id -> dotted path, "" for the root."""
    out = {id(config): path}
    for name, value in vars(config).items():
        if hasattr(value, "model_type") and hasattr(value, "to_dict"):
            for key, inner in config_paths(value, f"{path}.{name}".strip(".")).items():
                out.setdefault(key, inner)
    return out


def declared_ties(model, state, note):
    """target -> [source, when]: `tied` where the flag of the whole model rules, `always`, or the
    path and default of the flag that does."""
    paths = config_paths(model.config)
    out = {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        if not hasattr(module, "get_expanded_tied_weights_keys"):
            continue
        config = module.config
        try:
            forced = bool(
                getattr(type(config)(tie_word_embeddings=False), "tie_word_embeddings", False)
            )
        except Exception:  # a configuration that can't be made without arguments
            forced = False
        default = bool(getattr(config, "tie_word_embeddings", False))
        config.tie_word_embeddings = True
        try:
            found = module.get_expanded_tied_weights_keys(all_submodels=False)
        except ValueError as e:
            found, note = {}, str(e)[:200]
        config.tie_word_embeddings = default
        path = paths.get(id(config))
        if forced:
            when = "always"
        elif prefix == "" or not path:
            when = "tied"
        else:
            when = f"{path}={str(default).lower()}"
        head = prefix + "." if prefix else ""
        for target, source in found.items():
            if head + target in state and head + source in state:
                out[head + target] = [head + source, when]
    return out, note


def conversions_again(model):
    """Fresh transforms: they remember what they collected."""
    from transformers.conversion_mapping import get_model_conversion_mapping

    return get_model_conversion_mapping(model, add_legacy=False)


def probe(out_path, only=None, seconds=90):
    """Ask every class, appending to `out_path`; classes that are there already are passed over."""
    import transformers

    transformers.logging.set_verbosity_error()
    done = set()
    if os.path.exists(out_path):
        with open(out_path) as f:
            done = {json.loads(line)["class"] for line in f}

    def late(*_):
        raise Late(f"took more than {seconds} s")

    signal.signal(signal.SIGALRM, late)
    with open(out_path, "a") as f:
        for model_type, name in classes():
            if name in done or (only and name not in only and model_type not in only):
                continue
            signal.alarm(seconds)
            try:
                facts = ask(getattr(transformers, name))
            except Exception as e:
                facts = {
                    "class": name,
                    "model_type": model_type,
                    "error": f"{type(e).__name__}: {e}"[:200],
                }
            finally:
                signal.alarm(0)
            facts["version"] = transformers.__version__
            f.write(json.dumps(facts) + "\n")
            f.flush()
            print(name, facts.get("error", len(facts.get("program", []))), file=sys.stderr)

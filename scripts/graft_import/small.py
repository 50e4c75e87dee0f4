"""Small configurations: a class's default one with short lengths, few layers and few experts, as
far as the class takes them.

Nothing is run forward, so lengths needn't fit each other as they must for a model that computes; a
class that checks them, or whose parts don't fit when built, gets back its own lengths, one group of
fields at a time.
"""

import copy
import math
import re
import time

from .probe import LACKING

# What a field with a larger number becomes, by its name; the first that fits. Groups are given up
# one by one where a class refuses.
FIELDS = [
    ("shared layers", r"num_kv_shared_layers", 0),
    (
        "layers",
        r"num_hidden_layers|num_layers|n_layers?|.*_num_hidden_layers|(en|de)coder_layers|.*_layers_num|depth|num_(en|de)coder_layers|.*num_layers",
        2,
    ),
    (
        "vocabulary",
        r"vocab_size|.*_vocab_size|vocab_size_.*|n_vocab|n_words|ngram_vocab_size_base|entity_vocab_size",
        64,
    ),
    (
        "positions",
        r"max_position_embeddings|n_positions|n_ctx|max_(source|target)_positions|max_2d_position_embeddings|max_seq_len|context_length",
        32,
    ),
    ("groups", r"num_key_value_heads|num_kv_heads|.*_num_key_value_heads|num_key_value_groups", 2),
    (
        "heads",
        r"num_attention_heads|n_heads?|mamba_n_heads|mamba_num_heads|num_heads|.*attention_heads|encoder_attention_heads",
        4,
    ),
    ("head width", r"head_dim|.*_head_dim|d_kv|attention_head_dim", 8),
    ("experts", r"(moe_)?(num|n)_(local_|routed_)?experts", 4),
    (
        "inner width",
        r"intermediate_size|intermediate_size_.*|.*ffn_dim|d_ff|n_inner|ffn_dim|mlp_dim|ffn_hidden_size|dense_intermediate_size",
        48,
    ),
    ("experts", r"num_experts_per_tok|moe_k|moe_topk", 2),
    (
        "inner width",
        r"moe_intermediate_size|.*expert_intermediate_size|shared_.*intermediate_size",
        24,
    ),
    (
        "width",
        r"upsample_groups|condition_dim|base_channels|adapter_(in|out)(put)?_(dim|size)|hidden_size|d_model|n_embd|embed_dim|hidden_dim|dim|.*_hidden_size|.*hidden_dim|model_dim|input_hidden_size|.*embed_dim|out_hidden_size",
        32,
    ),
    (
        "width",
        r"embedding_size|projection_dim|.*_projection_dim|proj_dim|.*_embedding_dim|.*embedding_size",
        16,
    ),
    ("ranks", r".*lora_rank|.*_rank|laurel_rank", 8),
    ("image", r"image_size|img_size|max_img_size|input_size", 16),
    ("image", r"patch_size", 8),
    ("window", r"sliding_window|window_size|chunk_size", 16),
    ("state", r"state_size|ssm_state_size|mamba_d_state|time_step_rank|mamba_dt_rank", 4),
    ("audio", r"num_mel_bins|n_mels", 8),
    ("ranks", r"hidden_size_per_layer_input", 8),
    ("queries", r"num_queries|num_query_tokens", 5),
    ("queries", r"num_position_embeddings|max_num_tiles", 4),
    ("other lengths", r"(?!.*chunk).*(dim|width|channels|features|_size|d_inner)", 32),
    ("other lengths", r"num_filters", 2),
]
# What small configurations need besides, so that a class takes them: model type -> fields.
FITTING = {
    "bamba": {"mamba_n_heads": 4, "mamba_d_head": 16},
    "granitemoehybrid": {"mamba_n_heads": 4, "mamba_d_head": 16},
    "timm_wrapper": {"architecture": "test_vit", "model_args": None},
    "gemma3n_vision": {"architecture": "test_vit", "model_args": None},
    "esm": {"position_embedding_type": "rotary"},  # as ESM-2 is published
    "dots3_note_text": {"num_key_value_heads": 4, "head_dim": 16},
    "ernie4_5_vl_moe_text": {
        "rope_parameters": {
            "rope_theta": 10000.0,
            "rope_type": "default",
            "mrope_section": [1, 1, 2],
        }
    },
    "dory": {  # counted in blocks, of which two are a layer
        "num_hidden_layers": 6,
        "layer_types": ["sliding_attention", "mlp", *["full_attention", "mlp"] * 2],
        "n_input_layers": 2,
        "n_recurrent_layers": 2,
        "n_output_layers": 2,
    },
    "inkling2_text": {"unpadded_vocab_size": 61},
    "inkling2_loop_text": {
        "unpadded_vocab_size": 61,
        "n_layers_per_attn_res_block": 1,
        "loop_layer_index_start": 1,
        "loop_layer_index_end": 3,
    },
    "qwen4_exp_text": {"ple_layer_ids": [1], "split_ngram_parts": 4, "eos_token_id": 2},
}
WIDTHS = re.compile(
    r"(hidden_sizes|embed_dims|conv_dim|.*_channels|.*_hidden_sizes|dims|tdnn_dim|.*channels_list)$"
)
DEPTHS = re.compile(
    r"(depths|num_blocks|layers_per_stage|stage_num_blocks|stage_numb_of_layers|encoder_depths|depth)$"
)
LISTS = ["widths of stages", "depths of stages", "fitting"]
GROUPS = list(dict.fromkeys(group for group, _, _ in FIELDS)) + LISTS
LARGE = 40_000_000  # elements; a larger model isn't worth it


def representative(config, count):
    """Which layers show every kind that the lists with one item per layer tell apart: at least two,
    in their order."""
    lists = [value for value in config.values() if isinstance(value, list) and len(value) == count]
    kinds = {}
    for layer in range(count):
        kinds.setdefault(
            repr(
                [
                    value[layer]
                    for value in lists
                    if not isinstance(value[layer], (int, float)) or isinstance(value[layer], bool)
                ]
            ),
            layer,
        )
    chosen = sorted(kinds.values())[:6]
    chosen += [layer for layer in range(count) if layer not in chosen][: max(0, 2 - len(chosen))]
    return sorted(chosen)


def shrink(config, spared, layers=2):
    """The same configuration, as a dictionary, with every group of fields small that isn't
    spared."""
    config = dict(config)
    for name, value in list(config.items()):
        if isinstance(value, dict) and all(isinstance(key, str) for key in value):
            config[name] = shrink(value, spared, layers)
    for name, value in list(config.items()):
        if (
            isinstance(value, list)
            and value
            and all(isinstance(v, int) and not isinstance(v, bool) for v in value)
        ):
            if "widths of stages" not in spared and WIDTHS.fullmatch(name):
                config[name] = [min(v, 8 * (1 + n // 2)) for n, v in enumerate(value)]
            elif "depths of stages" not in spared and DEPTHS.fullmatch(name):
                config[name] = [1 for _ in value]
            else:
                small = next(
                    (
                        small
                        for group, pattern, small in FIELDS
                        if re.fullmatch(pattern, name) and group not in spared
                    ),
                    None,
                )
                if small is not None:
                    config[name] = [min(v, small) for v in value]
        if isinstance(value, bool) or not isinstance(value, int):
            continue
        for group, pattern, small in FIELDS:
            if re.fullmatch(pattern, name):
                if group == "layers" and value > 1 and group not in spared:
                    lists = [
                        other
                        for other, items in config.items()
                        if isinstance(items, list) and len(items) == value and value > 2
                    ]
                    chosen = representative(config, value) if lists else range(min(value, layers))
                    for other in lists:
                        config[other] = [config[other][layer] for layer in chosen]
                    for other, of in config.items():  # those that say it by the layer's number
                        if isinstance(of, dict) and of and all(str(key).isdigit() for key in of):
                            numbers = {int(key): said for key, said in of.items()}
                            config[other] = {
                                n: numbers[layer]
                                for n, layer in enumerate(chosen)
                                if layer in numbers
                            }
                    small = len(chosen)
                if group not in spared and value > small:
                    config[name] = small
                break
    if "fitting" not in spared:
        config.update(FITTING.get(config.get("model_type"), {}))
    return tokens(config) if "vocabulary" not in spared else config


def equal_groups(config):
    """As many heads of keys as of queries, for classes that want it so."""
    out = {
        name: equal_groups(value) if isinstance(value, dict) else value
        for name, value in config.items()
    }
    for name, value in config.items():
        if isinstance(value, int) and re.fullmatch(r"(.*_)?num_(key_value|kv)_heads", str(name)):
            out[name] = 4
    return out


def tokens(config):
    """Tokens that a vocabulary of 64 has."""
    last = 62
    for name, value in config.items():
        if re.search(r"token_(id|index)$", name) and isinstance(value, int) and value >= 64:
            config[name] = last
            last -= 1
    small = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    return {
        **config,
        **{
            name: value
            for name, value in small.items()
            if isinstance(config.get(name), int) and config[name] >= 64
        },
    }


def lacking(config):
    """A class's own configuration, with what its defaults lack."""
    for name, value in LACKING.get(type(config).model_type, {}).items():
        *path, field = name.split(".")
        inner = config
        for step in path:
            inner = getattr(inner, step)
        setattr(inner, field, value)
    return config


def numel(cls, config):
    """How many elements a model has; an error if it can't be built."""
    import torch
    from transformers.initialization import no_init_weights

    with torch.device("meta"), no_init_weights():
        model = cls(copy.deepcopy(config))
    return sum(math.prod(t.shape) for t in model.state_dict().values())


def tries():
    """Groups of fields that keep their own numbers, from none to all but the counts."""
    yield ()
    yield ("equal groups",)
    yield ("other lengths",)
    yield from ((group,) for group in GROUPS)
    yield from (("other lengths", group) for group in GROUPS)
    yield from (("other lengths", "heads", "groups", group) for group in GROUPS)
    counts = ("layers", "vocabulary", "experts")
    yield tuple(group for group in GROUPS if group not in counts)
    for kept in counts:
        yield tuple(group for group in GROUPS if group != kept)


def small_config(cls, layers=2, seconds=25, always=(), model_type=None):
    """The smallest configuration found that a class takes, of its own model type or of another;
    `always` are groups that are spared in any case."""
    from transformers import CONFIG_MAPPING

    config_class = CONFIG_MAPPING[model_type] if model_type else cls.config_class
    error = None
    until = time.monotonic() + seconds
    base = lacking(config_class()).to_dict()
    best = None
    for number, spared in enumerate(tries()):
        spared = (*spared, *always)
        try:
            said = shrink(base, set(spared), layers)
            config = config_class.from_dict(
                equal_groups(said) if "equal groups" in spared else said
            )
            size = numel(cls, config)
        except Exception as e:  # any class may refuse
            error = error or e
            continue
        if best is None or size < best[0]:
            best = (size, config)
        if size < 2_000_000 or (number > len(GROUPS) or time.monotonic() > until) and size < LARGE:
            break
    if best is None:
        try:  # not even with its own numbers from a dictionary
            config = lacking(config_class())
            best = (numel(cls, config), config)
        except Exception:
            raise error from None
    if best[0] > LARGE:
        raise ValueError(f"{best[0]} elements at least")
    return best[1]

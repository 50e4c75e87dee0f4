"""Llama 4, as Meta has it: one file, and the files of its ranks."""

import json
import os
import tempfile

from . import empty, family, with_bias
from .converters import script

LLAMA4 = {
    "text_config": {
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "hidden_size": 8,
        "num_local_experts": 2,
    },
}
# What the script counts on: 8 ranks, experts 1024 wide in each, and a model 5120 wide.
LLAMA4_WIDTHS = {
    "8, 1024": "RANKS, 2",
    "-1, 1024)": "-1, 2)",
    "reshape(8, -1": "reshape(RANKS, -1",
    "5120": "8",
    "range(8)": "range(RANKS)",
}


def llama4(ranks=1):
    """The tensors of one rank of so many. The first layer has an MLP, the second experts."""
    vision = "vision_embeddings.vision_encoder"
    shapes = {
        "tok_embeddings.weight": [12 // ranks, 8],
        "output.weight": [12 // ranks, 8],
        "norm.weight": [8],
        "vision_projection.weight": [8 // ranks, 4],
        "vision_embeddings.vision_adapter.mlp.c_fc.weight": [4 // ranks, 8],
        "vision_embeddings.vision_adapter.mlp.c_proj.weight": [4, 4 // ranks],
        f"{vision}.conv1._linear.weight": [4 // ranks, 12],
        f"{vision}.class_embedding": [4],
        f"{vision}.positional_embedding_vlm": [5, 4],
        "layers.0.feed_forward.mlp.layer_norm_weight": [8],
        "layers.0.feed_forward.mlp.fc1_weight": [12 // ranks, 8],
        "layers.0.feed_forward.mlp.fc2_weight": [8, 6 // ranks],
        "layers.1.feed_forward.norm.weight": [8],
        "layers.1.feed_forward.router_DE": [8, 2],
        "layers.1.feed_forward.w_in_shared_FD.weight": [4 // ranks, 8],
        "layers.1.feed_forward.w_swiglu_FD.weight": [4 // ranks, 8],
        "layers.1.feed_forward.w_out_shared_DF.weight": [8, 4 // ranks],
        "layers.1.feed_forward.experts.moe_w_in_eD_F": [2 * 8, 2],
        "layers.1.feed_forward.experts.moe_w_swiglu_eD_F": [2 * 8, 2],
        "layers.1.feed_forward.experts.moe_w_out_eF_D": [2 * 2, 8],
    }
    for i in range(2):
        shapes[f"layers.{i}.attention.wqkv.weight"] = [(4 + 2 + 2) * 2 // ranks, 8]
        shapes[f"layers.{i}.attention.wqkv.layer_norm_weight"] = [8]
        shapes[f"layers.{i}.attention.wo.weight"] = [8, 8 // ranks]
    block = f"{vision}.transformer.resblocks.0"
    for x in "qkv":
        shapes.update({f"{block}.attn.w{x}.weight": [4 // ranks, 4]})
        shapes.update({f"{block}.attn.w{x}.bias": [4 // ranks]})
    shapes.update({f"{block}.attn.wo.weight": [4, 4 // ranks], f"{block}.attn.wo.bias": [4]})
    shapes.update({f"{block}.mlp.c_fc.weight": [8 // ranks, 4]})
    shapes.update({f"{block}.mlp.c_fc.bias": [8 // ranks]})
    shapes.update({f"{block}.mlp.c_proj.weight": [4, 8 // ranks], f"{block}.mlp.c_proj.bias": [4]})
    norms = {f"{block}.ln_1": [4], f"{block}.ln_2": [4]}
    norms.update({f"{vision}.ln_pre": [4], f"{vision}.ln_post": [4]})
    return empty({**shapes, **with_bias(norms)})


class Given(Exception):
    """What a script would load into its model."""


class Llama4Model:
    def __init__(self, _):
        pass

    def load_state_dict(self, state_dict, **_):
        raise Given(state_dict)


def convert_llama4(shards):
    def change(text):
        for wide, small in LLAMA4_WIDTHS.items():
            text = text.replace(wide, small.replace("RANKS", str(len(shards))))
        return text.replace('pop("")', 'pop("", None)')

    made = script("llama4", change=change)
    params = {
        "n_layers": 2, "dim": 8, "n_heads": 4, "n_kv_heads": 2, "norm_eps": 1e-5, "ffn_exp": 4,
        "rope_theta": 1e4, "nope_layer_interval": 4, "attention_chunk_size": 8, "multiple_of": 2,
        "use_scaled_rope": False, "use_qk_norm": True, "ffn_dim_multiplier": 1,
        "moe_args": {"num_experts": 2},
        "vision_args": {"dim": 4, "n_layers": 1, "n_heads": 2, "output_dim": 4,
                        "image_size": {"height": 4}},
    }  # fmt: skip
    made.Llama4ForConditionalGeneration = Llama4Model
    loaded = iter(shards)
    made.safe_load = lambda _: next(loaded)
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "params.json"), "w") as f:
            json.dump(params, f)
        try:
            made.write_model(folder, folder, len(shards), True)
        except Given as given:
            return given.args[0]
    raise AssertionError("the script loads nothing")


@family("llama4_meta", layout="meta", config=LLAMA4)
class Llama4:
    source = staticmethod(llama4)

    @staticmethod
    def convert(source):
        return convert_llama4([source])


# What each rank holds whole.
WHOLE = ("layer_norm_weight", "norm.weight", "router_DE", "_embedding", "embedding_vlm", "wo.bias",
         "c_proj.bias")  # fmt: skip


@family("llama4_meta_ranks", layout="ranks", config=LLAMA4, exact=False, told=False)
class Llama4Ranks:
    @staticmethod
    def source():
        return {f"{r}.{key}": tensor for r in range(2) for key, tensor in llama4(2).items()}

    @staticmethod
    def settle(source):
        for key in source:
            if key.endswith(WHOLE) or ".ln_" in key:
                source[key] = source[f"0.{key.split('.', 1)[1]}"].clone()
        return source

    @staticmethod
    def convert(source):
        ranks = [
            {key[2:]: tensor for key, tensor in source.items() if key.startswith(f"{r}.")}
            for r in range(2)
        ]
        return convert_llama4(ranks)

"""Language models."""

from types import SimpleNamespace

from . import empty, family, with_bias
from .converters import script


@family("rwkv_blinkdl", layout="blinkdl")
class Rwkv:
    @staticmethod
    def source():
        linear = {"ln_out": [4], "blocks.0.ln0": [4]}
        shapes = {"emb.weight": [5, 4], "head.weight": [5, 4]}
        for i in range(2):
            linear.update({f"blocks.{i}.ln1": [4], f"blocks.{i}.ln2": [4]})
            for x in ("time_decay", "time_first"):
                shapes[f"blocks.{i}.att.{x}"] = [4]
            for part, mixed in (("att", "kvr"), ("ffn", "kr")):
                for x in mixed:
                    shapes[f"blocks.{i}.{part}.time_mix_{x}"] = [1, 1, 4]
            for x in ("att.key", "att.value", "att.receptance", "att.output", "ffn.receptance"):
                shapes[f"blocks.{i}.{x}.weight"] = [4, 4]
            shapes[f"blocks.{i}.ffn.key.weight"] = [8, 4]
            shapes[f"blocks.{i}.ffn.value.weight"] = [4, 8]
        return empty({**shapes, **with_bias(linear)})

    @staticmethod
    def convert(source):
        return script("rwkv").convert_state_dict(source)


PIXTRAL = {
    "text_config": {"num_attention_heads": 4, "num_key_value_heads": 2},
    "vision_config": {"num_attention_heads": 2},
}


def llama_names(prefix, width, heads, kv, head, norms):
    """The names of Meta's Llama, which Mistral's models have too."""
    shapes = {}
    for i in range(2):
        layer = f"{prefix}layers.{i}"
        for x, rows in (("wq", heads * head), ("wk", kv * head), ("wv", kv * head)):
            shapes[f"{layer}.attention.{x}.weight"] = [rows, width]
        shapes[f"{layer}.attention.wo.weight"] = [width, heads * head]
        for w, shape in {"w1": [6, width], "w2": [width, 6], "w3": [6, width]}.items():
            shapes[f"{layer}.feed_forward.{w}.weight"] = shape
        shapes.update({f"{layer}.{norm}.weight": [width] for norm in norms})
    return shapes


@family("pixtral_mistral", layout="mistral", config=PIXTRAL)
class Pixtral:
    @staticmethod
    def source():
        norms = ("attention_norm", "ffn_norm")
        shapes = {
            **llama_names("vision_encoder.transformer.", 4, 2, 2, 4, norms),
            **llama_names("", 8, 4, 2, 4, norms),
            **with_bias(
                {"vision_language_adapter.w_in": [8, 4], "vision_language_adapter.w_out": [8, 8]}
            ),
            "vision_encoder.patch_conv.weight": [4, 3, 2, 2],
            "vision_encoder.ln_pre.weight": [4],
            "tok_embeddings.weight": [5, 8],
            "norm.weight": [8],
            "output.weight": [5, 8],
        }
        return empty(shapes)

    @staticmethod
    def convert(source):
        vision = SimpleNamespace(num_attention_heads=2, hidden_size=4)
        text = SimpleNamespace(num_attention_heads=4, num_key_value_heads=2, hidden_size=8)
        return script("pixtral").convert_dictionary(source, vision, text)

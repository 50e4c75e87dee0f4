"""Language models."""

import os
import tempfile
from types import SimpleNamespace

import torch
from safetensors.torch import load_file

from . import empty, family, with_bias
from .converters import script
from .packages import saved


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


GEMMA = {
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "hidden_size": 8,
    "head_dim": 4,
    "intermediate_size": 6,
    "vocab_size": 10,
}


def gemma(kv, norms):
    """The shapes of gemma_pytorch, its heads wider than what they come from."""
    shapes = {"embedder.weight": [10, 8], "model.norm.weight": [8]}
    for i in range(2):
        layer = f"model.layers.{i}"
        shapes[f"{layer}.self_attn.qkv_proj.weight"] = [(4 + 2 * kv) * 4, 8]
        shapes[f"{layer}.self_attn.o_proj.weight"] = [8, 16]
        for x, shape in (("gate", [6, 8]), ("up", [6, 8]), ("down", [8, 6])):
            shapes[f"{layer}.mlp.{x}_proj.weight"] = shape
        shapes.update({f"{layer}.{norm}_layernorm.weight": [8] for norm in norms})
    return shapes


def written(family, config, files):
    """What a script of Gemma's saves of what files hold."""
    with tempfile.TemporaryDirectory() as folder:
        for name, held in files.items():
            torch.save(held, os.path.join(folder, name))
        only = [name for name in files if name.endswith(".ckpt")]
        script(family).write_model(
            save_path=os.path.join(folder, "saved"),
            input_base_path=os.path.join(folder, *only),
            config=config,
        )
        return load_file(os.path.join(folder, "saved", "model.safetensors"))


@family(
    "gemma_pytorch",
    layout="google",
    exact=False,
    config={**GEMMA, "num_key_value_heads": 1},
)
class Gemma:
    @staticmethod
    def source():
        turns = torch.polar(torch.ones(4, 2), torch.arange(8.0).reshape(4, 2))
        return {**empty(gemma(1, ("input", "post_attention"))), "freqs_cis": turns}

    @staticmethod
    def convert(source):
        from transformers import GemmaConfig

        config = GemmaConfig(**GEMMA, num_key_value_heads=1)
        return written("gemma", config, {"gemma.ckpt": {"model_state_dict": source}})


@family(
    "gemma_pytorch_2",
    layout="google",
    rules="gemma_pytorch",
    config={**GEMMA, "num_key_value_heads": 2},
)
class Gemma2:
    """In shards, as the largest one comes, without what `exact` would miss."""

    @staticmethod
    def source():
        norms = ("input", "post_attention", "pre_feedforward", "post_feedforward")
        return empty(gemma(2, norms))

    @staticmethod
    def convert(source):
        from transformers import Gemma2Config

        config = Gemma2Config(**GEMMA, num_key_value_heads=2)
        shards = {
            f"model-{i}.bin": {key: source[key] for key in sorted(source)[i::2]} for i in range(2)
        }
        return written("gemma2", config, shards)


PHI = {
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "hidden_size": 8,
    "intermediate_size": 6,
    "vocab_size": 10,
}


def phi(first, layer, last):
    """The shapes of Phi: the embedding, `layer` by the number of a block, and the head."""
    linear = {f"{last}.ln": [8], f"{last}.linear": [10, 8]}
    for i in range(2):
        block = layer.format(i, i + 1)
        linear.update(
            {
                f"{block}.ln": [8],
                f"{block}.mixer.Wqkv": [24, 8],
                f"{block}.mixer.out_proj": [8, 8],
                f"{block}.mlp.fc1": [6, 8],
                f"{block}.mlp.fc2": [8, 6],
            }
        )
    return {f"{first}.wte.weight": [10, 8], **with_bias(linear)}


def phi_parted(names, source):
    """What transformers saves of what a script of Phi's made."""
    from transformers import PhiConfig, PhiForCausalLM

    config = PhiConfig(**PHI)
    made = {}
    for key, tensor in names.convert_weights(source, names.PHI_MAPPING, config).items():
        before, found, leaf = key.partition(".query_key_value.")
        if not found:
            made[key] = tensor
            continue
        # PhiAttention of 4.36 parts each head so, that of 4.37 has the parts.
        heads = tensor.view(config.num_attention_heads, 3, -1, *tensor.shape[1:])
        for i, x in enumerate("qkv"):
            made[f"{before}.{x}_proj.{leaf}"] = heads[:, i].reshape(-1, *tensor.shape[1:])
    model = PhiForCausalLM(config)
    model.load_state_dict(made)
    return saved(model)


@family("phi_microsoft", layout="microsoft", config={"model_type": "phi", **PHI})
class Phi:
    """By the script of transformers 4.36, of which `phi_4_36` is the folder: later ones don't know
    these names."""

    @staticmethod
    def source():
        return empty(phi("layers.0", "layers.{1}", "layers.3"))

    @staticmethod
    def convert(source):
        def tiny(text):
            return text.replace('"layers.25.', '"layers.3.')

        return phi_parted(script("phi_4_36", change=tiny), source)


@family(
    "phi_microsoft_2",
    layout="microsoft",
    exact=False,
    rules="phi_microsoft",
    config={"model_type": "phi", **PHI},
)
class Phi2:
    @staticmethod
    def source():
        shapes = phi("transformer.embd", "transformer.h.{0}", "lm_head")
        turns = {f"transformer.h.{i}.mixer.rotary_emb.inv_freq": [1] for i in range(2)}
        return empty({**shapes, **turns})

    @staticmethod
    def convert(source):
        return phi_parted(script("phi"), source)

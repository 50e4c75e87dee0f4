"""Language models in the files of ranks: BLOOM and GPT-NeoX of DeepSpeed's pipelines, one for each
layer and rank, and DeepSeek-V3 of its inference code. The keys of a file stand below the numbers in
its name, the rank first.

The converters of GPT-NeoX and DeepSeek-V3 are their own: put checkouts of gpt-neox and DeepSeek-V3
on PYTHONPATH.
"""

import json
import os
import tempfile
from types import SimpleNamespace

import torch
from safetensors.torch import load_file, save_file

from . import empty, family, with_bias
from .converters import script
from .training import module

WIDTH, HEADS, LAYERS, VOCAB = 8, 2, 2, 10


def files(source):
    """The tensors of each file, by its rank and its layer."""
    made = {}
    for key, tensor in source.items():
        rank, layer, key = key.split(".", 2)
        made.setdefault((int(rank), int(layer)), {})[key] = tensor
    return made


def ranks(source, count):
    """The same keys in each rank."""
    return {f"{r}.{key}": tensor.clone() for r in range(count) for key, tensor in source.items()}


def block(attention, count):
    """The keys of a layer, of which one of so many ranks has its part."""
    wide = 4 * WIDTH
    return with_bias(
        {
            "input_layernorm": [WIDTH],
            "post_attention_layernorm": [WIDTH],
            f"{attention}.query_key_value": [3 * WIDTH // count, WIDTH],
            f"{attention}.dense": [WIDTH, WIDTH // count],
            "mlp.dense_h_to_4h": [wide // count, WIDTH],
            "mlp.dense_4h_to_h": [WIDTH, wide // count],
        }
    )


def bloom(count):
    shapes = {"1.word_embeddings.weight": [VOCAB // count, WIDTH]}
    shapes.update(with_bias({"1.word_embeddings.norm": [WIDTH]}))
    for i in range(LAYERS):
        layer = block("self_attention", count)
        shapes.update({f"{i + 3}.{key}": shape for key, shape in layer.items()})
    last = LAYERS + 4
    shapes.update({f"{last}.weight": [WIDTH], f"{last}.bias": [WIDTH]})
    return ranks(empty(shapes), count)


@family("bloom_megatron", layout="ranks", exact=False, told=False)
class Bloom:
    @staticmethod
    def source():
        return bloom(2)

    @staticmethod
    def convert(source):
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as out:
            for (rank, layer), tensors in files(source).items():
                name = f"layer_{layer:02}-model_{rank:02}-model_states.pt"
                torch.save(tensors, os.path.join(folder, name))
            made = script("bloom")
            made.convert_bloom_checkpoint_to_pytorch(folder, "", out, True, 2)
            parts = sorted(name for name in os.listdir(out) if name.endswith(".bin"))
            tensors = {}
            for part in parts:
                tensors.update(torch.load(os.path.join(out, part), weights_only=True))
            return tensors


def neox(count):
    shapes = {"0.word_embeddings.weight": [VOCAB // count, WIDTH]}
    for i in range(LAYERS):
        layer = block("attention", count)
        shapes.update({f"{i + 2}.{key}": shape for key, shape in layer.items()})
        shapes[f"{i + 2}.attention.rotary_emb.inv_freq"] = [WIDTH // HEADS // 2]
    shapes.update(with_bias({f"{LAYERS + 3}.norm": [WIDTH]}))
    shapes[f"{LAYERS + 4}.final_linear.weight"] = [VOCAB // count, WIDTH]
    return ranks(empty(shapes), count)


def convert_neox(source, count, whole):
    """What gpt-neox's own script makes of the files of so many ranks."""
    # transformers calls the head otherwise since its version 5, and writes it as before.
    change = lambda text: text.replace("hf_model.embed_out", "hf_model.lm_head")  # noqa: E731
    made = module("tools.ckpts.convert_neox_to_hf", change)

    def tokenizer(args):
        args.padded_vocab_size = VOCAB
        return SimpleNamespace(pad=1)

    made.build_tokenizer = tokenizer
    config = {
        "hidden-size": WIDTH,
        "num-layers": LAYERS,
        "num-attention-heads": HEADS,
        "max-position-embeddings": 16,
        "model-parallel-size": count,
        "no-weight-tying": True,
    }
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as out:
        held = {}
        for (rank, layer), tensors in files(source).items():
            name = f"layer_{layer:02}-model_{rank:02}-model_states.pt"
            torch.save(tensors, os.path.join(folder, name))
            below = {f"sequential.{layer}.{key}": tensor for key, tensor in tensors.items()}
            held.setdefault(rank, {}).update(below)
        for rank, tensors in held.items():
            name = f"mp_rank_{rank:02}_model_states.pt"
            torch.save({"module": tensors}, os.path.join(folder, name))
        model = made.convert(folder, config, out, sequential=whole, precision="fp32")
        model.save_pretrained(out)
        with open(os.path.join(out, "config.json")) as f:
            assert json.load(f)["model_type"] == "gpt_neox"
        return load_file(os.path.join(out, "model.safetensors"))


@family("gpt_neox_megatron", layout="ranks", exact=False, told=False)
class NeoX:
    @staticmethod
    def source():
        return neox(2)

    @staticmethod
    def convert(source):
        return convert_neox(source, 2, False)


@family("gpt_neox_megatron_one", layout="ranks", rules="gpt_neox_megatron", exact=False, told=False)
class NeoXOne:
    @staticmethod
    def source():
        return neox(1)

    @staticmethod
    def convert(source):
        return convert_neox(source, 1, False)


@family("gpt_neox_megatron_whole", layout="ranks", exact=False, told=False)
class NeoXWhole:
    @staticmethod
    def source():
        def below(key):
            rank, key = key.split(".", 1)
            return f"{rank}.sequential.{key}"

        return {below(key): tensor for key, tensor in neox(2).items()}

    @staticmethod
    def convert(source):
        plain = {key.replace(".sequential", "", 1): tensor for key, tensor in source.items()}
        return convert_neox(plain, 2, True)


EXPERTS = 4


def deepseek_hub():
    """A tiny DeepSeek-V3 as it's published, whose last layer predicts several tokens."""

    def quantized(key, rows, columns):
        scales = [rows // 2, columns // 2]
        return {f"{key}.weight": [rows, columns], f"{key}.weight_scale_inv": scales}

    def mlp(key, width):
        return {
            **quantized(f"{key}.gate_proj", width, WIDTH),
            **quantized(f"{key}.up_proj", width, WIDTH),
            **quantized(f"{key}.down_proj", WIDTH, width),
        }

    shapes = {"model.embed_tokens.weight": [VOCAB, WIDTH], "model.norm.weight": [WIDTH]}
    shapes["lm_head.weight"] = [VOCAB, WIDTH]
    for i in range(LAYERS + 1):
        layer, attention = f"model.layers.{i}", f"model.layers.{i}.self_attn"
        norms = ("input", "post_attention", "self_attn.q_a", "self_attn.kv_a")
        shapes.update({f"{layer}.{norm}_layernorm.weight": [WIDTH] for norm in norms})
        for x, rows, columns in (
            ("q_a_proj", 4, WIDTH),
            ("q_b_proj", 8, 4),
            ("kv_a_proj_with_mqa", 4, WIDTH),
            ("kv_b_proj", 8, 4),
            ("o_proj", WIDTH, 8),
        ):
            shapes.update(quantized(f"{attention}.{x}", rows, columns))
        if i == 0:
            shapes.update(mlp(f"{layer}.mlp", 12))
            continue
        shapes[f"{layer}.mlp.gate.weight"] = [EXPERTS, WIDTH]
        shapes[f"{layer}.mlp.gate.e_score_correction_bias"] = [EXPERTS]
        for expert in ("shared_experts", *(f"experts.{e}" for e in range(EXPERTS))):
            shapes.update(mlp(f"{layer}.mlp.{expert}", 4))
    shapes[f"model.layers.{LAYERS}.eh_proj.weight"] = [WIDTH, 2 * WIDTH]
    generator = torch.Generator().manual_seed(len(shapes))
    return {key: torch.rand(shape, generator=generator) for key, shape in shapes.items()}


def deepseek_ranks(count):
    """What DeepSeek's own script makes of it: the tensors of each rank."""
    change = lambda text: text.replace("model.layers.61", f"model.layers.{LAYERS}")  # noqa: E731
    made = module("inference.convert", change)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as out:
        save_file(deepseek_hub(), os.path.join(folder, "model.safetensors"))
        made.main(folder, out, EXPERTS, count)
        name = f"model{{}}-mp{count}.safetensors"
        return [load_file(os.path.join(out, name.format(rank))) for rank in range(count)]


def deepseek_kept():
    last = f"model.layers.{LAYERS}."
    return {key: value for key, value in deepseek_hub().items() if not key.startswith(last)}


@family("deepseek_v3_inference", layout="inference")
class DeepSeek:
    @staticmethod
    def source():
        return deepseek_ranks(1)[0]

    @staticmethod
    def settle(source):
        # The script leads from the published names: values are those that it was given.
        return DeepSeek.source()

    @staticmethod
    def convert(source):
        return deepseek_kept()


@family("deepseek_v3_inference_ranks", layout="ranks", exact=False, told=False)
class DeepSeekRanks:
    @staticmethod
    def source():
        ranks = enumerate(deepseek_ranks(2))
        return {f"{rank}.2.{key}": value for rank, held in ranks for key, value in held.items()}

    @staticmethod
    def settle(source):
        return DeepSeekRanks.source()

    @staticmethod
    def convert(source):
        return deepseek_kept()

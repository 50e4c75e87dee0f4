"""Language models under the names of what trains them: torchtune, LitGPT, torchtitan, Megatron
Core, nanoGPT.

Their own converters do the conversion; put checkouts of them on PYTHONPATH. They are imported
without what their packages ask for beside.
"""

import importlib
import os
import re
import sys
import types
from types import SimpleNamespace

import torch

from . import empty, family, with_bias
from .converters import lenient

HEADS, KV, HEAD, WIDTH, WIDE, VOCAB, EXPERTS = 4, 2, 4, 16, 24, 10, 2
CONFIG = {
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV,
    "hidden_size": WIDTH,
    "vocab_size": VOCAB,
}


def module(name, change=None):
    """A module of a package on PYTHONPATH, by its file: nothing else of the package runs. `change`
    is that of `lenient`."""
    path = os.path.join(*name.split(".")) + ".py"
    found = (os.path.join(folder, path) for folder in sys.path)
    path = next(file for file in found if os.path.exists(file))
    return lenient(path, change)


def standing(modules, name):
    """A module, where some of those that it imports have only these names."""
    stand_ins = {}
    for path, names in modules.items():
        *packages, _ = path.split(".")
        for count in range(1, len(packages) + 1):
            package = ".".join(packages[:count])
            stand_ins[package] = types.ModuleType(package)
            stand_ins[package].__path__ = []
        stand_ins[path] = types.ModuleType(path)
        vars(stand_ins[path]).update(names)
    # What else is imported meanwhile stays: some modules can't be imported twice.
    real = {path: sys.modules[path] for path in stand_ins if path in sys.modules}
    sys.modules.update(stand_ins)
    try:
        return module(name)
    finally:
        for path in stand_ins:
            del sys.modules[path]
        sys.modules.update(real)


def attention(key, names, norms=False, biases=False):
    """A layer's projections by the names of q, k, v and o, and what else it has."""
    shapes = {}
    rows = (HEADS * HEAD, KV * HEAD, KV * HEAD)
    for name, count in zip(names, rows):
        shapes[f"{key}.{name}.weight"] = [count, WIDTH]
        if biases:
            shapes[f"{key}.{name}.bias"] = [count]
    shapes[f"{key}.{names[3]}.weight"] = [WIDTH, HEADS * HEAD]
    for name in norms or ():
        shapes[f"{key}.{name}"] = [HEAD]
    return shapes


def feed_forward(key, names):
    """Gate, up and down."""
    gate, up, down = names
    return {
        f"{key}.{gate}": [WIDE, WIDTH],
        f"{key}.{up}": [WIDE, WIDTH],
        f"{key}.{down}": [WIDTH, WIDE],
    }


def tune(norms=False, biases=False):
    """A model of torchtune."""
    shapes = {"tok_embeddings.weight": [VOCAB, WIDTH], "output.weight": [VOCAB, WIDTH]}
    shapes["norm.scale"] = [WIDTH]
    names = ("q_proj", "k_proj", "v_proj", "output_proj")
    for layer in (f"layers.{i}" for i in range(2)):
        own = ("q_norm.scale", "k_norm.scale") if norms else ()
        shapes.update(attention(f"{layer}.attn", names, own, biases))
        shapes.update(feed_forward(f"{layer}.mlp", ("w1.weight", "w3.weight", "w2.weight")))
        shapes.update({f"{layer}.{norm}.scale": [WIDTH] for norm in ("sa_norm", "mlp_norm")})
    return empty(shapes)


def tune_to_hub(name, function, source):
    converter = module(f"torchtune.models.{name}")
    if "get_mapped_key" in vars(converter):
        converter.get_mapped_key = module("torchtune.models.convert_weights").get_mapped_key
    return getattr(converter, function)(source, HEADS, KV, WIDTH, HEAD)


@family("llama_torchtune", layout="torchtune", config={**CONFIG, "model_type": "llama"})
class LlamaTune:
    source = staticmethod(tune)

    @staticmethod
    def convert(source):
        return tune_to_hub("convert_weights", "tune_to_hf", source)


@family("qwen_torchtune", layout="torchtune", config={**CONFIG, "model_type": "qwen2"})
class Qwen2Tune:
    @staticmethod
    def source():
        return tune(biases=True)

    @staticmethod
    def convert(source):
        return tune_to_hub("qwen2._convert_weights", "qwen2_tune_to_hf", source)


@family(
    "qwen3_torchtune",
    rules="qwen_torchtune",
    layout="torchtune",
    config={**CONFIG, "model_type": "qwen3"},
)
class Qwen3Tune:
    @staticmethod
    def source():
        return tune(norms=True)

    @staticmethod
    def convert(source):
        return tune_to_hub("qwen3._convert_weights", "qwen3_tune_to_hf", source)


def lit(experts=False, norms=False, biases=False):
    """A model of LitGPT's."""
    shapes = {"transformer.wte.weight": [VOCAB, WIDTH], "lm_head.weight": [VOCAB, WIDTH]}
    shapes["transformer.ln_f.weight"] = [WIDTH]
    names = ("fc_1.weight", "fc_2.weight", "proj.weight")
    for layer in (f"transformer.h.{i}" for i in range(2)):
        rows = (HEADS + 2 * KV) * HEAD
        shapes[f"{layer}.attn.qkv.weight"] = [rows, WIDTH]
        if biases:
            shapes[f"{layer}.attn.qkv.bias"] = [rows]
        shapes[f"{layer}.attn.proj.weight"] = [WIDTH, HEADS * HEAD]
        shapes.update({f"{layer}.norm_{n}.weight": [WIDTH] for n in (1, 2)})
        if norms:
            shapes.update({f"{layer}.attn.norm_{x}.weight": [HEAD] for x in "qk"})
        if experts:
            shapes[f"{layer}.mlp.gate.weight"] = [EXPERTS, WIDTH]
            for e in range(EXPERTS):
                shapes.update(feed_forward(f"{layer}.mlp.experts.{e}", names))
        else:
            shapes.update(feed_forward(f"{layer}.mlp", names))
    return empty(shapes)


def lit_to_hub(function, source, kind="LLaMAMLP", groups=KV):
    script = module("litgpt.scripts.convert_lit_checkpoint")
    helpers = module("litgpt.scripts.convert_hf_checkpoint")
    script.layer_template, script.load_param = helpers.layer_template, lambda param, *_: param
    config = SimpleNamespace(
        name="tiny", mlp_class_name=kind, n_head=HEADS, n_query_groups=groups, head_size=HEAD
    )
    made = {}
    getattr(script, function)(config, made, source)
    return made


def lit_family(name, function, kind="LLaMAMLP", **has):
    """One of the families that a rule file of LitGPT's is for."""

    @family(
        f"{name}_litgpt",
        rules="llama_litgpt",
        layout="litgpt",
        config={**CONFIG, "model_type": name},
    )
    class Lit:
        @staticmethod
        def source():
            return lit(**has)

        @staticmethod
        def convert(source):
            return lit_to_hub(function, source, kind)

    return Lit


lit_family("llama", "copy_weights_llama")
lit_family("mixtral", "copy_weights_llama", "LLaMAMoE", experts=True)
lit_family("qwen2", "copy_weights_qwen_2_5", biases=True)
lit_family("qwen3", "copy_weights_qwen_3", norms=True)
lit_family("qwen3_moe", "copy_weights_qwen_3", "LLaMAMoE", experts=True, norms=True)


@family(
    "gpt_neox_litgpt",
    layout="litgpt",
    config={"num_attention_heads": HEADS, "model_type": "gpt_neox"},
)
class NeoxLit:
    @staticmethod
    def source():
        shapes = {"transformer.ln_f": [WIDTH]}
        for layer in (f"transformer.h.{i}" for i in range(2)):
            shapes.update({f"{layer}.norm_{n}": [WIDTH] for n in (1, 2)})
            shapes[f"{layer}.attn.qkv"] = [3 * HEADS * HEAD, WIDTH]
            shapes[f"{layer}.attn.proj"] = [WIDTH, HEADS * HEAD]
            shapes[f"{layer}.mlp.fc"] = [WIDE, WIDTH]
            shapes[f"{layer}.mlp.proj"] = [WIDTH, WIDE]
        heads = {"transformer.wte.weight": [VOCAB, WIDTH], "lm_head.weight": [VOCAB, WIDTH]}
        return empty({**with_bias(shapes), **heads})

    @staticmethod
    def convert(source):
        return lit_to_hub("copy_weights_gpt_neox", source, groups=HEADS)


def titan(norms=False, experts=False):
    """A model of torchtitan's."""
    shapes = {"tok_embeddings.weight": [VOCAB, WIDTH], "lm_head.weight": [VOCAB, WIDTH]}
    shapes["norm.weight"] = [WIDTH]
    names = ("qkv_linear.wq", "qkv_linear.wk", "qkv_linear.wv", "wo")
    for layer in (f"layers.{i}" for i in range(2)):
        own = ("q_norm.weight", "k_norm.weight") if norms else ()
        shapes.update(attention(f"{layer}.attention", names, own))
        shapes.update({f"{layer}.{x}_norm.weight": [WIDTH] for x in ("attention", "ffn")})
        if experts:
            inner = f"{layer}.moe.routed_experts.inner_experts"
            shapes[f"{layer}.moe.router.gate.weight"] = [EXPERTS, WIDTH]
            for w, shape in (("w1_EFD", [WIDE, WIDTH]), ("w3_EFD", [WIDE, WIDTH])):
                shapes[f"{inner}.{w}"] = [EXPERTS, *shape]
            shapes[f"{inner}.w2_EDF"] = [EXPERTS, WIDTH, WIDE]
        else:
            names_of = ("w1.weight", "w3.weight", "w2.weight")
            shapes.update(feed_forward(f"{layer}.feed_forward", names_of))
    return empty(shapes)


class Adapter:
    """What torchtitan's adapters ask of their base class, for a model that is in one piece."""

    def __init__(self, model_config, _):
        self.model_config = model_config
        self.fqn_to_index_mapping = None

    def _split_experts_weights(self, weight, experts):
        return list(torch.split(weight, weight.shape[0] // experts, dim=0))


def titan_to_hub(name, adapter, source):
    bases = {
        "torchtitan.protocols.state_dict_adapter": {"StateDictAdapter": Adapter},
        "torchtitan.models.utils": {"MoEStateDictAdapter": Adapter},
    }
    script = standing(bases, f"torchtitan.models.{name}.state_dict_adapter")
    attention = SimpleNamespace(n_heads=HEADS, n_kv_heads=KV, head_dim=HEAD)
    layer = SimpleNamespace(attention=attention, moe=SimpleNamespace(num_experts=EXPERTS))
    config = SimpleNamespace(layers=[layer], dim=WIDTH, enable_weight_tying=False)
    return getattr(script, adapter)(config, None).to_hf(source)


@family("llama_torchtitan", layout="torchtitan", config={**CONFIG, "model_type": "llama"})
class LlamaTitan:
    source = staticmethod(titan)

    @staticmethod
    def convert(source):
        return titan_to_hub("llama3", "Llama3StateDictAdapter", source)


@family("qwen3_torchtitan", layout="torchtitan", config={**CONFIG, "model_type": "qwen3"})
class Qwen3Titan:
    @staticmethod
    def source():
        return titan(norms=True)

    @staticmethod
    def convert(source):
        return titan_to_hub("qwen3", "Qwen3StateDictAdapter", source)


@family(
    "qwen3_moe_torchtitan",
    rules="qwen3_torchtitan",
    layout="torchtitan",
    config={**CONFIG, "model_type": "qwen3_moe", "num_experts": EXPERTS},
)
class Qwen3MoeTitan:
    @staticmethod
    def source():
        return titan(norms=True, experts=True)

    @staticmethod
    def convert(source):
        return titan_to_hub("qwen3", "Qwen3StateDictAdapter", source)


DEEPSEEK = {"model_type": "deepseek_v3", "n_routed_experts": EXPERTS, "num_hidden_layers": 2}


def deepseek(low_rank):
    """A model of torchtitan's DeepSeek V3: a layer with an MLP, one with experts, and one that
    predicts a further token."""
    shapes = {"tok_embeddings.weight": [VOCAB, WIDTH], "lm_head.weight": [VOCAB, WIDTH]}
    shapes["norm.weight"] = [WIDTH]
    queries = (
        {"wq_a": [4, WIDTH], "q_norm": [4], "wq_b": [24, 4]} if low_rank else {"wq": [24, WIDTH]}
    )
    kinds = {"layers.0": False, "layers.1": True, "mtp_layers.0": True}
    for layer, experts in kinds.items():
        own = {**queries, "wkv_a": [6, WIDTH], "kv_norm": [4], "wkv_b": [24, 4], "wo": [WIDTH, 12]}
        shapes.update({f"{layer}.attention.{x}.weight": shape for x, shape in own.items()})
        shapes.update({f"{layer}.{x}_norm.weight": [WIDTH] for x in ("attention", "ffn")})
        weights = ("w1.weight", "w3.weight", "w2.weight")
        if not experts:
            shapes.update(feed_forward(f"{layer}.feed_forward", weights))
            continue
        inner = f"{layer}.moe.routed_experts.inner_experts"
        shapes.update(
            {
                f"{layer}.moe.router.gate.weight": [EXPERTS, WIDTH],
                f"{layer}.moe.expert_bias_E": [EXPERTS],
                f"{inner}.w1_EFD": [EXPERTS, WIDE, WIDTH],
                f"{inner}.w3_EFD": [EXPERTS, WIDE, WIDTH],
                f"{inner}.w2_EDF": [EXPERTS, WIDTH, WIDE],
            }
        )
        shapes.update(feed_forward(f"{layer}.moe.shared_experts", weights))
    shapes.update({f"mtp_layers.0.{x}.weight": [WIDTH] for x in ("enorm", "hnorm", "mtp_norm")})
    shapes["mtp_layers.0.eh_proj.weight"] = [WIDTH, 2 * WIDTH]
    return empty(shapes)


def titan_adapter(name, adapter, config):
    """An adapter of torchtitan's for a model with this config."""
    bases = {
        "torchtitan.models.common.rope": {"ComplexRoPE": None, "CosSinRoPE": None},
        "torchtitan.models.utils": {"MoEStateDictAdapter": Adapter},
    }
    script = standing(bases, f"torchtitan.models.{name}.state_dict_adapter")
    return getattr(script, adapter)(config, None)


def deepseek_family(name, low_rank):
    @family(name, rules="deepseek_v3_torchtitan", layout="torchtitan", config=DEEPSEEK)
    class DeepSeekTitan:
        @staticmethod
        def source():
            return deepseek(low_rank)

        @staticmethod
        def convert(source):
            attention = SimpleNamespace(q_lora_rank=4 if low_rank else 0)
            plain = SimpleNamespace(attention=attention, moe=None)
            moe = SimpleNamespace(num_experts=EXPERTS)
            layers = [plain, SimpleNamespace(attention=attention, moe=moe)]
            config = SimpleNamespace(layers=layers, mtp_layers=layers[1:])
            adapter = titan_adapter("deepseek_v3", "DeepSeekV3StateDictAdapter", config)
            return adapter.to_hf(source)

    return DeepSeekTitan


deepseek_family("deepseek_v3_torchtitan", low_rank=True)
deepseek_family("deepseek_v3_torchtitan_whole", low_rank=False)


@family("gpt_oss_torchtitan", layout="torchtitan", config={"model_type": "gpt_oss"})
class GptOssTitan:
    @staticmethod
    def source():
        shapes = {"tok_embeddings.weight": [VOCAB, WIDTH], "lm_head.weight": [VOCAB, WIDTH]}
        shapes["norm.weight"] = [WIDTH]
        for layer in (f"layers.{i}" for i in range(2)):
            rows = {"wq": HEADS * HEAD, "wk": KV * HEAD, "wv": KV * HEAD}
            own = {f"qkv_linear.{x}": [count, WIDTH] for x, count in rows.items()}
            own["wo"] = [WIDTH, HEADS * HEAD]
            shapes.update(with_bias({f"{layer}.attention.{x}": own[x] for x in own}))
            shapes.update(with_bias({f"{layer}.moe.router.gate": [EXPERTS, WIDTH]}))
            shapes.update({f"{layer}.{x}_norm.weight": [WIDTH] for x in ("attention", "ffn")})
            shapes[f"{layer}.attention.sinks"] = [HEADS]
            inner = f"{layer}.moe.routed_experts.inner_experts"
            shapes[f"{inner}.mlp1_weight"] = [EXPERTS, 2 * WIDE, WIDTH]
            shapes[f"{inner}.mlp1_bias"] = [EXPERTS, 2 * WIDE]
            shapes[f"{inner}.mlp2_weight"] = [EXPERTS, WIDTH, WIDE]
            shapes[f"{inner}.mlp2_bias"] = [EXPERTS, WIDTH]
        return empty(shapes)

    @staticmethod
    def convert(source):
        return titan_adapter("gpt_oss", "GptOssStateDictAdapter", None).to_hf(source)


def core(norms=False, biases=False, experts=None):
    """A model of Megatron Core's, its layers Transformer Engine's. `experts` says how those of a
    layer are named."""
    shapes = {"embedding.word_embeddings.weight": [VOCAB, WIDTH]}
    shapes["output_layer.weight"] = [VOCAB, WIDTH]
    shapes["decoder.final_layernorm.weight"] = [WIDTH]
    for layer in (f"decoder.layers.{i}" for i in range(2)):
        own, rows = f"{layer}.self_attention", (HEADS + 2 * KV) * HEAD
        shapes[f"{own}.linear_qkv.weight"] = [rows, WIDTH]
        if biases:
            shapes[f"{own}.linear_qkv.bias"] = [rows]
        if norms:
            shapes.update({f"{own}.{x}_layernorm.weight": [HEAD] for x in "qk"})
        shapes[f"{own}.linear_qkv.layer_norm_weight"] = [WIDTH]
        shapes[f"{own}.linear_proj.weight"] = [WIDTH, HEADS * HEAD]
        if experts:
            shapes[f"{layer}.mlp.router.weight"] = [EXPERTS, WIDTH]
            shapes[f"{layer}.pre_mlp_layernorm.weight"] = [WIDTH]
            for e in range(EXPERTS):
                shapes[f"{layer}.mlp.experts.{experts.format(fc=1, e=e)}"] = [2 * WIDE, WIDTH]
                shapes[f"{layer}.mlp.experts.{experts.format(fc=2, e=e)}"] = [WIDTH, WIDE]
        else:
            shapes[f"{layer}.mlp.linear_fc1.layer_norm_weight"] = [WIDTH]
            shapes[f"{layer}.mlp.linear_fc1.weight"] = [2 * WIDE, WIDTH]
            shapes[f"{layer}.mlp.linear_fc2.weight"] = [WIDTH, WIDE]
    return empty(shapes)


class Bridge:
    """What a bridge asks of its base class, to list its mappings."""

    @staticmethod
    def register_bridge(**_):
        return lambda bridge: bridge


def listed(kind):
    """A mapping of a bridge, as it is listed: its kind and its names."""
    return lambda **names: (kind, names)


def core_to_hub(bridge, file, source):
    """By the mappings that the bridge lists, and the module's own split of q, k and v."""
    made = {}
    conversion = "megatron.bridge.models.conversion"
    kinds = ("AutoMapping", "QKVMapping", "GatedMLPMapping")
    bases = {
        f"{conversion}.model_bridge": {"MegatronModelBridge": Bridge},
        f"{conversion}.mapping_registry": {"MegatronMappingRegistry": lambda *listed: listed},
        f"{conversion}.param_mapping": {kind: listed(kind) for kind in kinds},
    }
    script = standing(bases, f"megatron.bridge.models.{file}")
    mapping = module(f"{conversion}.param_mapping")
    config = SimpleNamespace(
        num_attention_heads=HEADS, num_query_groups=KV, kv_channels=HEAD, hidden_size=WIDTH
    )
    config.attention_output_gate = False
    for kind, names in vars(script)[bridge].mapping_registry(None):
        pattern = re.escape(names["megatron_param"]).replace(r"\*", r"(\d+)")
        for key, tensor in source.items():
            if not (found := re.fullmatch(pattern, key)):
                continue
            name = lambda text, found=found: text.replace("*", "{}").format(*found.groups())  # noqa: E731
            if kind == "AutoMapping":
                made[name(names["hf_param"])] = tensor
            elif kind == "QKVMapping":
                split = "split_qkv_biases" if tensor.dim() == 1 else "split_qkv_weights"
                parts = getattr(mapping, split)(config, tensor)
                made.update({name(names[x]): part for x, part in zip("qkv", parts)})
            else:
                gate, up = torch.chunk(tensor, 2, dim=0)
                made.update({name(names["gate"]): gate, name(names["up"]): up})
    return made


def core_family(name, bridge, file, rules="llama", of=None, exact=True, **has):
    """One of the families of the rule files for Megatron Core."""

    @family(
        f"{name}_megatron_core",
        rules=f"{rules}_megatron_core",
        layout="megatron_core",
        config={**CONFIG, "model_type": of or name},
        exact=exact,
    )
    class Core:
        @staticmethod
        def source():
            return core(**has)

        @staticmethod
        def convert(source):
            return core_to_hub(bridge, file, source)

    return Core


core_family("llama", "LlamaBridge", "llama.llama_bridge")
core_family("qwen2", "Qwen2Bridge", "qwen.qwen2_bridge", biases=True)
core_family("qwen3", "Qwen3Bridge", "qwen.qwen3_bridge", norms=True)
GROUPED, SEQUENTIAL = "linear_fc{fc}.weight{e}", "local_experts.{e}.linear_fc{fc}.weight"
MOE = {"bridge": "Qwen3MoEBridge", "file": "qwen.qwen3_moe_bridge", "rules": "qwen3_moe"}
core_family("qwen3_moe", **MOE, norms=True, experts=GROUPED)
core_family("qwen3_moe_modules", **MOE, of="qwen3_moe", exact=False, norms=True, experts=SEQUENTIAL)
core_family(
    "olmoe",
    "OlMoEBridge",
    "olmoe.olmoe_bridge",
    rules="qwen3_moe",
    norms=True,
    experts=GROUPED,
)


@family("gpt2_nanogpt", layout="nanogpt", config={"model_type": "gpt2"}, told=False)
class NanoGpt:
    @staticmethod
    def source():
        nano = importlib.import_module("nanogpt.model")
        config = nano.GPTConfig(
            block_size=8, vocab_size=VOCAB, n_layer=2, n_head=HEADS, n_embd=WIDTH
        )
        state = nano.GPT(config).state_dict()
        # The head is the embedding, which values of their own would part.
        return {key: state[key] for key in state if key != "lm_head.weight"}

    @staticmethod
    def convert(source):
        # The weights that `from_pretrained` turns, as its list says.
        turned = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
        out = {}
        for key, tensor in source.items():
            out[key] = tensor.t() if key.endswith(turned) else tensor
        return out

"""LoRA merged over files and in memory is what PEFT's own `merge_and_unload` gives on a CPU.

Sums of products that F32 holds exactly have one result whatever their order, so those are compared
bit for bit everywhere. Of random numbers the last bits hang on the order in which a library adds;
they are held to a bound of the error of a sum.
"""

import json
import os

import pytest
import regraft

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")
safetensors = pytest.importorskip("safetensors.torch")

ATTENTION = ["q_proj", "v_proj", "down_proj"]


def llama(head=None, **more):
    head = head or transformers.LlamaForCausalLM
    return head(
        transformers.LlamaConfig(
            vocab_size=96,
            hidden_size=64,
            intermediate_size=80,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            pad_token_id=0,
            **more,
        )
    )


def gpt2():
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=96,
            n_embd=64,
            n_layer=2,
            n_head=4,
            n_positions=32,
            bos_token_id=0,
            eos_token_id=0,
            tie_word_embeddings=False,
        )
    )


def experts(kind, **more):
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=96,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
        **more,
    )
    return getattr(transformers, f"{kind}ForCausalLM")(config)


def convolutions():
    model = torch.nn.Module()
    model.wide = torch.nn.Conv2d(32, 48, 3)
    model.one = torch.nn.Conv2d(48, 32, 1)
    return model


PARAMETERS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]

CASES = {
    "plain": (llama, {"target_modules": ATTENTION}),
    "rslora": (llama, {"target_modules": "all-linear", "use_rslora": True}),
    "patterns": (
        llama,
        {
            "target_modules": ATTENTION,
            "rank_pattern": {"q_proj": 4, "^model.layers.1.mlp.down_proj": 16},
            "alpha_pattern": {"layers.0.self_attn.v_proj": 7, r".*\.down_proj": 3},
        },
    ),
    "fan_in_fan_out": (
        gpt2,
        {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True},
    ),
    "fan_in_fan_out_and_head": (gpt2, {"target_modules": ["c_attn", "c_proj", "lm_head"]}),
    "embedding": (llama, {"target_modules": ["embed_tokens", "q_proj"]}),
    "convolutions": (convolutions, {"target_modules": ["wide", "one"]}),
    "experts": (
        lambda: experts("Mixtral"),
        {"target_modules": ["q_proj"], "target_parameters": PARAMETERS},
    ),
    "experts_one": (
        lambda: experts("Mixtral"),
        {"target_modules": [], "target_parameters": PARAMETERS[1:], "use_rslora": True},
    ),
    "experts_turned": (
        lambda: experts("GptOss", head_dim=16),
        {"target_modules": ["q_proj"], "target_parameters": PARAMETERS},
    ),
    "lora_bias": (
        lambda: llama(attention_bias=True),
        {"target_modules": ["q_proj", "v_proj"], "lora_bias": True},
    ),
    "biases": (
        lambda: llama(attention_bias=True),
        {"target_modules": ["q_proj", "v_proj"], "bias": "all"},
    ),
    "saved": (
        lambda: llama(transformers.LlamaForSequenceClassification),
        {"target_modules": ["q_proj", "v_proj"], "task_type": "SEQ_CLS"},
    ),
}


def numbers(tensor, exact):
    """In place: small whole numbers over a power of two, of which every sum is exact; or random."""
    if exact:
        tensor.copy_(torch.randint(-4, 5, tensor.shape) / 16)
    else:
        tensor.normal_(std=0.3)


def make(folder, name, dtype, exact, alpha=13):
    """A base and an adapter in files, and what PEFT makes of both."""
    build, options = CASES[name]
    torch.manual_seed(0)
    model = build().to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            numbers(parameter, exact)
    base = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    os.makedirs(f"{folder}/base")
    safetensors.save_file(base, f"{folder}/base/model.safetensors")
    if hasattr(model, "config"):
        model.config.save_pretrained(f"{folder}/base")
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=8, lora_alpha=alpha, **options))
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                numbers(parameter, exact)
    adapted.save_pretrained(f"{folder}/adapter")
    fresh = build().to(dtype)
    fresh.load_state_dict(base)
    merged = peft.PeftModel.from_pretrained(fresh, f"{folder}/adapter").merge_and_unload()
    return merged.state_dict()


def convert(folder, **options):
    sources = {"": f"{folder}/base", "adapter": f"{folder}/adapter"}
    regraft.convert(sources, f"{folder}/merged", rules="peft_merge", **options)
    return safetensors.load_file(f"{folder}/merged/model.safetensors")


def in_memory(folder):
    """The same over tensors that a caller holds."""
    tensors = safetensors.load_file(f"{folder}/base/model.safetensors")
    adapter = safetensors.load_file(f"{folder}/adapter/adapter_model.safetensors")
    config = {}
    if os.path.exists(f"{folder}/base/config.json"):
        with open(f"{folder}/base/config.json") as file:
            config = json.load(file)
    with open(f"{folder}/adapter/adapter_config.json") as file:
        config["adapter"] = json.load(file)
    tensors.update({f"adapter.{key}": tensor for key, tensor in adapter.items()})
    return regraft.apply(tensors, rules="peft_merge", config=config)


def same(found, expected):
    assert sorted(found) == sorted(expected)
    for key, tensor in expected.items():
        assert found[key].dtype == tensor.dtype, key
        assert torch.equal(found[key], tensor), key


DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_exact_sums_are_merged_bit_for_bit(name, dtype, tmp_path):
    # A scale with many digits rounds each product.
    expected = make(tmp_path, name, dtype, exact=True)
    base = safetensors.load_file(tmp_path / "base" / "model.safetensors")
    assert any(not torch.equal(base[key], tensor) for key, tensor in expected.items())
    same(convert(tmp_path), expected)
    assert not (tmp_path / "merged" / "adapter_config.json").exists()
    same(in_memory(tmp_path), expected)


@pytest.mark.parametrize("name", CASES)
def test_random_numbers_differ_in_the_last_bits_at_most(name, tmp_path):
    expected = make(tmp_path, name, torch.float32, exact=False)
    for found in (convert(tmp_path), in_memory(tmp_path)):
        assert sorted(found) == sorted(expected)
        for key, tensor in expected.items():
            # Eight or sixteen products of at most about four, times a scale of at most five.
            assert (found[key] - tensor).abs().max() <= 1e-4, key
            assert torch.allclose(found[key], tensor, rtol=1e-5, atol=1e-5), key


def test_twice_is_what_a_safe_merge_rounds(tmp_path):
    make(tmp_path, "plain", torch.bfloat16, exact=True)
    fresh = llama().to(torch.bfloat16)
    base = safetensors.load_file(tmp_path / "base" / "model.safetensors")
    fresh.load_state_dict(base)
    model = peft.PeftModel.from_pretrained(fresh, tmp_path / "adapter")
    expected = model.merge_and_unload(safe_merge=True).state_dict()
    once = convert(tmp_path)
    assert any(not torch.equal(once[key], tensor) for key, tensor in expected.items())
    same(convert(tmp_path, parameters={"twice": True}, force=True), expected)


def refused(folder, why):
    with pytest.raises(regraft.PlanError, match=why):
        convert(folder)
    assert not os.path.exists(f"{folder}/merged")


def test_what_cannot_be_merged_is_refused(tmp_path):
    make(tmp_path, "plain", torch.float32, exact=True)
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    adapter = safetensors.load_file(file)
    name = "base_model.model.model.layers.0.self_attn.q_proj"

    def with_(**more):
        tensors = {**adapter, **{f"{name}.{key}": value for key, value in more.items()}}
        safetensors.save_file(tensors, file)

    with_(lora_magnitude_vector=torch.ones(64))
    refused(tmp_path, "DoRA")
    with_(ia3_l=torch.ones(64))
    refused(tmp_path, "expected 0 of these, found 1")
    # Of another rank than the config says.
    with_(**{"lora_A.weight": torch.ones(4, 64), "lora_B.weight": torch.ones(64, 4)})
    refused(tmp_path, "the rank of the factors is 4, and not 8")
    # Of a layer that the base doesn't have.
    stranger = {key.replace("layers.1", "layers.7"): value for key, value in adapter.items()}
    safetensors.save_file(stranger, file)
    refused(tmp_path, "incomplete|expected 0 of these")


def test_a_quantized_base_is_dequantized_first(tmp_path):
    make(tmp_path, "plain", torch.float32, exact=True)
    file = tmp_path / "base" / "model.safetensors"
    base = safetensors.load_file(file)
    key = "model.layers.0.self_attn.q_proj.weight"
    base[key] = base[key].to(torch.float8_e4m3fn)
    safetensors.save_file(base, file)
    refused(tmp_path, "before it is dequantized")
    base[key.replace("weight", "weight_scale")] = torch.tensor(0.5)
    safetensors.save_file(base, file)
    sources = {"": tmp_path / "base", "adapter": tmp_path / "adapter"}
    regraft.convert(sources, tmp_path / "merged", rules=["dequant_fp8", "peft_merge"])
    merged = safetensors.load_file(tmp_path / "merged" / "model.safetensors")
    assert merged[key].dtype == torch.bfloat16


def test_an_adapter_of_fused_experts_is_one_for_each(tmp_path):
    """Each expert's own factors give the part of PEFT's product that is that expert's."""
    make(tmp_path, "experts", torch.float32, exact=True)
    fused = safetensors.load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    model = peft.PeftModel.from_pretrained(experts("Mixtral"), tmp_path / "adapter")
    apart = regraft.apply(fused, rules="peft_experts", parameters={"experts": 4})
    for layer in range(2):
        outer = model.base_model.model.model.layers[layer].mlp.experts
        name = f"base_model.model.model.layers.{layer}.mlp.experts"

        def product(expert, projection):
            a, b = (apart[f"{name}.{expert}.{projection}.lora_{x}.weight"] for x in "AB")
            return b @ a * (13 / 8)

        gate_up, down = (
            wrapper.get_delta_weight("default") for wrapper in (outer.base_layer, outer)
        )
        for expert in range(4):
            gate = torch.cat([product(expert, "gate_proj"), product(expert, "up_proj")])
            assert torch.equal(gate, gate_up[expert])
            assert torch.equal(product(expert, "down_proj"), down[expert])
    options = {"parameters": {"experts": 4}, "reverse": True}
    same(regraft.apply(apart, rules="peft_experts", **options), fused)

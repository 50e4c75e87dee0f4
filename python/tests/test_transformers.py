"""Against transformers itself: regraft over a hub checkpoint gives what `from_pretrained` gives,
bit for bit, and the way back."""

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", "5.0", reason="transformers 5 is not installed")

import regraft  # noqa: E402

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
}


def mixtral():
    config = transformers.MixtralConfig(**SMALL, num_local_experts=4)
    return transformers.MixtralForCausalLM(config)


def qwen2_moe():
    config = transformers.Qwen2MoeConfig(
        **SMALL,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=24,
    )
    return transformers.Qwen2MoeForCausalLM(config)


def llama_tied():
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**SMALL, tie_word_embeddings=True)
    )


def t5():
    config = transformers.T5Config(
        vocab_size=64,
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        tie_word_embeddings=True,
    )
    return transformers.T5ForConditionalGeneration(config)


def bert():
    config = transformers.BertConfig(
        vocab_size=64,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=16,
    )
    return transformers.BertForMaskedLM(config)


def llava():
    vision = transformers.CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=28,
        patch_size=14,
    )
    config = transformers.LlavaConfig(
        vision_config=vision, text_config=transformers.LlamaConfig(**SMALL)
    )
    return transformers.LlavaForConditionalGeneration(config)


def same_bits(x, y):
    if x.dtype != y.dtype or x.shape != y.shape:
        return False
    return torch.equal(
        x.contiguous().view(-1).view(torch.uint8), y.contiguous().view(-1).view(torch.uint8)
    )


@pytest.mark.parametrize("make", [mixtral, qwen2_moe, llama_tied, t5, bert, llava])
def test_both_ways(make, tmp_path):
    torch.manual_seed(0)
    make().save_pretrained(tmp_path / "hub")
    loaded, info = type(make()).from_pretrained(tmp_path / "hub", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    expected = loaded.state_dict()
    hub = regraft.open(tmp_path / "hub")

    given = hub.apply(to="model")
    assert set(given) == set(expected)
    assert [key for key in expected if not same_bits(given[key], expected[key])] == []
    # What is one tensor there is one tensor here.
    for first in expected:
        for second in expected:
            if expected[first].data_ptr() == expected[second].data_ptr():
                assert given[first].data_ptr() == given[second].data_ptr(), (first, second)

    back = regraft.apply(expected, config=loaded.config, from_="model", to="hub")
    assert set(back) == set(hub)
    assert [key for key in hub if not same_bits(back[key], hub[key])] == []

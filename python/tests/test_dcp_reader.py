"""Checkpoints as they are published, loaded by `torch.distributed.checkpoint.load` into sharded
models: the same tensors as the whole conversion, and no rank reads more than its boxes."""

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", "5.0", reason="transformers 5 is not installed")

import regraft  # noqa: E402
from test_transformers import SMALL, llama_tied, mixtral  # noqa: E402

PLACEMENTS = [(1, "s0"), (2, "s0"), (2, "s1"), (2, "r"), (4, "s0"), (4, "s0,s1"), (4, "s1,r")]


@pytest.mark.parametrize("size, placements", PLACEMENTS)
def test_any_placement_is_loaded(ranks, hub, size, placements):
    path, expected = hub(mixtral)
    given = ranks.run(size, "load", path, None, {}, placements, expected)
    for wrong, read, local in given:
        assert wrong == []
        # Gaps in so small a model are read through.
        assert local <= read


@pytest.mark.parametrize("size", [2, 4])
def test_keys_lie_under_another(ranks, hub, size):
    path, expected = hub(mixtral)
    given = ranks.run(size, "load", path, None, {}, "s0", expected, "model")
    assert [wrong for wrong, _, _ in given] == [[]] * size


def test_uneven_shards_and_rules_by_name(ranks, hub):
    path, expected = hub(llama_tied)
    # 3 ranks part 32 rows as 11, 11 and 10.
    given = ranks.run(3, "load", path, ["llama", "tied_lm_head"], {"to": None}, "s0", expected)
    assert [wrong for wrong, _, _ in given] == [[]] * 3


def test_shards_in_strides(ranks, hub):
    path, _ = hub(mixtral)
    assert ranks.run(4, "load_strided", path, "model.layers.0.mlp.experts.down_proj") == [[]] * 4


def test_plain_tensors_that_say_what_they_are(ranks, hub):
    path, _ = hub(mixtral)
    key = "model.layers.0.mlp.experts.gate_up_proj"
    assert ranks.run(4, "load_plain_parts", path, key) == [True] * 4


def test_missing_keys_are_the_planners(ranks, hub):
    path, _ = hub(mixtral)
    for said, filled, left in ranks.run(2, "refused", path):
        assert "Missing key in checkpoint state_dict: model.more.weight." in said
        assert filled == 32
        assert torch.equal(left, torch.zeros(2))


def test_other_dtypes_are_converted_as_torch_does(ranks, hub):
    path, _ = hub(mixtral)
    for tensor in ranks.run(1, "other_places", path):
        assert torch.equal(tensor, torch.ones(32, dtype=torch.float64))


def qwen3_moe():
    config = transformers.Qwen3MoeConfig(
        **SMALL, head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16
    )
    return transformers.Qwen3MoeForCausalLM(config)


def deepseek_v3():
    small = {**SMALL, "num_key_value_heads": 4}
    config = transformers.DeepseekV3Config(
        **small,
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_group=2,
        topk_group=1,
        moe_intermediate_size=16,
        q_lora_rank=8,
        kv_lora_rank=8,
        qk_rope_head_dim=4,
        qk_nope_head_dim=8,
        v_head_dim=8,
        first_k_dense_replace=1,
    )
    return transformers.DeepseekV3ForCausalLM(config)


@pytest.mark.parametrize("make", [mixtral, qwen3_moe, deepseek_v3, llama_tied])
def test_sharded_models_give_what_from_pretrained_does(ranks, hub, make):
    from dcp_ranks import TOKENS

    path, _ = hub(make)
    model = transformers.AutoModelForCausalLM.from_pretrained(path).eval()
    with torch.no_grad():
        expected = model(TOKENS).logits
    for whole, logits in ranks.run(2, "loaded_and_logits", path):
        assert whole.keys() == model.state_dict().keys()
        for key, tensor in model.state_dict().items():
            assert torch.equal(whole[key], tensor), key
        # Equal weights give equal logits but for the last bits: the kernels of torch round by how
        # the work is split among threads.
        torch.testing.assert_close(logits, expected)


def test_no_rank_reads_more_than_its_boxes(ranks, tmp_path):
    """Rows far enough apart that nothing between them is read, through a transpose, a packed
    projection and a permutation of heads."""
    from safetensors.torch import save_file

    given = {
        "q": torch.randn(256, 8192),
        "w": torch.randn(64, 16384),
        "a": torch.randn(128, 8192),
        "b": torch.randn(128, 8192),
    }
    rules = """ruleset far: old <-> new
    map "q" <-> "turned" via rope_halves(4)
    map "w" <-> "crossed" via transpose(0, 1)
    map "a", "b" <-> "packed" via concat(0)
    """
    (tmp_path / "far.graft").write_text(rules)
    save_file(given, tmp_path / "model.safetensors")
    expected = {
        # Pairs of neighbouring rows of each head become its two halves.
        "turned": given["q"].view(4, 32, 2, 8192).transpose(1, 2).reshape(256, 8192),
        "crossed": given["w"].T.contiguous(),
        "packed": torch.cat([given["a"], given["b"]]),
    }
    torch.save(expected, tmp_path / "expected.pt")
    path, rules = str(tmp_path / "model.safetensors"), str(tmp_path / "far.graft")
    for size, placements in [(2, "s0"), (4, "s0"), (4, "s0,s1")]:
        for wrong, read, local in ranks.run(
            size, "load", path, regraft.load(rules), {}, placements, str(tmp_path / "expected.pt")
        ):
            assert wrong == []
            assert local <= read <= local * 1.05, (size, placements)


def test_sources_are_not_cut_as_targets_are(ranks, tmp_path):
    """Where a shard is a part of a head, or crosses a transpose, the rows that it is made of are
    others than its own (transformers#48519)."""
    from safetensors.torch import save_file

    def turned(rows, heads):
        pairs = rows.view(heads, -1, 2, rows.shape[1])
        return pairs.transpose(1, 2).reshape(rows.shape)

    q, w = torch.randn(24, 10), torch.randn(24, 24)
    expected = {"turned": turned(q, 2), "crossed": w.T.contiguous()}
    cut_first = torch.cat([turned(part, 1) for part in q.chunk(4)])
    assert not torch.equal(cut_first, expected["turned"])
    save_file({"q": q, "w": w}, tmp_path / "model.safetensors")
    torch.save(expected, tmp_path / "expected.pt")
    rules = regraft.compile("""
    map "q" <-> "turned" via rope_halves(2)
    map "w" <-> "crossed" via transpose(0, 1)
    """)
    path, beside = str(tmp_path / "model.safetensors"), str(tmp_path / "expected.pt")
    for placements in ("s0", "s1", "s0,s1"):
        given = ranks.run(4, "load", path, rules, {}, placements, beside)
        assert [wrong for wrong, _, _ in given] == [[]] * 4, placements


def test_a_stage_with_the_head_alone_reads_the_rows_of_the_embedding(ranks, hub):
    path, state = hub(llama_tied)
    assert "lm_head.weight" not in regraft.open(path)
    for size in (1, 2, 4):
        for same, read, local in ranks.run(size, "load_head", path, state):
            assert same
            assert read == local


def test_what_is_tied_is_read_once(ranks, hub):
    path, state = hub(llama_tied)
    alone = sum(
        tensor.nbytes for key, tensor in torch.load(state).items() if key != "lm_head.weight"
    )
    assert ranks.run(1, "load_tied", path) == [alone]


def test_metadata_is_what_torchs_own_reader_says(hub):
    import pickle

    from regraft.torch.distributed import Reader
    from torch.distributed.checkpoint import HuggingFaceStorageReader

    path, _ = hub(mixtral)
    expected = HuggingFaceStorageReader(path).read_metadata().state_dict_metadata
    found = Reader(path, []).read_metadata().state_dict_metadata
    assert len(expected) > 20 and sorted(found) == sorted(expected)
    for key, tensor in expected.items():
        assert found[key] == tensor, key
    # As another process gets it.
    assert pickle.loads(pickle.dumps(found)) == expected
    assert "model.none" not in found
    with pytest.raises(KeyError):
        found["model.none"]


def test_recipes_of_frameworks(ranks, hub):
    path, state = hub(mixtral)
    assert ranks.run(2, "load_as_automodel", path, state) == [[], []]
    assert ranks.run(2, "load_as_torchtitan", hub(llama_tied)[0]) == [[], []]

"""Sharded models, saved by `torch.distributed.checkpoint.save` as they are published: the same
files whatever the placements are, whole or not at all."""

import json
import os

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", "5.0", reason="transformers 5 is not installed")

import regraft  # noqa: E402
import torch.distributed.checkpoint as dcp  # noqa: E402
from regraft.torch.distributed import Writer  # noqa: E402
from test_dcp_reader import PLACEMENTS, deepseek_v3, qwen3_moe  # noqa: E402
from test_transformers import llama_tied, mixtral  # noqa: E402


def tensors_of(path):
    opened = regraft.open(path, framework="torch")
    return {key: opened[key] for key in opened}


def assert_equal(given, expected):
    assert sorted(given) == sorted(expected)
    for key, tensor in given.items():
        assert tensor.dtype == expected[key].dtype
        assert torch.equal(tensor, expected[key]), key


@pytest.mark.parametrize("size, placements", PLACEMENTS)
def test_any_placement_is_saved(ranks, hub, tmp_path, size, placements):
    path, state = hub(mixtral)
    out = tmp_path / "out"
    wrote = ranks.run(size, "save", state, str(out), placements, None, {"like": path})
    expected = tensors_of(path)
    assert_equal(tensors_of(out), expected)
    assert sum(wrote) == sum(tensor.nbytes for tensor in expected.values())
    assert json.loads((out / "config.json").read_text())["model_type"] == "mixtral"
    assert os.listdir(tmp_path) == ["out"]


def test_several_files_and_keys_under_another(ranks, hub, tmp_path):
    path, state = hub(mixtral)
    options = {"like": path, "under": "model", "max_shard_size": 50_000}
    ranks.run(4, "save", state, str(tmp_path / "out"), "s0", None, options)
    assert (tmp_path / "out" / "model.safetensors.index.json").exists()
    assert_equal(tensors_of(tmp_path / "out"), tensors_of(path))


def test_saved_behind_the_training(ranks, hub, tmp_path):
    path, state = hub(mixtral)
    ranks.run(2, "save_async", state, str(tmp_path / "out"), {"like": path})
    assert_equal(tensors_of(tmp_path / "out"), tensors_of(path))


@pytest.mark.parametrize("make", [mixtral, qwen3_moe, deepseek_v3, llama_tied])
def test_saved_models_are_those_that_from_pretrained_reads(ranks, hub, tmp_path, make):
    path, _ = hub(make)
    ranks.run(2, "save_sharded_model", path, str(tmp_path / "out"))
    assert_equal(tensors_of(tmp_path / "out"), tensors_of(path))
    read = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    expected = transformers.AutoModelForCausalLM.from_pretrained(path)
    assert_equal(read.state_dict(), expected.state_dict())


@pytest.mark.parametrize("placements, differ", [("s0", False), ("s0", True), ("s1", False)])
def test_tied_tensors_are_one_or_nothing_appears(ranks, hub, tmp_path, placements, differ):
    path, state = hub(llama_tied)
    said = ranks.run(2, "save_tied", state, str(tmp_path / "out"), placements, differ)
    if differ or placements == "s1":
        assert all("not known to be equal" in text and "`tied=False`" in text for text in said)
        assert os.listdir(tmp_path) == []
    else:
        assert said == ["", ""]
        assert "lm_head.weight" not in tensors_of(tmp_path / "out")


def test_a_rank_that_fails_leaves_nothing(ranks, hub, tmp_path):
    path, state = hub(mixtral)
    for said, there in ranks.run(2, "save_and_fail", state, str(tmp_path / "out"), path):
        assert "the disk is full" in said
        assert not there
    assert_equal(tensors_of(tmp_path / "out"), tensors_of(path))
    assert os.listdir(tmp_path) == ["out"]


def test_a_rank_that_is_killed_leaves_nothing(hub, tmp_path):
    from ranks import Ranks

    path, state = hub(mixtral)
    dying = Ranks(2)
    try:
        dying.send(2, "save_and_die", state, str(tmp_path / "out"), path)
        dying.processes[1].join(300)
        assert dying.processes[1].exitcode == 9
    finally:
        # As a launcher does with the others.
        dying.close()
    assert not (tmp_path / "out").exists()
    assert all(name.startswith(".out.regraft-") for name in os.listdir(tmp_path))
    # Started again, as one process.
    writer = Writer(tmp_path / "out", like=path)
    dcp.save(torch.load(state), storage_writer=writer, no_dist=True)
    assert_equal(tensors_of(tmp_path / "out"), tensors_of(path))
    assert os.listdir(tmp_path) == ["out"]


def test_values_of_several_ranks_are_refused(ranks, tmp_path):
    rules = regraft.compile('map "w", "scale" <-> "w", "scale" via mul_by')
    said = ranks.run(2, "save_refused", str(tmp_path / "out"), rules)
    assert all(
        "elements that several processes hold" in text and 'key "w"' in text for text in said
    )
    assert os.listdir(tmp_path) == []


RULES = """
map "q" <-> "turned" via rope_halves(2)
map "e.{e}.w1", "e.{e}.w3" <-> "packed" via stack(e) | concat(1)
map "w" <-> "crossed" via transpose(0, 1)
"""


@pytest.mark.parametrize("size, placements", [(2, "s0"), (2, "s1"), (4, "s0,s1")])
def test_permuted_and_transposed_tensors_go_back(ranks, tmp_path, size, placements):
    hub = {"q": torch.randn(24, 10), "w": torch.randn(30, 7).bfloat16()}
    for expert in range(4):
        for name in ("w1", "w3"):
            hub[f"e.{expert}.{name}"] = torch.randn(6, 5).bfloat16()
    packed = [torch.cat([hub[f"e.{e}.w1"], hub[f"e.{e}.w3"]]) for e in range(4)]
    model = {
        # Pairs of neighbouring rows of each of two heads are its two halves in the model.
        "turned": hub["q"].view(2, 6, 2, 10).transpose(1, 2).reshape(24, 10),
        "packed": torch.stack(packed),
        "crossed": hub["w"].T.contiguous(),
    }
    torch.save(model, tmp_path / "state.pt")
    rules = regraft.compile(RULES)
    out = str(tmp_path / "out")
    ranks.run(size, "save", str(tmp_path / "state.pt"), out, placements, rules, {})
    assert_equal(tensors_of(out), hub)


def test_tensors_that_lie_elsewhere_go_through_memory(ranks, hub, tmp_path):
    path, state = hub(mixtral)
    assert ranks.run(1, "through_memory", path, state, str(tmp_path / "out"), path) == [[]]

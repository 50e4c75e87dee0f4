"""Quantized checkpoints in memory are what their own libraries make of them, bit for bit: those of
tests/fixtures/dequant, which `scripts/make_dequant_fixtures.py` makes."""

import json
import os

import pytest
import regraft

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")

FOLDER = os.path.join(os.path.dirname(__file__), "..", "..", "tests", "fixtures", "dequant")
NAMES = sorted(name[:-5] for name in os.listdir(FOLDER) if name.endswith(".json"))


def load(name):
    return safetensors.load_file(os.path.join(FOLDER, name))


def same(made, expected):
    assert sorted(made) == sorted(expected)
    for key, tensor in expected.items():
        found = made[key]
        assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape), key
        # As bytes: zeros have a sign.
        raw = [one.contiguous().reshape(-1).view(torch.uint8) for one in (found, tensor)]
        assert torch.equal(*raw), key


@pytest.mark.parametrize("name", [name for name in NAMES if name != "weight_norm"])
def test_dequantized(name):
    with open(os.path.join(FOLDER, f"{name}.json")) as file:
        config = json.load(file)
    made = regraft.apply(load(f"{name}.safetensors"), rules="dequant", config=config)
    same(made, load(f"{name}.expected.safetensors"))


def test_weight_norm():
    rules = regraft.compile('map "{i}.weight_g", "{i}.weight_v" -> "{i}.weight" via weight_norm')
    made = rules.apply(load("weight_norm.safetensors"))
    same(made, load("weight_norm.expected.safetensors"))


def test_an_order_that_leaves_its_groups():
    source = load("gptq_order.safetensors")
    source["a.g_idx"][0] = -1
    with open(os.path.join(FOLDER, "gptq_order.json")) as file:
        config = json.load(file)
    with pytest.raises(ValueError, match="an index"):
        regraft.apply(source, rules="dequant", config=config)


@pytest.mark.parametrize("block", ["2", "[1, -1]", "-1"])
def test_fp8_as_over_files(block, tmp_path):
    """In memory and in files the same codes and scales."""
    torch.manual_seed(3)
    source = {"w": (torch.randn(5, 7) * 3).to(torch.bfloat16)}
    rules = regraft.compile(f'map "w" -> "w", "s" via quant_fp8({block})')
    made = rules.apply(source)
    safetensors.save_file(source, tmp_path / "in.safetensors")
    regraft.convert(tmp_path / "in.safetensors", tmp_path / "out.safetensors", rules=rules)
    same(made, safetensors.load_file(tmp_path / "out.safetensors"))


def test_means_and_factors():
    torch.manual_seed(4)
    source = {f"{r}.b": torch.randn(6).to(torch.bfloat16) for r in range(3)}
    expected = (source["0.b"] + source["1.b"] + source["2.b"]) / 3
    assert torch.equal(
        regraft.compile('map "{r}.b" -> "b" via mean(over r)').apply(source)["b"], expected
    )
    source = {"x": torch.randn(4, 6), "s": torch.randn(4, 1)}
    for op, of in [
        ("mul_by", torch.mul),
        ("div_by", torch.div),
        ("add_by", torch.add),
        ("sub_by", torch.sub),
    ]:
        made = regraft.compile(f'map "x", "s" -> "y" via {op}').apply(source)["y"]
        assert torch.equal(made, of(source["x"], source["s"])), op

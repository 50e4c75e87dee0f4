"""Boxes of targets, read from files: the same as those of the whole tensors, which torch makes."""

import copy
import json
import pickle
import random
import warnings
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
safetensors = pytest.importorskip("safetensors", reason="safetensors is not installed")

import regraft  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

RULES = regraft.compile(
    """
    map "q" <-> "turned" via rope_halves(2)
    map "e.{e}.w1", "e.{e}.w3" <-> "packed" via stack(e) | concat(1)
    map "w" <-> "crossed" via transpose(0, 1)
    cast "turned" to BF16 lossy
    """
)


@pytest.fixture
def opened(tmp_path):
    tensors = {"q": torch.randn(24, 10), "w": torch.randn(30, 7), "scalar": torch.tensor(2.5)}
    for expert in range(4):
        for name in ("w1", "w3"):
            tensors[f"e.{expert}.{name}"] = torch.randn(6, 5).bfloat16()
    save_file(tensors, tmp_path / "model.safetensors")
    return regraft.open(tmp_path / "model.safetensors", framework="torch"), tensors


def whole(tensors):
    """What the rules say, as torch does it."""
    packed = [torch.cat([tensors[f"e.{e}.w1"], tensors[f"e.{e}.w3"]]) for e in range(4)]
    # Pairs of neighbouring rows of each of two heads become its two halves.
    turned = tensors["q"].view(2, 6, 2, 10).transpose(1, 2).reshape(24, 10)
    return {
        "turned": turned.bfloat16(),
        "packed": torch.stack(packed),
        "crossed": tensors["w"].T,
        "scalar": tensors["scalar"],
    }


def box_of(tensor, draw):
    offsets = [draw.randrange(size) for size in tensor.shape]
    return offsets, [draw.randint(1, size - at) for size, at in zip(tensor.shape, offsets)]


def cut(tensor, offsets, sizes):
    for dim, (at, size) in enumerate(zip(offsets, sizes)):
        tensor = tensor.narrow(dim, at, size)
    return tensor


def test_boxes_are_those_of_the_whole(opened):
    opened, tensors = opened
    plan, expected, draw = opened.plan(RULES), whole(tensors), random.Random(7)
    assert set(plan.keys()) == set(expected)
    asked = [(key, *box_of(expected[key], draw)) for key in expected for _ in range(20)]
    together = plan.read_boxes(asked)
    for (key, offsets, sizes), made in zip(asked, together):
        said = cut(expected[key], offsets, sizes)
        alone = plan.read(key, offsets, sizes)
        for found in (made, alone):
            assert found.dtype == said.dtype and torch.equal(found, said), (key, offsets, sizes)
    storages = {made.untyped_storage().data_ptr() for made in together}
    assert len(storages) == len(together), "each has a storage of its own"
    together[0].zero_()


def test_into_tensors_with_any_strides(opened):
    opened, tensors = opened
    plan, expected = opened.plan(RULES), whole(tensors)
    held = torch.full((40, 12), 9.0)
    out = held[3:33:2, 1:8:2].T
    assert not out.is_contiguous()
    found = plan.read("crossed", (1, 4), out.shape, out=out)
    assert found is out
    assert torch.equal(out, expected["crossed"][1:5, 4:19])
    held[3:33:2, 1:8:2] = 9.0
    assert torch.all(held == 9.0), "what lies between stays"
    parameter = torch.nn.Parameter(torch.zeros(2, 12, 5, dtype=torch.bfloat16))
    other, made = plan.read_boxes(
        [("packed", (1, 0, 0), (2, 12, 5)), ("scalar", (), ())], [parameter, None]
    )
    assert other is parameter and torch.equal(parameter.data, expected["packed"][1:3])
    assert made.shape == () and made == 2.5


def test_numpy(opened, numpy):
    opened, tensors = opened
    plan = opened.plan(RULES)
    said = tensors["w"].numpy().T[2:5, 3:9]
    assert numpy.array_equal(plan.read("crossed", (2, 3), (3, 6), framework="numpy"), said)
    held = numpy.zeros((6, 6), dtype="float32")
    plan.read("crossed", (2, 3), (3, 6), out=held[::-2])
    assert numpy.array_equal(held[::-2], said) and not held[::2].any()


def test_empty_boxes(opened):
    plan = opened[0].plan(RULES)
    assert plan.read("crossed", (7, 0), (0, 30)).shape == (0, 30)
    assert plan.read_boxes([]) == []


def test_what_is_no_box(opened):
    opened, tensors = opened
    plan = opened.plan(RULES)
    with pytest.raises(KeyError, match="gone"):
        plan.read("gone", (0,), (1,))
    for offsets, sizes in [((0,), (1,)), ((5, 0), (3, 1)), ((-1, 0), (1, 1)), ((0, 0), (1, 31))]:
        with pytest.raises(ValueError, match=r"crossed has the shape \[7, 30\]"):
            plan.read("crossed", offsets, sizes)
    for out in (torch.zeros(3, 2), torch.zeros(2, 3, dtype=torch.float64)):
        with pytest.raises(ValueError, match=r"read as F32 \[2, 3\]"):
            plan.read("crossed", (0, 0), (2, 3), out=out)
    with pytest.raises(TypeError, match="a tensor or an array"):
        plan.read("crossed", (0, 0), (2, 3), out=bytearray(24))
    with pytest.raises(ValueError, match="1 tensors to read 2 boxes into"):
        plan.read_boxes([("scalar", (), ())] * 2, [None])


def test_a_plan_without_files_reads_nothing(opened):
    opened, tensors = opened
    for plan in (
        regraft.plan(tensors, rules=RULES),
        pickle.loads(pickle.dumps(opened.plan(RULES))),
    ):
        with pytest.raises(TypeError, match="opened checkpoint"):
            plan.read("scalar", (), ())
    assert copy.copy(opened.plan(RULES)).read("scalar", (), ()) == 2.5


def test_overflow_is_told_of(tmp_path):
    save_file({"a": torch.tensor([1.0, 1e30, 2.0])}, tmp_path / "a.safetensors")
    plan = regraft.open(tmp_path / "a.safetensors").plan(regraft.compile('cast "a" to F16 lossy'))
    assert torch.equal(plan.read("a", (2,), (1,)), torch.tensor([2.0]).half())
    with pytest.warns(regraft.RegraftWarning, match="overflowed"):
        assert plan.read("a", (1,), (2,)).isinf().tolist() == [True, False]


LAYOUTS = Path(__file__).resolve().parents[2] / "tests" / "fixtures" / "layouts"
INDEX = json.loads((LAYOUTS / "index.json").read_text()) if LAYOUTS.is_dir() else {}


@pytest.mark.parametrize("name", [n for n in INDEX if (LAYOUTS / f"{n}.safetensors").exists()])
def test_random_boxes_of_published_layouts(name):
    """Two boxes of each target of each rule file that has a checkpoint here."""
    layout, draw = INDEX[name], random.Random(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", regraft.RegraftWarning)
        opened = regraft.open(LAYOUTS / f"{name}.safetensors", framework="torch")
        plan = opened.plan(
            layout.get("rules") or name,
            config=layout.get("config"),
            from_=layout["layout"],
            to="hub",
        )
        made = opened.apply(
            layout.get("rules") or name,
            config=layout.get("config"),
            from_=layout["layout"],
            to="hub",
        )
    asked = []
    for target in plan:
        if 0 not in target.shape:
            asked += [(target.key, *box_of(made[target.key], draw)) for _ in range(2)]
    for (key, offsets, sizes), read in zip(asked, plan.read_boxes(asked, framework="torch")):
        assert torch.equal(read, cut(made[key], offsets, sizes)), (key, offsets, sizes)

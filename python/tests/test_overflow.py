"""Values that were finite and are infinite or NaN after a cast or another op: in memory the same
are told as over files."""

import json
import re
import warnings

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("safetensors", reason="safetensors is not installed")

import regraft  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

HALF = 'cast "**" to F16 lossy'


def told(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = call()
    texts = [
        str(one.message)
        for one in caught
        if issubclass(one.category, regraft.RegraftWarning) and "RG340" in str(one.message)
    ]
    assert all(one.filename == __file__ for one in caught if "RG340" in str(one.message))
    return result, texts


def test_apply_tells_how_many_and_where():
    given = {
        # Of F16 65504 is the largest, and 65520 the least that rounds to infinity.
        "big": torch.tensor([65520.0, -1e9, 65519.0, float("inf"), float("nan")]),
        "was": torch.tensor([float("inf"), 1.0]),
        "small": torch.tensor([0.1, 65504.0]),
        "empty": torch.zeros(0),
    }
    rules = regraft.compile(HALF)
    for call in (
        lambda: rules.apply(given),
        lambda: rules.plan(given).apply(given),
        lambda: rules.apply(dict(given), inplace=True),
    ):
        out, (text,) = told(call)
        assert (
            text.startswith("warning[RG340]: 2 elements of 1 tensor overflowed")
            and "keys: big" in text
        )
        assert out["big"].dtype == torch.float16
    given["big"] = torch.ones(5)
    assert told(lambda: rules.apply(given))[1] == []
    meta = {key: value.to("meta") for key, value in given.items()}
    assert told(lambda: rules.apply(meta))[1] == []


def test_an_edit_in_place_is_done_where_the_warning_is_an_exception():
    given = {"big": torch.tensor([1e9])}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(regraft.RegraftWarning):
            regraft.compile(HALF).apply(given, inplace=True)
    assert given["big"].dtype == torch.float16


def test_numpy_too(numpy):
    given = {
        "big": numpy.array([1e9, 1.0, numpy.inf], dtype="float32"),
        "n": numpy.array([70000, 1], dtype="int32"),
    }
    rules = regraft.compile('cast "big" to F16 lossy\ncast "n" to F16 lossy')
    _, (text,) = told(lambda: rules.apply(given))
    assert "2 elements of 2 tensors" in text
    assert told(
        lambda: regraft.compile('map "big" -> "b" via log').apply(
            {"big": numpy.zeros(3, dtype="float32")}
        )
    )[1][0].count("3 elements of 1 tensor")


# What each makes; `x` is F32 [4, 4], `x8` F8_E4M3 with scales `s` F32 [2, 2], `blocks` and `scales`
# MXFP4.
RULES = [
    'cast "x" to F16 lossy',
    'cast "x" to BF16 lossy',
    'cast "x" to F8_E4M3 lossy',
    'cast "x" to F8_E5M2 lossy',
    'map "x" -> "y" via exp',
    'map "x" -> "y" via log',
    'map "x" -> "y" via mul(1e30)',
    'map "x" -> "y" via cast(F16) | mul(1000)',
    'map "x" -> "y" via cast(F16) | transpose(0, 1)',
    'map "x" -> "a", "b" via cast(F16) | split(0)',
    'map "x8", "s" -> "y" via dequant_fp8(2, F16)',
    'map "x8", "s" -> "y" via dequant_fp8(2)',
    'map "blocks", "scales" -> "y" via dequant_mxfp4(F16)',
    'map "blocks", "scales" -> "y" via dequant_mxfp4',
]


def tensors():
    inf, nan = float("inf"), float("nan")
    x = torch.tensor(
        [
            [1e6, 65519.0, -70000.0, 3.4e38],
            [inf, nan, -inf, 0.0],
            [449.0, 465.0, -1.0, 61440.0],
            [1e-9, 88.0, 89.0, 60.0],
        ]
    )
    x8 = torch.tensor([[448.0, 1.0, 2.0, -448.0]] * 3 + [[nan, 1.0, 0.5, 448.0]]).to(
        torch.float8_e4m3fn
    )
    blocks = torch.arange(48, dtype=torch.uint8).reshape(3, 1, 16) * 5
    scales = torch.tensor([[127], [142], [254]], dtype=torch.uint8)
    return {
        "x": x,
        "x8": x8,
        "s": torch.tensor([[1000.0, 1.0], [inf, 3e38]]),
        "blocks": blocks,
        "scales": scales,
    }


def test_the_engine_counts_the_same_over_files(tmp_path, monkeypatch):
    given = tensors()
    save_file(given, tmp_path / "x.safetensors")
    opened = regraft.open(tmp_path / "x.safetensors")
    seen = []
    monkeypatch.setattr(
        "regraft._plan.warn_of_overflow", lambda overflowed: seen.append(dict(overflowed))
    )
    some = 0
    for number, text in enumerate(RULES):
        rules = regraft.compile(text)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            done = regraft.convert(
                tmp_path / "x.safetensors", tmp_path / f"{number}.safetensors", rules=rules
            )
            seen.clear()
            made = rules.apply(given)
            opened.apply(rules)
        expected = done.details.get("overflowed", {})
        some += bool(expected)
        assert seen == [expected, expected], text
        for key, value in regraft.open(tmp_path / f"{number}.safetensors").items():
            ours, theirs = made[key].float(), value.float()
            assert torch.allclose(ours, theirs, equal_nan=True), (text, key)
    assert some >= 9


def test_what_is_too_large_for_a_byte_is_no_number():
    """Newer versions of torch saturate: 448 for a million, and for infinity."""
    given = {
        "a": torch.tensor(1e6),
        "b": torch.tensor([[464.0, 464.1], [-1e9, float("inf")]]).t(),
        "c": torch.tensor([448.0]),
        "d": torch.zeros(0),
    }
    out, (text,) = told(lambda: regraft.compile('cast "**" to F8_E4M3 lossy').apply(given))
    assert out["a"].isnan() and out["c"].float() == 448 and "3 elements of 2 tensors" in text
    assert (
        out["b"].float().isnan().tolist() == [[False, True], [True, True]]
        and out["b"].float()[0, 0] == 448
    )


def test_convert_tells_it(tmp_path):
    save_file({"big": torch.tensor([1e9, 1.0])}, tmp_path / "x.safetensors")
    done, (text,) = told(
        lambda: regraft.convert(
            tmp_path / "x.safetensors", tmp_path / "y.safetensors", rules=regraft.compile(HALF)
        )
    )
    assert done.details["overflowed"] == {"big": 1} and re.search("1 element of 1 tensor", text)
    assert json.dumps(done.details["overflowed"])


def test_what_is_sharded_counts_what_this_rank_holds(tmp_path):
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("this torch has no gloo")
    from torch.distributed.tensor import DTensor

    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1
    )
    try:
        mesh = torch.distributed.init_device_mesh("cpu", (1,))
        given = {"big": DTensor.from_local(torch.tensor([1e9, 1.0]), device_mesh=mesh)}
        out, (text,) = told(lambda: regraft.compile(HALF).apply(given))
        assert isinstance(out["big"], DTensor) and "1 element of 1 tensor" in text
    finally:
        torch.distributed.destroy_process_group()

"""Rules over numpy arrays: views where torch has views."""

import pytest

np = pytest.importorskip("numpy", reason="numpy is not installed")

import regraft  # noqa: E402


def test_renames_and_views():
    x = np.arange(24.0).reshape(2, 3, 4)
    rules = regraft.compile(
        'rename "kept" <-> "renamed"\nmap "p" <-> "q" via permute(2, 0, 1)\n'
        'map "s" <-> "s.{i}" via unstack(i)\nmap "h" <-> "h.a", "h.b" via split(0)'
    )
    out = rules.apply({"kept": x, "p": x, "s": x, "h": x})
    assert out["renamed"] is x
    for key, expected in {
        "q": x.transpose(2, 0, 1),
        "s.1": x[1],
        "h.a": x[:1],
        "h.b": x[1:],
    }.items():
        assert np.shares_memory(out[key], x), key
        assert np.array_equal(out[key], expected), key


def test_packing_and_back():
    rules = regraft.load("mixtral")
    name = "model.layers.0.block_sparse_moe.experts.{}.{}.weight"
    rng = np.random.default_rng(0)
    given = {
        name.format(e, w): rng.normal(size=(6, 8) if w != "w2" else (8, 6)).astype(np.float32)
        for e in range(4)
        for w in ("w1", "w2", "w3")
    }
    packed = rules.apply(given, to="model")
    gate_up = np.stack(
        [np.concatenate([given[name.format(e, w)] for w in ("w1", "w3")]) for e in range(4)]
    )
    assert np.array_equal(packed["model.layers.0.mlp.experts.gate_up_proj"], gate_up)
    back = rules.apply(packed, to="hub")
    assert set(back) == set(given)
    for key in given:
        assert np.array_equal(back[key], given[key])
        assert any(np.shares_memory(back[key], whole) for whole in packed.values())


def test_ties_compare_bytes():
    rules = regraft.load("tied_lm_head")
    zero, negative = np.zeros(3, np.float32), -np.zeros(3, np.float32)
    nan = np.full(3, np.nan, np.float32)

    def saved(head, embed):
        return len(
            rules.apply(
                {"lm_head.weight": head, "model.embed_tokens.weight": embed},
                tied=True,
                reverse=True,
            )
        )

    assert saved(zero, zero) == saved(zero, zero.copy()) == saved(nan, nan.copy()) == 1
    with pytest.warns(regraft.RegraftWarning):
        assert saved(zero, negative) == 2


@pytest.mark.parametrize(
    ("rule", "given", "expected"),
    [
        ("cast(F16)", np.float32([1.5, 2049, 1e6]), np.float16([1.5, 2048, np.inf])),
        ("cast(F32)", np.float16([1.5]), np.float32([1.5])),
        ("cast(I32)", np.float32([-1.9, 2.9]), np.int32([-1, 2])),
        ("add(1)", np.float32([1, 2]), np.float32([2, 3])),
        ("mul(0.5)", np.float64([1, 3]), np.float64([0.5, 1.5])),
        ("neg", np.float16([0.0, 2.0]), np.float16([-0.0, -2.0])),
        ("exp", np.float64([0.0]), np.float64([1.0])),
    ],
)
def test_values(rule, given, expected):
    out = regraft.compile(f'map "a" -> "b" via {rule}').apply({"a": given})["b"]
    assert out.dtype == expected.dtype and out.tobytes() == expected.tobytes()


def test_inplace():
    given = {"a": np.zeros(2), "b": np.ones(2)}
    out = regraft.compile('map "a", "b" <-> "c" via concat(0)').apply(given, inplace=True)
    assert out is given and list(given) == ["c"] and given["c"].tolist() == [0, 0, 1, 1]


def test_both_frameworks_in_one_dict_do_not_mix():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    given = {"a": np.zeros(2, np.float32), "b": torch.zeros(2)}
    assert regraft.compile('rename "a" <-> "x"').apply(given)["x"] is given["a"]
    with pytest.raises(TypeError, match="put together"):
        regraft.compile('map "a", "b" <-> "c" via concat(0)').apply(given)

"""`size` and `count`: what shapes and keys tell rules, of whatever a source is."""

import json

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
safetensors = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")

import regraft  # noqa: E402

RULES = """
let heads = config.heads ?? (size("wq", 0) ?? size("q_proj", 0)) / size("norm", 0)
let experts = count("experts.{e}", e) ?? size("experts", 0)
map {
  "wq" <-> "q_proj" via rope_halves(heads)
  "experts.{e: 0..experts}" <-> "experts" via stack(e)
}
"""


def source(device=None):
    def tensor(*shape):
        if device == "meta":
            return torch.empty(*shape, device="meta")
        return torch.arange(float(torch.Size(shape).numel())).reshape(shape)

    experts = {f"experts.{number}": tensor(2, 3) for number in range(2)}
    return {"wq": tensor(8, 6), "norm": tensor(4), **experts}


def expected(given):
    """The two heads of `wq`, each with its even rows before its odd ones."""
    turned = given["wq"].view(2, 2, 2, 6).transpose(1, 2).reshape(8, 6)
    experts = torch.stack([given["experts.0"], given["experts.1"]])
    return {"q_proj": turned, "norm": given["norm"], "experts": experts}


def equal(made, wanted):
    return set(made) == set(wanted) and all(torch.equal(made[key], wanted[key]) for key in wanted)


def test_state_dicts_both_ways():
    rules, given = regraft.compile(RULES), source()
    made = rules.apply(given)
    assert equal(made, expected(given))
    assert equal(rules.apply(made, reverse=True), given)
    # A value that is given counts more than a shape.
    with pytest.raises(regraft.RegraftError, match="RG303"):
        rules.apply(given, parameters={"heads": 3})


def test_meta_tensors_have_shapes_too():
    made = regraft.compile(RULES).apply(source("meta"))
    shapes = {key: (tuple(tensor.shape), tensor.device.type) for key, tensor in made.items()}
    assert shapes == {
        "q_proj": ((8, 6), "meta"),
        "norm": ((4,), "meta"),
        "experts": ((2, 2, 3), "meta"),
    }


def test_files_and_manifests(tmp_path):
    given, rules = source(), regraft.compile(RULES)
    parts = [{"wq": given["wq"], "experts.1": given["experts.1"]}]
    parts.append({key: tensor for key, tensor in given.items() if key not in parts[0]})
    where = {}
    for number, part in enumerate(parts, 1):
        name = f"model-0000{number}-of-00002.safetensors"
        safetensors.save_file(part, tmp_path / name)
        where |= dict.fromkeys(part, name)
    index = {"metadata": {}, "weight_map": where}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    made = regraft.open(tmp_path, framework="torch").apply(rules)
    assert equal(made, expected(given))

    manifest = tmp_path / "manifest.json"
    keys = {key: ["F32", list(tensor.shape)] for key, tensor in given.items()}
    manifest.write_text(json.dumps(keys))
    planned = rules.plan(manifest)
    assert set(planned.keys()) == set(expected(given))


def test_what_no_key_tells_names_the_flag():
    given = source()
    del given["norm"]
    with pytest.raises(regraft.RegraftError) as caught:
        regraft.compile(RULES).apply(given)
    assert "RG209" in str(caught.value) and "--set heads=VALUE" in str(caught.value)
    given["norm"] = torch.zeros(4)
    given["experts.3"] = given.pop("experts.1")
    with pytest.raises(regraft.RegraftError, match="RG357"):
        regraft.compile(RULES).apply(given)

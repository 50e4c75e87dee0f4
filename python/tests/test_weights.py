"""Names and tensors of a checkpoint in another layout, as inference engines load them."""

import sys
import types

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", "5.0", reason="transformers 5 is not installed")

import regraft  # noqa: E402
from test_transformers import mixtral  # noqa: E402


def test_they_are_the_conversion(hub):
    path, state = hub(mixtral)
    expected = torch.load(state)
    made = dict(regraft.weights(path, to="model", ahead=1 << 16))
    assert sorted(made) == sorted(expected)
    assert all(torch.equal(made[key], expected[key]) for key in made)


def test_in_the_order_of_the_files(hub):
    path, _ = hub(mixtral)
    assert [key for key, _ in regraft.weights(path, rules=[])] == list(regraft.open(path))


def test_parts_of_tensors(hub):
    path, state = hub(mixtral)
    expected = torch.load(state)
    halves = [dict(regraft.weights(path, to="model", shard=(0, at, 2))) for at in range(2)]
    for key, whole in expected.items():
        parts = [half[key] for half in halves]
        made = torch.cat(parts) if whole.dim() > 1 else parts[0]
        assert torch.equal(made, whole), key

    def experts(key, shape):
        return "experts" in key and ((1, 0, 0), (2, *shape[1:]))

    made = dict(regraft.weights(path, to="model", shard=experts))
    assert len(made) == 4
    assert all(torch.equal(tensor, expected[key][1:3]) for key, tensor in made.items())


def test_reading_ahead_is_bounded_and_ends(hub, monkeypatch):
    import threading

    from regraft import _weights

    path, _ = hub(mixtral)
    read, given = [], []
    inner = _weights.read

    def counted(checkpoint, plan, boxes, outs, framework):
        made = inner(checkpoint, plan, boxes, outs, framework)
        read.extend(tensor.nbytes for tensor in made[0])
        return made

    monkeypatch.setattr(_weights, "read", counted)
    names = regraft.weights(path, to="model", ahead=40_000)
    for _, tensor in names:
        given.append(tensor.nbytes)
        # One that is larger comes alone; besides it nothing is held.
        assert sum(read) - sum(given[:-1]) <= max(40_000, *read)
        if len(given) == 6:
            break
    names.close()
    assert sum(read) < sum(given) + 80_000
    for thread in threading.enumerate():
        if thread.name == "regraft-weights":
            thread.join(10)
            assert not thread.is_alive()


def test_errors_reach_the_caller(tmp_path, hub):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(64)}, tmp_path / "model.safetensors")
    names = regraft.weights(tmp_path / "model.safetensors", rules=[])
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(regraft.CheckpointError):
        list(names)
    with pytest.raises(ValueError, match="there is no part 2 of 2"):
        regraft.weights(hub(mixtral)[0], to="model", shard=(0, 2, 2))


class Engine:
    """Stands for a model of an engine: it reads the hub's layout."""

    def __init__(self, path):
        self.expected = dict(regraft.open(path).items())
        self.loaded = {}

    def named_parameters(self):
        return self.expected.items()

    def load_weights(self, weights):
        self.loaded.update(weights)
        return set(self.loaded)


def assert_loaded(engine):
    assert sorted(engine.loaded) == sorted(engine.expected)
    assert all(torch.equal(engine.loaded[key], engine.expected[key]) for key in engine.loaded)


@pytest.fixture
def packed(hub, tmp_path):
    """A checkpoint that was saved as the model holds it."""
    path, _ = hub(mixtral)
    regraft.convert(path, tmp_path / "packed", to="model")
    return path, str(tmp_path / "packed")


def test_vllm_loads_by_it(packed, monkeypatch):
    path, given = packed
    loaders = {}

    def register_model_loader(name):
        def register(cls):
            loaders[name] = cls
            return cls

        return register

    class BaseModelLoader:
        def __init__(self, load_config):
            self.load_config = load_config

    package, base = types.ModuleType("model_loader"), types.ModuleType("base_loader")
    package.register_model_loader, base.BaseModelLoader = register_model_loader, BaseModelLoader
    root = "vllm.model_executor.model_loader"
    for name, module in (
        ("vllm", types.ModuleType("vllm")),
        ("vllm.model_executor", types.ModuleType("vllm.model_executor")),
        (root, package),
        (f"{root}.base_loader", base),
    ):
        monkeypatch.setitem(sys.modules, name, module)
    import regraft.vllm

    regraft.vllm.register()
    config = types.SimpleNamespace(model_loader_extra_config={})
    loader, engine = loaders["regraft"](config), Engine(path)
    loader.download_model(types.SimpleNamespace(model=given))
    loader.load_weights(engine, types.SimpleNamespace(model=given))
    assert_loaded(engine)
    engine.expected["more"] = torch.zeros(1)
    with pytest.raises(ValueError, match="more"):
        loader.load_weights(engine, types.SimpleNamespace(model=given))


def test_sglang_loads_by_it(packed):
    path, given = packed
    import regraft.sglang

    engine = Engine(path)
    regraft.sglang.load(engine, [("path", given)])
    assert_loaded(engine)

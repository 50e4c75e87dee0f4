"""Training code: keys without wrappers, ties made real, and hooks where modules load and save."""

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import regraft  # noqa: E402
import regraft.torch as hooks  # noqa: E402
from torch import nn  # noqa: E402
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper  # noqa: E402


class Model(nn.Module):
    def __init__(self, tied=False):
        super().__init__()
        self.model = nn.ModuleDict({"embed_tokens": nn.Embedding(6, 4)})
        self.layers = nn.ModuleList(
            [nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)) for _ in range(2)]
        )
        self.lm_head = nn.Linear(4, 6, bias=False)
        self.config = {"tie_word_embeddings": tied}
        if tied:
            self.lm_head.weight = self.model["embed_tokens"].weight

    def forward(self, x):
        x = self.model["embed_tokens"](x)
        for layer in self.layers:
            x = layer(x)
        return self.lm_head(x)


def wrapped(model=None):
    model = model or Model()
    for i, layer in enumerate(model.layers):
        model.layers[i] = torch.compile(checkpoint_wrapper(layer), backend="eager")
    return torch.compile(model, backend="eager")


def test_a_checkpoint_of_a_compiled_and_checkpointed_model_loads_strictly_into_a_bare_one(tmp_path):
    trained = wrapped()
    trained(torch.tensor([1, 2, 3]))
    torch.save(trained.state_dict(), tmp_path / "x.pt")
    saved = torch.load(tmp_path / "x.pt")
    assert any("_orig_mod" in key for key in saved)
    with pytest.raises(RuntimeError):
        Model().load_state_dict(saved)

    bare = Model()
    bare.load_state_dict(hooks.normalize_keys(saved), strict=True)
    for ours, theirs in zip(bare.state_dict().values(), saved.values()):
        assert torch.equal(ours, theirs)

    hooked = Model()
    hooks.add_load_hook(hooked)
    hooked.load_state_dict(saved, strict=True)
    assert torch.equal(hooked.lm_head.weight, trained._orig_mod.lm_head.weight)


def test_and_a_bare_one_into_a_wrapped_one():
    bare = Model()
    target = wrapped()
    handle = hooks.add_load_hook(target)
    target.load_state_dict(bare.state_dict(), strict=True)
    assert torch.equal(target._orig_mod.lm_head.weight, bare.lm_head.weight)
    handle.remove()
    with pytest.raises(RuntimeError):
        target.load_state_dict(bare.state_dict(), strict=True)


def test_normalize_keys_gives_the_same_tensors():
    given = {
        "module._orig_mod.a._fsdp_wrapped_module.w": torch.zeros(1),
        "module.b": torch.zeros(1),
    }
    out = hooks.normalize_keys(given)
    assert set(out) == {"a.w", "b"} and out["b"] is given["module.b"]
    assert set(hooks.normalize_keys({"module.a": 1, "b": 2})) == {"module.a", "b"}
    with pytest.raises(regraft.PlanError) as caught:
        hooks.normalize_keys({"_orig_mod.a": torch.zeros(1), "a": torch.zeros(1)})
    assert set(caught.value.keys) >= {"_orig_mod.a"}
    with pytest.raises(regraft.PlanError, match="FULL_STATE_DICT"):
        hooks.normalize_keys({"_fsdp_wrapped_module._flat_param": torch.zeros(1)})


def test_ties_are_materialized_as_aliases():
    tied = Model(tied=True)
    state_dict = dict(tied.state_dict())
    del state_dict["lm_head.weight"]
    added = hooks.materialize_ties(state_dict, tied)
    assert added == ["lm_head.weight"]
    assert (
        state_dict["lm_head.weight"].data_ptr()
        == state_dict["model.embed_tokens.weight"].data_ptr()
    )
    assert hooks.materialize_ties(state_dict, tied) == []
    Model().load_state_dict(state_dict, strict=True)


def test_any_tie_of_fact_is_materialized():
    model = nn.Module()
    model.a, model.b = nn.Linear(2, 2), nn.Linear(2, 2)
    model.b.weight = model.a.weight
    given = {"b.weight": torch.zeros(2, 2)}
    assert hooks.materialize_ties(given, model) == ["a.weight"]
    assert given["a.weight"] is given["b.weight"]


def test_ensure_tied():
    model = Model()
    model.config = type("Config", (), {"tie_word_embeddings": True})()
    assert hooks.ensure_tied(model)
    assert model.lm_head.weight is model.model["embed_tokens"].weight


RULES = """
ruleset names: old <-> new
rename "embed.weight" <-> "model.embed_tokens.weight"
rename "head.weight" <-> "lm_head.weight"
"""


def test_rules_where_a_module_loads_and_saves():
    rules = regraft.compile(RULES)
    model = wrapped()
    loads, saves = hooks.add_load_hook(model, rules), hooks.add_save_hook(model, rules)
    saved = model.state_dict()
    assert {"embed.weight", "head.weight", "layers.0.0.weight"} <= set(saved)
    assert saved["head.weight"].data_ptr() == model._orig_mod.lm_head.weight.data_ptr()
    other = wrapped()
    hooks.add_load_hook(other, rules)
    other.load_state_dict(saved, strict=True)
    assert torch.equal(other._orig_mod.lm_head.weight, model._orig_mod.lm_head.weight)
    loads.remove(), saves.remove()
    assert "_orig_mod.lm_head.weight" in model.state_dict()


def test_a_hook_on_a_part_changes_only_that_part():
    whole = nn.ModuleDict({"part": Model(), "rest": nn.Linear(2, 2)})
    rules = regraft.compile(RULES)
    hooks.add_save_hook(whole["part"], rules)
    saved = whole.state_dict()
    assert (
        "part.head.weight" in saved
        and "rest.weight" in saved
        and "part.lm_head.weight" not in saved
    )
    other = nn.ModuleDict({"part": Model(), "rest": nn.Linear(2, 2)})
    hooks.add_load_hook(other["part"], rules)
    other.load_state_dict(saved, strict=True)
    assert torch.equal(other["part"].lm_head.weight, whole["part"].lm_head.weight)


def test_a_tied_checkpoint_without_a_head_loads():
    source = Model(tied=True)
    saved = dict(source.state_dict())
    del saved["lm_head.weight"]
    target = Model(tied=True)
    hooks.add_load_hook(target)
    target.load_state_dict(saved, strict=True)
    assert torch.equal(target.lm_head.weight, source.lm_head.weight)
    assert target.lm_head.weight is target.model["embed_tokens"].weight


def test_rules_that_do_not_fit_are_told_where_the_model_loads():
    model = Model()
    hooks.add_load_hook(model, regraft.compile('rename "nothing.like.{it*}" <-> "this.{it*}"'))
    with pytest.raises(regraft.PlanError):
        model.load_state_dict(Model().state_dict())

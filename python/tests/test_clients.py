"""regraft as training code uses it: models in wrappers, whole checkpoints, other processes and
threads, what torch keeps beside a dict."""

import copy
import io
import pickle
import threading
import types
from collections import OrderedDict

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import regraft  # noqa: E402
import regraft.checkpoint_utils as utils  # noqa: E402
import regraft.torch as hooks  # noqa: E402
from torch import nn  # noqa: E402
from torch.optim.swa_utils import AveragedModel  # noqa: E402

NAMES = """
ruleset names: old <-> new
rename "embed.weight" <-> "model.embed_tokens.weight"
rename "head.weight" <-> "lm_head.weight"
"""


class Tied(nn.Module):
    def __init__(self, tied=True):
        super().__init__()
        self.model = nn.Module()
        self.model.embed_tokens = nn.Embedding(8, 4)
        self.norm = nn.BatchNorm1d(4)
        self.lm_head = nn.Linear(4, 8, bias=False)
        if tied:
            self.lm_head.weight = self.model.embed_tokens.weight
        self.config = types.SimpleNamespace(tie_word_embeddings=tied, model_type="llama")


class Engine(nn.Module):
    """As DeepSpeed's engine: the module, and a config that is another thing."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    @property
    def config(self):
        return {"train_batch_size": 1}


class Peft(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.base_model = nn.Module()
        self.base_model.model = module
        self.config = {"model_type": "custom"}


def compiled(module):
    return torch.compile(module, backend="eager")


WRAPPED = {
    "engine": Engine,
    "average": AveragedModel,
    "peft": Peft,
    "compiled": compiled,
    "engine, compiled": lambda module: Engine(compiled(module)),
    "compiled, peft": lambda module: compiled(Peft(module)),
    "engine, compiled, peft": lambda module: Engine(compiled(Peft(module))),
    "average of compiled": lambda module: AveragedModel(compiled(module)),
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_ties_of_a_model_in_wrappers(wrap):
    model = wrap(Tied())
    assert utils.is_tied_word_embeddings(model) and utils.has_local_tied_lm_head(model)
    bare = {"model.embed_tokens.weight": torch.ones(8, 4)}
    assert hooks.materialize_ties(bare, model) == ["lm_head.weight"]
    whole = dict(Tied().state_dict())
    assert hooks.materialize_ties(whole, model) == []
    # Under the wrappers' own names too.
    own = {
        key: value
        for key, value in model.state_dict().items()
        if not key.endswith("lm_head.weight")
    }
    added = hooks.materialize_ties(own, model)
    assert len(added) == 1 and added[0].endswith("lm_head.weight")


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_a_bare_checkpoint_loads_strictly_into_wrappers_and_back(wrap):
    model, given = wrap(Tied(False)), Tied(False)
    hooks.add_load_hook(model, regraft.compile(NAMES))
    old = regraft.compile(NAMES).apply(given.state_dict(), reverse=True)
    model.load_state_dict(old, strict=True)
    for own, value in model.state_dict().items():
        key = next((key for key in given.state_dict() if own.endswith(key)), None)
        assert key is None or torch.equal(value, given.state_dict()[key])
    hooks.add_save_hook(model, regraft.compile(NAMES))
    saved = model.state_dict()
    front = (
        "base_model.model."
        if "peft" in str(wrap).lower() or any("base_model" in key for key in saved)
        else ""
    )
    assert set(saved) == {front + key for key in old}
    model.load_state_dict(saved, strict=True)


def test_an_average_goes_without_its_count():
    averaged = AveragedModel(Tied(False))
    out = hooks.normalize_keys(averaged.state_dict())
    assert list(out) == list(Tied(False).state_dict())
    Tied(False).load_state_dict(out, strict=True)
    # A child of that name beside others is no wrapper.
    kept = {"module.a": 1, "other.b": 2}
    assert hooks.normalize_keys(kept) == kept


def test_a_load_hook_knows_its_target_and_torch_tells_what_is_unknown():
    net = nn.Sequential(nn.Linear(2, 2))
    hooks.add_load_hook(net, "lightning")
    state = {f"model.{key}": value + 1 for key, value in net.state_dict().items()}
    net.load_state_dict(dict(state), strict=True)
    with pytest.raises(RuntimeError, match="Unexpected.*other"):
        net.load_state_dict(dict(state, **{"model.other": torch.zeros(1)}), strict=True)
    found = net.load_state_dict({"model.0.weight": torch.zeros(2, 2)}, strict=False)
    assert found.missing_keys == ["0.bias"] and not net[0].weight.any()
    assert net.load_state_dict({}, strict=False).missing_keys == ["0.weight", "0.bias"]


@pytest.mark.parametrize(
    "again", [lambda x: pickle.loads(pickle.dumps(x)), copy.deepcopy, copy.copy]
)
def test_rules_plans_and_hooked_models_travel(again):
    rules = regraft.compile(NAMES)
    assert again(rules).text == rules.text and again(regraft.load("mixtral")).layouts == (
        "hub",
        "model",
    )
    source = {"embed.weight": torch.zeros(2, 2), "head.weight": torch.zeros(2, 2)}
    plan = rules.plan(source, target={"lm_head.weight": None, "model.embed_tokens.weight": None})
    assert again(plan).to_json() == plan.to_json()
    assert (
        list(again(plan).apply(source))
        == list(plan.apply(source))
        == ["lm_head.weight", "model.embed_tokens.weight"]
    )
    tied = regraft.plan(source, rules="tied_lm_head", config={"tie_word_embeddings": True})
    assert again(tied).to_json() == tied.to_json()


def test_hooked_models_travel():
    model = Tied(False)
    model.config = {"model_type": "custom"}
    hooks.add_load_hook(model, regraft.compile(NAMES))
    hooks.add_save_hook(model, regraft.compile(NAMES))
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (
        pickle.loads(pickle.dumps(model)),
        copy.deepcopy(model),
        torch.load(file, weights_only=False),
    ):
        saved = other.state_dict()
        assert "head.weight" in saved and "lm_head.weight" not in saved
        other.load_state_dict(saved, strict=True)


def test_rules_of_a_file_travel_with_what_they_use(tmp_path):
    (tmp_path / "part.graft").write_text('rename "a" <-> "b"')
    (tmp_path / "whole.graft").write_text('use "part.graft"')
    rules = regraft.load(tmp_path / "whole.graft")
    assert list(pickle.loads(pickle.dumps(rules)).apply({"a": torch.zeros(1)})) == ["b"]


def test_an_opened_checkpoint_is_opened_again(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.ones(2)}, tmp_path / "x.safetensors")
    opened = regraft.open(tmp_path / "x.safetensors")
    opened["a"].zero_()
    again = pickle.loads(pickle.dumps(opened))
    assert again["a"].tolist() == [1, 1] and copy.deepcopy(opened).dtypes == opened.dtypes
    plan = opened.plan(regraft.compile('rename "a" <-> "b"'))
    assert list(pickle.loads(pickle.dumps(plan)).apply(again)) == ["b"]


def test_set_compat_holds_in_every_thread():
    def seen():
        found = []
        thread = threading.Thread(
            target=lambda: found.append(utils._normalize_param_name("a._fsdp_wrapped_module.b"))
        )
        thread.start(), thread.join()
        return found[0]

    assert seen() == "a.b"
    utils.set_compat("reference")
    try:
        assert seen() == "a._fsdp_wrapped_module.b"
        with utils.compat_mode("strict"):
            assert utils._normalize_param_name("a._fsdp_wrapped_module.b") == "a.b"
        assert utils._normalize_param_name("a._fsdp_wrapped_module.b") == "a._fsdp_wrapped_module.b"
    finally:
        utils.set_compat("strict")


class Versioned(nn.Linear):
    _version = 7

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *rest):
        self.seen = local_metadata.get("version")
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)


def versioned(name):
    model = nn.Module()
    model.add_module(name, Versioned(2, 2))
    return model


def test_versions_of_modules_follow_the_names():
    rules = regraft.compile('rename "old.{it*}" <-> "new.{it*}"')
    source = versioned("old").state_dict()
    out = rules.apply(source)
    assert (
        type(out) is OrderedDict
        and out._metadata["new"] == {"version": 7}
        and "old" not in out._metadata
    )
    other = versioned("new")
    other.load_state_dict(out, strict=True)
    assert other.new.seen == 7
    assert type(rules.apply(dict(source))) is dict

    for wrap in (compiled, lambda module: AveragedModel(module)):
        bare = versioned("old")
        bare.load_state_dict(hooks.normalize_keys(wrap(versioned("old")).state_dict()))
        assert bare.old.seen == 7
    hooked = versioned("new")
    hooks.add_load_hook(hooked, rules)
    hooked.load_state_dict(source, strict=True)
    assert hooked.new.seen == 7
    hooks.add_save_hook(hooked, rules)
    assert hooked.state_dict()._metadata["old"] == {"version": 7}
    emptied = OrderedDict(source)
    emptied._metadata = source._metadata
    rules.apply(emptied, inplace=True)
    assert list(emptied) == ["new.weight", "new.bias"] and emptied._metadata["new"] == {
        "version": 7
    }


def test_keys_stay_in_order():
    model = nn.Sequential(OrderedDict(z=nn.Linear(1, 1), a=nn.Linear(1, 1)))
    assert list(hooks.normalize_keys(compiled(model).state_dict())) == list(model.state_dict())
    rules = regraft.compile(
        'map "{x*}.q", "{x*}.k", "{x*}.v" <-> "{x*}.qkv" via concat(0)\n'
        'rename "{x*}.o" <-> "{x*}.out"'
    )
    names = [f"{x}.{w}" for x in ("z", "a") for w in ("q", "k", "v", "o")]
    packed = rules.apply({name: torch.zeros(1) for name in names})
    assert list(packed) == ["z.qkv", "z.out", "a.qkv", "a.out"]
    assert list(rules.apply(packed, reverse=True)) == names
    # A target has an order of its own.
    assert list(
        rules.apply(
            {name: torch.zeros(1) for name in names}, target=["a.out", "z.qkv", "z.out", "a.qkv"]
        )
    ) == [
        "a.out",
        "z.qkv",
        "z.out",
        "a.qkv",
    ]


def test_a_wrong_option_is_a_type_error_that_names_it():
    rules, model = regraft.compile(NAMES), Tied()
    calls = [
        lambda: rules.plan({}, targt=None),
        lambda: rules.apply({}, targt=None),
        lambda: regraft.plan({}, rules=rules, targt=None),
        lambda: regraft.apply({}, rules=rules, targt=None),
        lambda: hooks.add_load_hook(model, rules, targt=None),
        lambda: hooks.add_save_hook(model, rules, targt=None),
        lambda: regraft.convert("x", "y", targt=None),
    ]
    for call in calls:
        with pytest.raises(TypeError, match="`targt`.*did you mean `target`"):
            call()
    with pytest.raises(regraft.RulesError):
        hooks.add_load_hook(model, "no_such_rules")


def test_a_warning_is_told_where_regraft_was_called(recwarn):
    rules = regraft.compile('rename "a" <-> "b"\nrename "nothing.{x*}" <-> "new.{x*}"')
    for call in (
        lambda: rules.apply({"a": torch.zeros(1)}),
        lambda: regraft.apply({"a": torch.zeros(1)}, rules=rules),
    ):
        recwarn.clear()
        call()
        assert [warning.filename for warning in recwarn] in ([], [__file__])


def test_a_whole_checkpoint_is_refused_with_where_the_state_dict_is():
    inner = {"embed.weight": torch.zeros(1)}
    for whole, place in (
        (
            {"model": inner, "optimizer": {"state": {0: {"exp_avg": torch.zeros(1)}}}, "epoch": 3},
            "checkpoint['model']",
        ),
        ({"state_dict": inner, "pytorch-lightning_version": "2"}, "checkpoint['state_dict']"),
        ({"app": {"model": inner}}, "checkpoint['app']['model']"),
    ):
        for call in (
            lambda: regraft.apply(whole, config={"model_type": "mixtral"}),
            lambda: hooks.normalize_keys(whole),
            lambda: regraft.apply(inner, rules=[], target=whole),
        ):
            with pytest.raises(regraft.PlanError) as caught:
                call()
            assert place in str(caught.value)
    # What a module keeps besides tensors is no state dict.
    extra = {"a._extra_state": {"scale": torch.zeros(1)}}
    assert hooks.normalize_keys(extra) == extra
    assert regraft.apply({"a": 1, "b": [2]}, rules=[]) == {"a": 1, "b": [2]}


def test_an_empty_state_dict_gives_an_empty_one(monkeypatch):
    rules = regraft.load("mixtral")
    assert rules.apply({}, to="model") == {} and rules.apply({}, to="model", inplace=True) == {}
    with pytest.raises(regraft.PlanError):
        rules.apply({}, to="model", target=["a"])
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert rules.apply({}, to="model", target=["a"]) == {}


def test_ensure_tied_leaves_one_parameter():
    model = Tied()
    model.lm_head.weight = nn.Parameter(model.model.embed_tokens.weight.detach())
    assert hooks.ensure_tied(model)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    wrapped = Engine(Tied(False))
    wrapped.module.config.tie_word_embeddings = True
    assert (
        hooks.ensure_tied(wrapped)
        and wrapped.module.lm_head.weight is wrapped.module.model.embed_tokens.weight
    )


def test_the_state_of_an_optimizer_follows_its_parameters():
    experts = {
        f"model.layers.0.block_sparse_moe.experts.{e}.{w}.weight": torch.randn(4, 4)
        for e in range(2)
        for w in ("w1", "w2", "w3")
    }
    flat = {
        f"state.{key}.{kind}": value
        for key, value in experts.items()
        for kind in ("exp_avg", "exp_avg_sq")
    }
    flat.update({f"state.{key}.step": torch.tensor(3.0) for key in experts})
    flat.update({f"param_groups.{key}.lr": 0.1 for key in experts})
    packed = regraft.load("mixtral").apply(experts, to="model")
    out = regraft.load("mixtral").apply(flat, to="model")
    for key, value in packed.items():
        assert torch.equal(out[f"state.{key}.exp_avg"], value) and torch.equal(
            out[f"state.{key}.exp_avg_sq"], value
        )
        assert out[f"state.{key}.step"] == 3 and out[f"param_groups.{key}.lr"] == 0.1
    assert len(out) == 4 * len(packed)
    back = regraft.load("mixtral").apply(out, to="hub")
    assert set(back) == set(flat) and all(
        torch.equal(torch.as_tensor(back[key]), torch.as_tensor(flat[key])) for key in flat
    )
    flat["state.model.layers.0.block_sparse_moe.experts.0.w1.weight.step"] = torch.tensor(4.0)
    with pytest.raises(regraft.PlanError, match="step differs"):
        regraft.load("mixtral").apply(flat, to="model")
    with pytest.raises(regraft.PlanError, match="no such value"):
        regraft.compile('map "a" <-> "a" via add(1)').apply({"state.a.exp_avg": torch.zeros(2)})
    with pytest.raises(regraft.PlanError, match="optimizer"):
        regraft.load("mixtral").plan(flat)
    with pytest.raises(regraft.PlanError, match="flatten_optimizer_state_dict"):
        regraft.load("mixtral").apply(
            torch.optim.AdamW([nn.Parameter(torch.zeros(1))]).state_dict()
            | {"state": {0: {"exp_avg": torch.zeros(1)}}}
        )


def test_parameters_without_state_follow_the_others():
    rules = regraft.compile(NAMES)
    flat = {
        "state.head.weight.momentum_buffer": torch.ones(2, 2),
        "param_groups.head.weight.lr": 0.1,
        "param_groups.embed.weight.lr": 0.2,
    }
    out = rules.apply(flat)
    assert out == {
        "state.lm_head.weight.momentum_buffer": flat["state.head.weight.momentum_buffer"],
        "param_groups.lm_head.weight.lr": 0.1,
        "param_groups.model.embed_tokens.weight.lr": 0.2,
    }
    assert rules.apply(out, reverse=True) == flat
    # Experts that no token came to: what is packed of them has one rate.
    names = [
        f"model.layers.0.block_sparse_moe.experts.{e}.{w}.weight"
        for e in range(2)
        for w in ("w1", "w2", "w3")
    ]
    used = {
        f"state.{name.replace('layers.0', 'layers.1')}.exp_avg": torch.ones(2, 2) for name in names
    }
    # What no rule speaks of keeps its name.
    assert (
        regraft.load("mixtral").apply({**used, "param_groups.norm.weight.lr": 0.3}, to="model")[
            "param_groups.norm.weight.lr"
        ]
        == 0.3
    )
    frozen = {**used, **{f"param_groups.{name}.lr": 0.1 for name in names}}
    out = regraft.load("mixtral").apply(frozen, to="model")
    assert out["param_groups.model.layers.0.mlp.experts.gate_up_proj.lr"] == 0.1 and len(out) == 4
    frozen[f"param_groups.{names[0]}.lr"] = 0.2
    with pytest.raises(regraft.PlanError, match="lr differs"):
        regraft.load("mixtral").apply(frozen, to="model")
    del frozen[f"param_groups.{names[0]}.lr"]
    with pytest.raises(regraft.PlanError, match="5 parameters have no state"):
        regraft.load("mixtral").apply(frozen, to="model")


def test_the_nested_state_of_an_optimizer_follows_too():
    from torch.distributed.checkpoint import state_dict as of_torch

    def trained(rename):
        model = nn.ModuleDict({rename("a"): nn.Linear(3, 3), "b": nn.Linear(3, 2)})
        groups = [
            {"params": model[rename("a")].parameters(), "lr": 0.1},
            {"params": model["b"].parameters(), "lr": 0.2},
        ]
        optimizer = torch.optim.AdamW(groups)
        model["b"](model[rename("a")](torch.ones(2, 3))).sum().backward()
        optimizer.step()
        return model, optimizer, of_torch.get_optimizer_state_dict(model, optimizer)

    rules = regraft.compile('rename "a.{x*}" <-> "enc.{x*}"')
    model, _, state = trained(lambda name: name)
    renamed, optimizer, _ = trained(lambda name: "enc" if name == "a" else name)
    out = rules.apply(state)
    assert [group["params"] for group in out["param_groups"]] == [
        ["enc.weight", "enc.bias"],
        ["b.weight", "b.bias"],
    ]
    assert out["state"]["enc.bias"]["exp_avg"] is state["state"]["a.bias"]["exp_avg"]
    assert out["state"]["enc.bias"]["step"] == 1 and out["param_groups"][1]["lr"] == 0.2
    assert rules.apply(out, reverse=True) == state
    # As torch takes it for a model of the new names.
    of_torch.set_optimizer_state_dict(renamed, optimizer, out)
    first = optimizer.state[renamed["enc"].weight]
    assert torch.equal(first["exp_avg"], state["state"]["a.weight"]["exp_avg"])
    # Wrappers go from its names as from those of the model.
    compiled = of_torch.get_optimizer_state_dict(model, torch.optim.SGD(model.parameters()))
    compiled["state"] = {f"_orig_mod.{name}": of for name, of in state["state"].items()}
    compiled["param_groups"][0]["params"] = list(compiled["state"])
    bare = hooks.normalize_keys(compiled)
    assert set(bare["state"]) == set(bare["param_groups"][0]["params"]) == set(state["state"])
    # One tensor has one group, and what is dropped leaves nothing behind.
    rules = regraft.compile('map "a.bias", "b.bias" <-> "biases" via concat(0)\ndrop "a.weight"')
    with pytest.raises(regraft.PlanError, match="their group differs"):
        rules.apply(state)
    state["param_groups"] = [{"params": list(state["state"]), "lr": 0.1}]
    out = rules.apply(state)
    assert set(out["state"]) == {"biases", "b.weight"}
    assert out["param_groups"] == [{"params": ["biases", "b.weight"], "lr": 0.1}]
    assert rules.apply(state, inplace=True) is state and set(state["state"]) == {
        "biases",
        "b.weight",
    }
    # Numbers say nothing of names.
    with pytest.raises(regraft.PlanError, match="get_optimizer_state_dict"):
        rules.apply(torch.optim.SGD(model.parameters()).state_dict() | {"state": {0: {"m": first}}})
    with pytest.raises(regraft.PlanError, match=r"checkpoint\['optimizer'\]"):
        rules.apply({"model": model.state_dict(), "optimizer": out})


def test_meta_tensors_go_through_hooks():
    with torch.device("meta"):
        model = Tied(False)
    rules = regraft.compile(NAMES)
    hooks.add_save_hook(model, rules)
    saved = model.state_dict()
    assert saved["head.weight"].device.type == "meta"
    hooks.add_load_hook(model, rules)
    model.load_state_dict(
        {key: torch.zeros(value.shape, dtype=value.dtype) for key, value in saved.items()},
        strict=True,
        assign=True,
    )
    assert model.lm_head.weight.device.type == "cpu"


def test_a_save_in_another_thread_converts_as_here():
    model = Tied(False)
    hooks.add_save_hook(model, regraft.compile(NAMES))
    found = []
    thread = threading.Thread(target=lambda: found.append(list(model.state_dict())))
    thread.start(), thread.join()
    assert found == [list(model.state_dict())]

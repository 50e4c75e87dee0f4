"""What a module holds as one tensor: a target isn't missing what it shares, and loading leaves one
parameter. And other ways in which training code carries state dicts about."""

import subprocess
import sys
import types
import warnings
from collections import OrderedDict

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import regraft  # noqa: E402
import regraft.torch as hooks  # noqa: E402
from torch import nn  # noqa: E402


class Shares(nn.Module):
    """A tie that no rule file knows, of a weight and of a bias."""

    def __init__(self):
        super().__init__()
        self.words, self.decoder = nn.Linear(4, 8), nn.Linear(4, 8)
        self.decoder.weight, self.decoder.bias = self.words.weight, self.words.bias


RULES = 'rename "old.{it*}" <-> "words.{it*}"'
GIVEN = {"old.weight": torch.ones(8, 4), "old.bias": torch.ones(8)}


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_what_a_target_shares_is_not_missing(device):
    with torch.device(device):
        target = Shares()
    plan = regraft.compile(RULES).plan(GIVEN, target=target)
    assert plan.report.missing == () and plan.report.ties == {
        "decoder.weight": "words.weight",
        "decoder.bias": "words.bias",
    }
    out = plan.apply(GIVEN)
    assert list(out) == list(target.state_dict())
    assert out["decoder.weight"] is out["words.weight"]
    Shares().load_state_dict(out, strict=True)
    # Given by any of its names.
    back = regraft.apply(
        {"decoder.weight": torch.zeros(8, 4), "words.bias": torch.zeros(8)}, rules=[], target=target
    )
    assert back["words.weight"] is back["decoder.weight"]
    # What is there is left as it is, and what nothing gives is missing.
    both = {key: torch.zeros(value.shape) for key, value in target.state_dict().items()}
    assert all(
        regraft.apply(both, rules=[], target=target)[key] is value for key, value in both.items()
    )
    with pytest.raises(regraft.PlanError, match="2 keys") as caught:
        regraft.apply({"words.weight": torch.zeros(8, 4)}, rules=[], target=target)
    assert caught.value.code == "RG305" and set(caught.value.diagnostics[-1].keys) == {
        "words.bias",
        "decoder.bias",
    }


def test_what_a_target_shares_travels_with_its_plan():
    import pickle

    plan = regraft.compile(RULES).plan(GIVEN, target=Shares())
    assert pickle.loads(pickle.dumps(plan)).to_json() == plan.to_json()


def test_a_target_that_says_its_ties():
    model = nn.Module()
    model.words, model.decoder = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    model.all_tied_weights_keys = {"decoder.weight": "words.weight", "no.such": "words.weight"}
    out = regraft.apply({"words.weight": torch.zeros(2, 2)}, rules=[], target=model)
    assert out["decoder.weight"] is out["words.weight"]


@pytest.mark.parametrize(
    "name, head, options",
    [
        (
            "Bert",
            "BertForMaskedLM",
            {
                "hidden_size": 16,
                "intermediate_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "vocab_size": 16,
            },
        ),
        (
            "DistilBert",
            "DistilBertForMaskedLM",
            {"dim": 16, "hidden_dim": 16, "n_layers": 1, "n_heads": 2, "vocab_size": 16},
        ),
        (
            "Bart",
            "BartForConditionalGeneration",
            {
                "d_model": 16,
                "encoder_layers": 1,
                "decoder_layers": 1,
                "encoder_attention_heads": 2,
                "decoder_attention_heads": 2,
                "vocab_size": 16,
            },
        ),
        (
            "T5",
            "T5ForConditionalGeneration",
            {
                "d_model": 16,
                "d_kv": 8,
                "d_ff": 16,
                "num_layers": 1,
                "num_heads": 2,
                "vocab_size": 16,
            },
        ),
    ],
)
def test_saved_models_of_transformers_meet_their_own_class(name, head, options, tmp_path):
    transformers = pytest.importorskip(
        "transformers", "5.0", reason="transformers 5 is not installed"
    )
    config = getattr(transformers, f"{name}Config")(**options)
    source = getattr(transformers, head)(config)
    source.save_pretrained(tmp_path)
    with torch.device("meta"):
        target = getattr(transformers, head)(config)
    saved = regraft.open(tmp_path)
    assert len(saved) < len(source.state_dict()), "or nothing is tied"
    out = regraft.apply(saved, config=config, to="model", target=target)
    assert list(out) == list(source.state_dict()) and all(
        torch.equal(out[key], value) for key, value in source.state_dict().items()
    )


@pytest.mark.parametrize(
    "wrap", [lambda m: m, lambda m: torch.compile(m, backend="eager")], ids=["bare", "compiled"]
)
def test_what_is_assigned_stays_one_parameter(wrap):
    with torch.device("meta"):
        inner = Shares()
    inner.words.bias.requires_grad_(False)
    model = wrap(inner)
    hooks.add_load_hook(model, regraft.compile(RULES))
    model.load_state_dict(dict(GIVEN), strict=True, assign=True)
    assert inner.decoder.weight is inner.words.weight and inner.decoder.bias is inner.words.bias
    assert inner.words.weight.data_ptr() == GIVEN["old.weight"].data_ptr()
    assert inner.words.weight.requires_grad and not inner.words.bias.requires_grad
    assert len(list(model.parameters())) == 2
    # A head, which is found in another way.
    head = nn.Module()
    head.embed_tokens, head.lm_head = nn.Embedding(8, 4), nn.Linear(4, 8, bias=False)
    head.lm_head.weight = head.embed_tokens.weight
    head.config = {"tie_word_embeddings": True}
    hooks.add_load_hook(head, [])
    head.load_state_dict({"embed_tokens.weight": torch.ones(8, 4)}, strict=True, assign=True)
    assert head.lm_head.weight is head.embed_tokens.weight and head.lm_head.weight.eq(1).all()
    # Two that differ are two.
    other = Shares()
    hooks.add_load_hook(other)
    other.load_state_dict(
        {
            key: torch.full(value.shape, float(at))
            for at, (key, value) in enumerate(other.state_dict().items())
        },
        assign=True,
    )
    assert other.decoder.weight is not other.words.weight and not torch.equal(
        other.decoder.weight, other.words.weight
    )


def test_dicts_of_tensors_beside_tensors_are_told():
    inner = {"x": torch.zeros(1)}
    rules = regraft.compile('rename "a" <-> "b"')
    for beside in ({"optimizer": {"state": {0: inner}}}, {"ema": inner}):
        given = {"a": torch.zeros(1), **beside}
        (key,) = beside
        with pytest.warns(regraft.RegraftWarning, match=f"beside tensors.*{key}"):
            out = rules.apply(given)
        assert out[key] is beside[key] and list(out) == ["b", key]
        finding = rules.plan(given).findings[-1]
        assert finding.keys == (key,) and finding.severity == "warning"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            regraft.compile(f'drop "{key}"').apply(given)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for harmless in (
            {"a._extra_state": inner},
            {"epoch": 3, "args": {"lr": 0.1}},
            {"shapes": [1, 2]},
        ):
            assert set(rules.apply({"a": torch.zeros(1), **harmless})) == {"b", *harmless}


def test_parameters_themselves_go_through_a_save_hook():
    model = nn.Module()
    model.words = nn.Linear(4, 8)
    hooks.add_save_hook(model, regraft.compile(RULES))
    kept = model.state_dict(keep_vars=True)
    assert (
        kept["old.weight"] is model.words.weight
        and not model.state_dict()["old.weight"].requires_grad
    )


def test_a_loose_load_tells_both_sides():
    model = Shares()
    hooks.add_load_hook(model, regraft.compile(RULES))
    found = model.load_state_dict(
        {"old.weight": torch.ones(8, 4), "strange": torch.ones(1)}, strict=False
    )
    assert found.unexpected_keys == ["strange"] and found.missing_keys == [
        "words.bias",
        "decoder.bias",
    ]
    assert model.decoder.weight.eq(1).all()


def test_kinds_of_dicts():
    class Own(OrderedDict):
        pass

    given = Own(GIVEN)
    given._metadata = {"old": {"version": 3}}
    out = regraft.compile(RULES).apply(given)
    assert isinstance(out, OrderedDict) and out._metadata["words"] == {"version": 3}
    assert list(regraft.compile(RULES).apply(types.MappingProxyType(GIVEN))) == [
        "words.weight",
        "words.bias",
    ]


def test_keys_that_are_no_text_are_named():
    for given in ({0: torch.zeros(1)}, {"old.weight": torch.zeros(1), ("a", 1): torch.zeros(1)}):
        with pytest.raises(TypeError, match="keys of a state dict are text, and"):
            regraft.apply(given, rules=[])


def test_a_model_that_accelerate_prepared(tmp_path):
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
    accelerator = accelerate.Accelerator(cpu=True)
    model = accelerator.prepare(Shares())
    hooks.add_load_hook(model, regraft.compile(RULES))
    model.load_state_dict(dict(GIVEN), strict=True)
    assert accelerator.unwrap_model(model).decoder.weight.eq(1).all()
    whole = accelerator.get_state_dict(model)
    assert hooks.materialize_ties(whole, model) == []
    hooks.add_save_hook(model, regraft.compile(RULES))
    accelerator.save_model(model, str(tmp_path))
    assert list(regraft.compile(RULES).apply(regraft.open(tmp_path), target=Shares())) == list(
        Shares().state_dict()
    )


SPAWNED = """
import torch, regraft
import regraft.torch as hooks
from torch import nn

def work(queue, rules, plan, model):
    given = {"old.weight": torch.ones(2, 2), "old.bias": torch.ones(2)}
    queue.put([list(rules.apply(given)), list(plan.apply(given)), list(model.state_dict())])

if __name__ == "__main__":
    rules = regraft.compile('rename "old.{it*}" <-> "words.{it*}"')
    model = nn.Module()
    model.words = nn.Linear(2, 2)
    plan = rules.plan({"old.weight": torch.ones(2, 2), "old.bias": torch.ones(2)}, target=model)
    hooks.add_save_hook(model, rules)
    context = torch.multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=work, args=(queue, rules, plan, model))
    process.start()
    print(queue.get(timeout=300))
    process.join()
"""


def test_a_spawned_process_goes_on_with_rules_plans_and_hooks(tmp_path):
    (tmp_path / "main.py").write_text(SPAWNED)
    done = subprocess.run([sys.executable, "main.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(
        [["words.weight", "words.bias"]] * 2 + [["old.weight", "old.bias"]]
    )


def test_get_model_state_dict_of_fsdp2_is_what_rules_take(tmp_path):
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("this torch has no gloo")
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        get_model_state_dict,
        set_model_state_dict,
    )
    from torch.distributed.fsdp import fully_shard

    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1
    )
    try:
        model = fully_shard(Shares(), mesh=torch.distributed.init_device_mesh("cpu", (1,)))
        full = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
        wanted = full["words.weight"] + 1
        old = regraft.compile(RULES).apply(full, reverse=True)
        assert {"old.weight", "old.bias"} <= set(old)
        # A sharded model as target knows what it shares.
        lacking = {key: value + 1 for key, value in old.items() if key.startswith("old")}
        back = regraft.compile(RULES).apply(lacking, target=model)
        assert set(back) == set(full)
        set_model_state_dict(model, back, options=StateDictOptions(full_state_dict=True))
        assert torch.equal(model.decoder.weight.full_tensor(), wanted)
    finally:
        torch.distributed.destroy_process_group()

"""The utilities over models that are wrapped for real: by DDP and both FSDPs, in a group of one
process."""

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
    pytest.skip("this torch has no gloo", allow_module_level=True)

import regraft  # noqa: E402
import regraft.checkpoint_utils as utils  # noqa: E402
import regraft.torch as hooks  # noqa: E402
from torch import nn  # noqa: E402
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard  # noqa: E402
from torch.distributed.tensor import DTensor  # noqa: E402


@pytest.fixture(autouse=True)
def group(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "5")
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


class Model(nn.Module):
    def __init__(self, tied):
        super().__init__()
        self.embed_tokens = nn.Embedding(6, 4)
        self.lm_head = nn.Linear(4, 6, bias=False)
        self.config = type("Config", (), {"tie_word_embeddings": True})()
        if tied:
            self.lm_head.weight = self.embed_tokens.weight


def ddp(model):
    return nn.parallel.DistributedDataParallel(model)


def fsdp1(model):
    return FullyShardedDataParallel(model, use_orig_params=True, device_id=torch.device("cpu"))


def fsdp2(model):
    return fully_shard(model, mesh=torch.distributed.init_device_mesh("cpu", (1,)))


@pytest.mark.parametrize("wrap", [ddp, fsdp2])
def test_ties_are_seen_through_wrappers(wrap):
    tied, untied = wrap(Model(True)), wrap(Model(False))
    assert utils.is_tied_word_embeddings(tied) and utils.is_tied_word_embeddings(untied)
    assert utils.has_local_tied_lm_head(tied)
    assert not utils.has_local_tied_lm_head(untied)
    head, name = utils.get_lm_head_weight_and_name(untied)
    assert name.endswith("lm_head.weight")
    assert isinstance(head, DTensor) == (wrap is fsdp2)
    embedding, _ = utils.get_input_embeddings_weight_and_name(untied)
    assert not utils._same_tensor_storage(head, embedding)
    assert utils.ensure_tied_lm_head(untied)
    assert utils.get_lm_head_weight_and_name(untied)[0] is embedding


def test_fsdp1_leaves_names_that_are_cleaned():
    wrapped = fsdp1(Model(False))
    names = [name for name, _ in wrapped.named_parameters()]
    head, name = utils.get_lm_head_weight_and_name(wrapped)
    assert name == "lm_head.weight"
    assert all("_fsdp_wrapped_module" in name for name in names), "or there is nothing to clean"
    assert {utils._normalize_param_name(name) for name in names} == {
        "embed_tokens.weight",
        "lm_head.weight",
    }


def test_keys_of_ddp_load_into_a_bare_model():
    wrapped = ddp(Model(False))
    bare = Model(False)
    bare.load_state_dict(hooks.normalize_keys(wrapped.state_dict()), strict=True)
    assert torch.equal(bare.lm_head.weight, wrapped.module.lm_head.weight)


def test_sharded_tensors_keep_their_mesh():
    model = fsdp2(Model(False))
    out = hooks.normalize_keys(model.state_dict())
    assert all(isinstance(tensor, DTensor) for tensor in out.values())


def test_the_group_says_the_rank():
    assert (utils.get_rank_safe(), utils.get_world_size_safe(), utils.is_rank_0()) == (0, 1, True)


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed_tokens = nn.Embedding(6, 4)
        self.layers = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))


RULES = 'ruleset names: old <-> new\nrename "embed.{it*}" <-> "embed_tokens.{it*}"'


@pytest.mark.parametrize(
    "wrap",
    [
        ddp,
        fsdp2,
        lambda m: ddp(torch.compile(m, backend="eager")),
        lambda m: torch.compile(ddp(m), backend="eager"),
    ],
)
def test_hooks_on_wrapped_modules(wrap):
    rules, given, model = regraft.compile(RULES), Plain(), wrap(Plain())
    old = rules.apply(given.state_dict(), reverse=True)
    hooks.add_load_hook(model, rules)
    if wrap is fsdp2:
        sharded = {
            key: DTensor.from_local(value, device_mesh=model.embed_tokens.weight.device_mesh)
            for key, value in old.items()
        }
        model.load_state_dict(sharded, strict=True)
    else:
        model.load_state_dict(old, strict=True)
    hooks.add_save_hook(model, rules)
    saved = model.state_dict()
    assert list(saved) == list(old)
    for key, value in saved.items():
        assert torch.equal(value.full_tensor() if isinstance(value, DTensor) else value, old[key])


@pytest.mark.parametrize("orig", [True, False])
@pytest.mark.parametrize("nested", [True, False])
def test_a_load_hook_on_fsdp1(orig, nested):
    from torch.distributed.fsdp import FullStateDictConfig, StateDictType

    def shard(module):
        return FullyShardedDataParallel(module, use_orig_params=orig, device_id=torch.device("cpu"))

    rules, given, model = regraft.compile(RULES), Plain(), Plain()
    if nested:
        model.layers[1] = shard(model.layers[1])
    model = shard(model)
    hooks.add_load_hook(model, rules)
    hooks.add_save_hook(model, rules)
    with FullyShardedDataParallel.state_dict_type(
        model, StateDictType.FULL_STATE_DICT, FullStateDictConfig()
    ):
        old = rules.apply(given.state_dict(), reverse=True)
        model.load_state_dict(dict(old), strict=True)
        saved = model.state_dict()
    assert list(saved) == list(old) and all(torch.equal(saved[key], old[key]) for key in old)


def test_real_peft_is_seen_through():
    peft = pytest.importorskip("peft", reason="peft is not installed")
    rules, given = regraft.compile(RULES), Plain()
    model = ddp(peft.get_peft_model(Plain(), peft.LoraConfig(target_modules=["0"], r=2)))
    hooks.add_load_hook(model, rules)
    found = model.load_state_dict(rules.apply(given.state_dict(), reverse=True), strict=False)
    assert not found.unexpected_keys and all("lora_" in key for key in found.missing_keys)
    inner = model.module.base_model.model
    assert torch.equal(inner.layers[0].base_layer.weight, given.layers[0].weight)
    assert torch.equal(inner.embed_tokens.weight, given.embed_tokens.weight)


@pytest.mark.parametrize("wrap", [ddp, fsdp2])
def test_a_missing_head_of_a_sharded_model_is_its_embedding(wrap):
    model = wrap(Model(True))
    state_dict = hooks.normalize_keys(model.state_dict())
    del state_dict["lm_head.weight"]
    assert utils.materialize_missing_tied_lm_head(state_dict, model)
    head, embedding = state_dict["lm_head.weight"], state_dict["embed_tokens.weight"]
    assert utils._same_tensor_storage(head, embedding)
    assert isinstance(head, DTensor) == (wrap is fsdp2)
    if wrap is fsdp2:
        assert head.placements == embedding.placements

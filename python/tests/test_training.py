"""What training leaves, wrapped and among other things, loads into the bare model, strictly."""

import argparse
import warnings

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")
safetensors = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")

import regraft  # noqa: E402


def tiny():
    config = transformers.LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    return transformers.LlamaForCausalLM(config)


@pytest.fixture(scope="module")
def wrapped():
    """A model, and the same compiled and in DistributedDataParallel."""
    torch.manual_seed(0)
    bare = tiny()
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        yield bare, torch.nn.parallel.DistributedDataParallel(torch.compile(bare))
    finally:
        torch.distributed.destroy_process_group()


def optimizer_of(model):
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    return optimizer.state_dict()


def lightning(bare, wrapped):
    """As Lightning writes it: hyperparameters, loops, callbacks, optimizers in a list."""
    return {
        "epoch": 2,
        "global_step": 8,
        "pytorch-lightning_version": "2.6.6",
        "state_dict": wrapped.state_dict(),
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 2}}}},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(0.5)}},
        "optimizer_states": [optimizer_of(bare)],
        "lr_schedulers": [{"last_epoch": 2, "_last_lr": [1e-4]}],
        "hparams_name": "kwargs",
        "hyper_parameters": {"width": 8},
    }


def deepspeed(bare, wrapped):
    """As DeepSpeed writes `mp_rank_00_model_states.pt`."""
    return {
        "module": wrapped.state_dict(),
        "buffer_names": [],
        "optimizer": None,
        "param_shapes": [{name: p.shape for name, p in bare.named_parameters()}],
        "frozen_param_shapes": None,
        "lr_scheduler": None,
        "random_ltd": None,
        "sparse_tensor_module_names": set(),
        "skipped_steps": 0,
        "global_steps": 10,
        "dp_world_size": 1,
        "mp_world_size": 1,
        "ds_config": {"zero_optimization": {"stage": 1}},
        "ds_version": "0.17.0",
    }


def plain(bare, wrapped):
    """As a loop by hand writes it, with the state of random numbers."""
    return {
        "model": wrapped.state_dict(),
        "ema": {name: tensor * 0 for name, tensor in bare.state_dict().items()},
        "optimizer": optimizer_of(bare),
        "rng_state": torch.get_rng_state(),
        "cuda_rng_states": [torch.get_rng_state()],
        "args": argparse.Namespace(lr=1e-3),
        "epoch": 3,
    }


@pytest.mark.parametrize("is_legacy", [False, True], ids=["archive", "stream"])
@pytest.mark.parametrize("form", [lightning, deepspeed, plain])
def test_a_strict_load_into_the_bare_model(tmp_path, wrapped, form, is_legacy):
    bare, outer = wrapped
    path = tmp_path / "last.ckpt"
    torch.save(form(bare, outer), path, _use_new_zipfile_serialization=not is_legacy)
    bare.config.save_pretrained(tmp_path)
    expected = bare.state_dict()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        regraft.convert(path, tmp_path / "out", materialize_ties=True)
        shown = dict(regraft.open(path).apply())
    written = safetensors.load_file(tmp_path / "out" / "model.safetensors")
    for found in (written, shown):
        assert set(found) == set(expected)
        assert all(torch.equal(found[key], expected[key]) for key in expected)
        tiny().load_state_dict(found, strict=True)

"""Checkpoints that several processes saved by `torch.distributed.checkpoint`, opened by regraft
without any process group, beside what the processes had."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
    pytest.skip("this torch has no gloo", allow_module_level=True)

import regraft
from torch_files import columns, raw, said

# How many checkpoints so many processes save, consolidated ones counted twice.
CHECKPOINTS = {1: 23, 2: 23, 4: 24}


@pytest.fixture(scope="module", params=CHECKPOINTS, ids="{} processes".format)
def saved(request, tmp_path_factory):
    """The directory, how many processes, and what they saved."""
    place = tmp_path_factory.mktemp(f"dcp-{request.param}")
    script = Path(__file__).parent / "dcp_files.py"
    done = subprocess.run(
        [sys.executable, script, str(request.param), str(request.param), place],
        capture_output=True,
        text=True,
        timeout=120,
        # More threads than processors only wait for each other.
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return place, request.param, torch.load(place / "expected.pt")


def compare(opened, expected, root, name):
    """The same keys, dtypes, shapes and bits; with the root before each key or without it."""
    prefix = f"{root}." if root else ""
    if not any(key.startswith(prefix) for key in opened):
        expected = {key[len(prefix) :]: tensor for key, tensor in expected.items()}
    assert set(opened) == set(expected), name
    for key, tensor in expected.items():
        dtype, shape, data = columns(tensor)
        assert (opened.dtypes[key], opened.shapes[key]) == (dtype, shape), (name, key)
        found = opened[key]
        assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape), (name, key)
        assert raw(found) == data, (name, key)


def consolidated(folder):
    """What is in the files that torch made of its shards."""
    load_file = pytest.importorskip("safetensors.torch").load_file
    found = {}
    for file in folder.glob("*.safetensors"):
        found.update(load_file(file))
    return found


def test_every_checkpoint_is_as_it_was_saved(saved):
    place, processes, expected = saved
    assert len(expected) == CHECKPOINTS[processes]
    for name, case in expected.items():
        tensors = case["tensors"]
        if name.endswith("consolidated"):
            # torch 2.15 loses the values of scalars there: what counts is what the files have.
            assert set(consolidated(place / name)) == set(tensors)
            tensors = consolidated(place / name)
        opened = regraft.open(place / case["folder"])
        compare(opened, tensors, case["root"], name)
        if case["root"]:
            assert said(opened), f"{name}: what isn't the model isn't mentioned"


def test_a_root_is_named(saved):
    place, _, expected = saved
    for name, case in expected.items():
        if case["root"]:
            opened = regraft.open(place / case["folder"], root=case["root"])
            compare(opened, case["tensors"], case["root"], name)


def test_checkpoints_are_written_as_one_file(saved, tmp_path):
    load_file = pytest.importorskip("safetensors.torch").load_file
    place, _, expected = saved
    for name in ("plain-0", "plain-1", "nested-0", "shards-0", "fsdp-0"):
        case, out = expected[name], tmp_path / f"{name}.safetensors"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            regraft.convert(place / case["folder"], out, materialize_ties=True)
        found, tensors = load_file(out), case["tensors"]
        prefix = f"{case['root']}." if case["root"] else ""
        if not any(key.startswith(prefix) for key in found):
            tensors = {key[len(prefix) :]: tensor for key, tensor in tensors.items()}
        assert set(found) == set(tensors), name
        for key, tensor in tensors.items():
            assert columns(found[key]) == columns(tensor), (name, key)


@pytest.mark.parametrize("lost", ["__0_0.distcp", ".metadata"])
def test_a_file_that_is_gone_is_named(saved, tmp_path, lost):
    place, _, _ = saved
    for file in (place / "nested-0").iterdir():
        if file.name != lost:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(regraft.CheckpointError) as caught:
        regraft.open(tmp_path)
    assert lost == ".metadata" or lost in str(caught.value)

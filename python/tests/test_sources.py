"""Sources that are no safetensors, as mappings of tensors: which are views and share memory, which
are read, what is said of them, and how they travel. That their values are right, `test_torch_files`
and `test_dcp_files` show."""

import copy
import gc
import json
import os
import pickle
import subprocess
import sys
import warnings
import weakref
import zipfile
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
np = pytest.importorskip("numpy", reason="numpy is not installed")

import regraft  # noqa: E402


def packed(path):
    """A file of `torch.save` with its members compressed, as tools write that repack archives."""
    out = path.with_name(f"packed-{path.name}")
    with zipfile.ZipFile(path) as given, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        for name in given.namelist():
            made.writestr(name, given.read(name))
    return out


def address(tensor):
    return tensor.ctypes.data if isinstance(tensor, np.ndarray) else tensor.data_ptr()


@pytest.fixture(params=["torch", "numpy"])
def framework(request):
    return request.param


@pytest.mark.parametrize("is_packed", [False, True], ids=["stored", "packed"])
def test_keys_that_share_bytes_share_memory(tmp_path, framework, is_packed):
    whole = torch.arange(24.0).view(4, 6)
    path = tmp_path / "x.pt"
    torch.save({"a": whole, "tied": whole, "across": whole.t(), "part": whole[1:3, ::2]}, path)
    opened = regraft.open(packed(path) if is_packed else path, framework=framework)
    a, tied, across, part = (opened[key] for key in ("a", "tied", "across", "part"))
    assert address(a) == address(tied) == address(across) == address(part) - 6 * 4
    assert tied.tolist() == whole.tolist() and across.tolist() == whole.t().tolist()
    a[1, 0] = -1
    assert across[0, 1] == -1 and part[0, 0] == -1
    assert opened["across"][0, 1] == -1, "asked for again, it is the same memory"
    assert regraft.open(path, framework=framework)["part"][0, 0] == 6, "the file is as it was"


def test_a_view_of_a_large_storage_costs_the_view(tmp_path):
    path = tmp_path / "x.pt"
    with open(path, "wb") as file:
        torch.save({"a": torch.zeros(1 << 24)[5:9]}, file)
    opened = regraft.open(path)
    assert opened.nbytes["a"] == 16 and opened["a"].untyped_storage().nbytes() == 16


def test_elements_at_odd_addresses_are_copied(tmp_path, framework):
    path, copied = tmp_path / "x.pt", 0
    for count in range(1, 9):
        # One byte more before the storage each time.
        of = {"x" * count: 1, "a": torch.arange(6.0).view(2, 3).t()}
        of["tied"] = of["a"]
        torch.save(of, path, _use_new_zipfile_serialization=False)
        opened = regraft.open(path, framework=framework)
        a, tied = opened["a"], opened["tied"]
        assert address(a) % 4 == 0 and address(a) == address(tied)
        assert a.tolist() == of["a"].tolist()
        a[0, 0] = 7
        is_copy = len(opened._read)
        copied += is_copy
        # For as long as one of them lives.
        del a
        assert opened["tied"][0, 0] == 7
        del tied
        gc.collect()
        assert opened["tied"][0, 0] == (0 if is_copy else 7)
    assert copied >= 4


def distributed(folder):
    """A checkpoint of one process."""
    import torch.distributed.checkpoint as dcp

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given = {"a": torch.arange(6.0), "b": torch.ones(2, 3)}
        dcp.save({"model": given, "epoch": 3}, checkpoint_id=folder, no_dist=True)
    return given


def slices(folder):
    """Two files of slices, as `HuggingFaceStorageWriter` writes them."""
    save_file = pytest.importorskip("safetensors.torch").save_file
    folder.mkdir()
    whole = torch.arange(1 << 20, dtype=torch.float32).view(1024, 1024)
    for number in range(2):
        said = {"w": {"saved_offsets": [0, 512 * number]}}
        save_file(
            {"w": whole[:, 512 * number : 512 * (number + 1)].contiguous()},
            folder / f"shard-0000{number + 1}-model-00001-of-00001.safetensors",
            metadata={"DCP_SHARDING_INFO": json.dumps(said), "DCP_VERSION": "1.0"},
        )
    return whole


def test_parts_in_several_files_are_read_and_live_as_long_as_their_tensor(tmp_path, framework):
    whole = slices(tmp_path / "in")
    opened = regraft.open(tmp_path / "in", framework=framework)
    tensor = opened["w"]
    assert tensor.tolist() == whole.tolist()
    tensor[3, 700] = -1
    view = tensor[3]
    assert opened["w"][3, 700] == -1, "while it lives, it is the same memory"
    del tensor
    gc.collect()
    assert opened["w"][3, 700] == -1 and view[700] == -1
    (buffer,) = (weakref.ref(buffer) for buffer in opened._read.values())
    del view
    gc.collect()
    assert buffer() is None and opened["w"][3, 700] == whole[3, 700]


def test_apply_asks_for_each_tensor_once_and_lets_go_of_it(tmp_path, monkeypatch):
    whole = slices(tmp_path / "in")
    opened = regraft.open(tmp_path / "in")
    asked = []
    read = regraft.Checkpoint._keep
    monkeypatch.setattr(
        regraft.Checkpoint, "_keep", lambda *args: asked.append(args[1]) or read(*args)
    )
    out = opened.apply(
        regraft.compile('map "w" <-> "a", "b" via split(0)\ntie "c" from "a"\ntie "d" from "b"')
    )
    assert asked == ["w"] and out["c"] is out["a"]
    assert torch.equal(torch.cat([out["a"], out["b"]]), whole)
    halves = opened.apply(regraft.compile('map "w" -> "a", "b" via split(0) | cast(F64)'))
    assert halves["b"].dtype == torch.float64
    out.clear()
    gc.collect()
    assert not opened._read, "what was cast needs it no more"


def test_a_directory_of_dcp(tmp_path, framework):
    given = distributed(tmp_path / "in")
    opened = regraft.open(tmp_path / "in", framework=framework)
    assert set(opened) == set(given)
    assert all(opened[key].tolist() == given[key].tolist() for key in given)
    assert "RG346" in opened.notes[0] and "`model`" in opened.notes[0]
    assert {*regraft.open(tmp_path / "in", root="")} == {"model.a", "model.b"}
    done = regraft.convert(tmp_path / "in", tmp_path / "out")
    assert {"a", "b"} == set(regraft.open(tmp_path / "out")) and done.plan.findings


def nested(path):
    of = {"state_dict": {"a": torch.ones(2)}, "ema": {"a": torch.zeros(2)}, "epoch": 3}
    torch.save(of, path)
    return path


def test_a_root_is_taken_and_said(tmp_path):
    path = nested(tmp_path / "last.ckpt")
    opened = regraft.open(path)
    assert opened["a"].tolist() == [1, 1]
    taken, left = opened.notes
    assert "RG346" in taken and "`state_dict`" in taken and "`ema`" in taken
    assert "RG347" in left and "epoch" in left
    assert [finding.code for finding in opened.plan().findings] == ["RG346", "RG347"]
    other = regraft.open(path, root="ema")
    assert other["a"].tolist() == [0, 0] and "RG346" not in "".join(other.notes)
    regraft.convert(path, tmp_path / "ema", root="ema")
    assert regraft.open(tmp_path / "ema")["a"].tolist() == [0, 0]
    # As a copy and in another process, it is the same root.
    for again in (copy.copy(other), pickle.loads(pickle.dumps(other))):
        assert again["a"].tolist() == [0, 0]
    with pytest.raises(regraft.CheckpointError, match="gone"):
        regraft.open(path, root="gone")


def test_what_a_plan_found_in_files_travels_with_it(tmp_path):
    path = tmp_path / "x.pt"
    tied = torch.ones(2)
    torch.save({"model": {"a": tied, "b": tied}, "optimizer": {"state": {}}, "epoch": 1}, path)
    plan = regraft.plan(path, rules=[])
    again = pickle.loads(pickle.dumps(plan))
    assert again.findings == plan.findings and again.to_json() == plan.to_json()
    assert plan.report.ties == {"b": "a"}


def test_tensors_that_can_not_be_read_are_left_out_with_a_warning(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"a": torch.ones(2), "sparse": torch.ones(2).to_sparse()}, path)
    with pytest.warns(regraft.RegraftWarning, match="RG349.*1 tensor: sparse") as warned:
        opened = regraft.open(path)
    assert [warning.filename for warning in warned] == [__file__]
    assert list(opened) == ["a"] and list(opened.unreadable) == ["sparse"]
    with pytest.raises(regraft.CheckpointError, match="sparse"):
        opened["sparse"]
    with pytest.raises(regraft.PlanError, match="RG349"):
        opened.apply([])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(opened.apply(regraft.compile('drop "sparse"'))) == ["a"]
        pickle.loads(pickle.dumps(opened))


def test_what_a_file_wanted_to_run_is_a_warning(tmp_path):
    class Runs:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'owned'}",)

    torch.save({"a": torch.ones(2), "b": Runs()}, tmp_path / "x.pt")
    opened = regraft.open(tmp_path / "x.pt")
    assert list(opened) == ["a"] and "system" in "".join(opened.notes)
    with pytest.warns(regraft.RegraftWarning, match="RG348.*system"):
        opened.apply([])
    assert not (tmp_path / "owned").exists()


def test_ties_compare_what_is_in_memory(tmp_path, framework):
    path = tmp_path / "x.pt"
    embed = torch.arange(12.0).view(4, 3).t()
    of = {"model.embed_tokens.weight": embed, "lm_head.weight": embed.clone().contiguous()}
    torch.save(of, path)
    save = {"rules": "tied_lm_head", "tied": True, "reverse": True}
    opened = regraft.open(path, framework=framework)
    assert opened.plan(**save).keys() == ["model.embed_tokens.weight"]
    opened["lm_head.weight"][0, 0] = 9
    with pytest.warns(regraft.RegraftWarning, match="differs"):
        assert len(opened.apply(**save)) == 2


def test_arrays_of_numpy(tmp_path, framework):
    arrays = {"c": np.arange(6.0).reshape(2, 3), "f": np.asfortranarray(np.arange(6).reshape(2, 3))}
    arrays["big"] = arrays["c"].astype(">f4")
    np.savez(tmp_path / "x.npz", **arrays)
    np.savez_compressed(tmp_path / "y.npz", **arrays)
    for name in ("x.npz", "y.npz"):
        opened = regraft.open(tmp_path / name, framework=framework)
        assert {key: opened[key].tolist() for key in opened} == {
            key: array.tolist() for key, array in arrays.items()
        }
        assert opened.dtypes == {"c": "F64", "f": "I64", "big": "F32"}


NUMPY_ALONE = """
import sys
sys.path[:0] = [sys.argv[1]]
import regraft
opened = regraft.open(sys.argv[2])
try:
    import torch
except ImportError:
    pass
else:
    raise AssertionError("torch is there")
assert {key: opened[key].tolist() for key in opened} == {"a": [1, 1], "t": [[0, 2], [1, 3]]}
assert type(opened["t"]).__module__ == "numpy"
print(regraft.convert(sys.argv[2], sys.argv[3]).files)
"""


def test_numpy_alone_is_enough(tmp_path):
    torch.save({"a": torch.ones(2), "t": torch.arange(4.0).view(2, 2).t()}, tmp_path / "x.pt")
    site = tmp_path / "site"
    site.mkdir()
    for module in (np, regraft):
        folder = Path(module.__file__).parent
        for found in folder.parent.glob(f"{folder.name}*"):
            if found.name in (folder.name, f"{folder.name}.libs"):
                (site / found.name).symlink_to(found)
    command = [sys.executable, "-I", "-S", "-c", NUMPY_ALONE, site, tmp_path / "x.pt"]
    done = subprocess.run([*command, tmp_path / "out"], capture_output=True, text=True)
    assert done.returncode == 0 and "model.safetensors" in done.stdout, done.stderr

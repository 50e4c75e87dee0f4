"""Checkpoints in files: opened without reading them, and converted in the engine's threads."""

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
safetensors = pytest.importorskip("safetensors", reason="safetensors is not installed")

import regraft  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402


def sharded(folder, shards=2, rows=4):
    folder.mkdir()
    where = {}
    for shard in range(shards):
        name = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        tensors = {
            f"layers.{shard}.weight": torch.randn(rows, 3),
            f"layers.{shard}.bias": torch.randn(rows).bfloat16(),
        }
        save_file(tensors, folder / name, metadata={"format": "pt"})
        where.update(dict.fromkeys(tensors, name))
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": where})
    )
    (folder / "config.json").write_text(json.dumps({"model_type": "unheard_of"}))
    (folder / "tokenizer.json").write_text("{}")
    return folder


RENAME = 'rename "layers.{l}.{leaf*}" <-> "blocks.{l}.{leaf*}"'


def test_a_mapping_of_what_the_files_hold(tmp_path):
    folder = sharded(tmp_path / "in")
    expected = {}
    for file in sorted(folder.glob("*.safetensors")):
        expected.update(load_file(file))
    opened = regraft.open(folder)
    assert set(opened) == set(expected) and len(opened) == 4
    assert opened.dtypes["layers.1.bias"] == "BF16"
    assert opened.shapes["layers.1.weight"] == (4, 3)
    assert opened.nbytes["layers.1.weight"] == 48 and opened.nbytes["layers.1.bias"] == 8
    assert opened.metadata == {"format": "pt"}
    for key, tensor in opened.items():
        assert tensor.dtype == expected[key].dtype and torch.equal(tensor, expected[key])
    with pytest.raises(KeyError):
        opened["gone"]
    assert "gone" not in opened and opened.get("gone") is None


def test_tensors_are_writable_and_the_file_stays(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(3)}, path)
    before = path.read_bytes()
    opened = regraft.open(path)
    tensor = opened["a"]
    tensor += 1
    assert opened["a"].tolist() == [1, 1, 1], "every tensor of a key lies in one map"
    assert path.read_bytes() == before
    assert regraft.open(path)["a"].tolist() == [0, 0, 0]


def test_tensors_outlive_the_mapping(tmp_path):
    import gc

    path = tmp_path / "x.safetensors"
    save_file({"a": torch.arange(1000)}, path)
    tensor = regraft.open(path)["a"]
    gc.collect()
    os.unlink(path)
    assert int(tensor.sum()) == 499500


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(2.5),
        torch.zeros(0, 3),
        torch.tensor([True, False]),
        torch.tensor([1 + 2j]),
        torch.tensor([1, 2], dtype=torch.uint16),
        torch.tensor([1.0, -2.0]).to(torch.float8_e4m3fn),
        torch.tensor([1.0, -2.0]).to(torch.float8_e5m2),
    ],
)
def test_every_shape_and_dtype(tensor, tmp_path):
    save_file({"a": tensor}, tmp_path / "x.safetensors")
    found = regraft.open(tmp_path / "x.safetensors")["a"]
    assert found.dtype == tensor.dtype and found.shape == tensor.shape
    assert (
        found.tolist() == tensor.tolist()
        if tensor.element_size() > 1
        else torch.equal(found.float(), tensor.float())
    )


def test_apply_over_files_is_lazy_and_ties_within_a_file_are_one(tmp_path):
    folder = sharded(tmp_path / "in")
    out = regraft.open(folder).apply(
        regraft.compile(RENAME + '\ntie "head" from "blocks.0.weight"')
    )
    assert set(out) == {
        "blocks.0.weight",
        "blocks.0.bias",
        "blocks.1.weight",
        "blocks.1.bias",
        "head",
    }
    assert out["head"] is out["blocks.0.weight"]


MEASURE = """
import sys, torch, regraft

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

regraft.open(sys.argv[2])["small"].sum()  # everything is imported and warm
before = resident()
opened = regraft.open(sys.argv[1])
tensors = dict(opened)
rules = 'rename "big.{i}" <-> "large.{i}"\\nmap "whole" <-> "half.0", "half.1" via split(0)'
out = opened.apply(regraft.compile(rules))
grown = resident() - before
assert len(out) == 6, list(out)
assert float(out["large.3"][-1, -1]) == 3.0
print(grown)
"""


@pytest.mark.skipif(
    not os.path.exists("/proc/self/statm"), reason="memory is measured as Linux tells it"
)
def test_opening_allocates_no_tensor_memory(tmp_path):
    one = 16 << 20  # elements: 64 MiB
    save_file(
        {f"big.{i}": torch.full((1024, one // 1024), float(i)) for i in range(4)}
        | {"whole": torch.zeros(4096, 4096)},
        tmp_path / "x.safetensors",
    )
    save_file({"small": torch.zeros(1)}, tmp_path / "small.safetensors")
    assert os.path.getsize(tmp_path / "x.safetensors") > 300 << 20
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            MEASURE,
            str(tmp_path / "x.safetensors"),
            str(tmp_path / "small.safetensors"),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 16 << 20, "less than a twentieth of the file"


def test_convert_writes_what_apply_gives(tmp_path):
    folder = sharded(tmp_path / "in")
    seen = []
    done = regraft.convert(
        folder,
        tmp_path / "out",
        rules=regraft.compile(RENAME),
        progress=lambda n, of: seen.append((n, of)),
    )
    assert done.files == ("model.safetensors", "config.json", "tokenizer.json")
    expected = regraft.open(folder).apply(regraft.compile(RENAME))
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert set(written) == set(expected)
    assert all(torch.equal(written[key], expected[key]) for key in expected)
    assert seen and seen[-1] == (2 * (4 * 3 * 4 + 4 * 2),) * 2
    assert done.copied == 4 and done.transformed == 0
    # And back, in pieces.
    back = regraft.convert(
        tmp_path / "out",
        tmp_path / "back",
        rules=regraft.compile(RENAME),
        reverse=True,
        max_shard_size=60,
        side_files=False,
    )
    assert "model.safetensors.index.json" in back.files and "config.json" not in back.files
    assert set(regraft.open(tmp_path / "back")) == set(regraft.open(folder))


def test_a_record_turns_back_what_rules_alone_cannot(tmp_path):
    save_file({"old.a": torch.zeros(2), "b": torch.ones(2)}, tmp_path / "x.safetensors")
    rules = regraft.compile('rename "old.{name*}" -> "{name*}"')
    given = dict(regraft.open(tmp_path / "x.safetensors"))
    plan = rules.plan(given)
    assert set(plan.keys()) == {"a", "b"}
    made = plan.apply(given)
    for record in (plan, plan.record):
        assert set(rules.apply(made, reverse=True, record=record)) == {"old.a", "b"}
    regraft.convert(tmp_path / "x.safetensors", tmp_path / "out", rules=rules, write_record=True)
    assert regraft.plan(tmp_path / "out", rules=rules, reverse=True).keys() == ["b", "old.a"]
    assert set(regraft.open(tmp_path / "out").apply(rules, reverse=True)) == {"old.a", "b"}
    done = regraft.convert(tmp_path / "out", tmp_path / "back", rules=rules, reverse=True)
    assert "regraft.json" not in done.files, "it tells of another conversion"
    with pytest.raises(TypeError):
        rules.apply(made, reverse=True, record=3)
    with pytest.raises(regraft.CheckpointError, match="record"):
        rules.apply(made, reverse=True, record="{")


def test_ranks_share_the_work_and_checksums_are_written(tmp_path):
    folder = sharded(tmp_path / "in", shards=3)
    options = {"rules": regraft.compile(RENAME), "max_shard_size": 60, "checksums": True}
    first = regraft.convert(folder, tmp_path / "out", rank=(0, 2), **options)
    assert not first.details["complete"] and not (tmp_path / "out").exists()
    last = regraft.convert(folder, tmp_path / "out", rank=(1, 2), **options)
    assert last.details["complete"]
    regraft.convert(folder, tmp_path / "alone", **options)
    names = sorted(os.listdir(tmp_path / "alone"))
    assert names == sorted(os.listdir(tmp_path / "out")) and len(names) > 4
    for name in names:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes(), (
            name
        )
    with pytest.raises(ValueError):
        regraft.convert(folder, tmp_path / "x", rank=(2, 2), **options)


def test_a_bar_as_tqdm_makes_them(tmp_path):
    class Bar:
        total, n = None, 0

        def update(self, by):
            self.n += by

    bar = Bar()
    regraft.convert(
        sharded(tmp_path / "in"), tmp_path / "out", rules=regraft.compile(RENAME), progress=bar
    )
    assert bar.n == bar.total == 112
    with pytest.raises(TypeError):
        regraft.convert(
            tmp_path / "in", tmp_path / "out2", rules=regraft.compile(RENAME), progress=3
        )


def test_an_output_that_is_there_is_refused(tmp_path):
    folder = sharded(tmp_path / "in")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("precious")
    with pytest.raises(FileExistsError) as caught:
        regraft.convert(folder, tmp_path / "out", rules=regraft.compile(RENAME))
    assert isinstance(caught.value, regraft.CheckpointError) and caught.value.kind == "exists"
    with pytest.raises(regraft.OutputExistsError):
        regraft.convert(folder, folder, rules=regraft.compile(RENAME), force=True)
    assert (tmp_path / "out" / "mine").read_text() == "precious"


def test_an_exception_of_progress_ends_the_run(tmp_path):
    folder = sharded(tmp_path / "in", rows=1 << 18)

    class Enough(Exception):
        pass

    def progress(done, total):
        raise Enough

    with pytest.raises(Enough):
        regraft.convert(folder, tmp_path / "out", rules=regraft.compile(RENAME), progress=progress)


INTERRUPTED = """
import os, signal, sys, threading, time, regraft
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    rules = regraft.compile('map "a.{i}" -> "b.{i}" via cast(F64) | transpose(0, 1) | exp')
    regraft.convert(sys.argv[1], sys.argv[2], rules=rules, memory=1 << 20)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_control_c_ends_the_run_and_leaves_nothing(tmp_path):
    # Sparse: half a minute's work from a file that takes no room.
    size, count = 1 << 26, 40
    header = {}
    for i in range(count):
        header[f"a.{i}"] = {
            "dtype": "F32",
            "shape": [1 << 12, 1 << 12],
            "data_offsets": [i * size, (i + 1) * size],
        }
    text = json.dumps(header).encode()
    with open(tmp_path / "x.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + count * size)
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(tmp_path / "x.safetensors"), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.strip() == "interrupted", done.stderr
    assert os.listdir(tmp_path) == ["x.safetensors"]
    assert time.monotonic() - start < 60


def test_other_threads_run_meanwhile(tmp_path):
    folder = sharded(tmp_path / "in", rows=1 << 20)
    ticks = [0]
    stop = threading.Event()

    def tick():
        while not stop.is_set():
            ticks[0] += 1
            time.sleep(0.001)

    thread = threading.Thread(target=tick)
    thread.start()
    before = ticks[0]
    regraft.convert(
        folder,
        tmp_path / "out",
        rules=regraft.compile('map "layers.{l}.weight" -> "x.{l}" via cast(F64) | exp'),
    )
    during = ticks[0] - before
    stop.set()
    thread.join()
    assert during >= 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system doesn't fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own(tmp_path):
    folder = sharded(tmp_path / "in")
    regraft.open(folder)
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        try:
            regraft.convert(folder, tmp_path / "out", rules=regraft.compile(RENAME))
        finally:
            os._exit(0 if (tmp_path / "out").is_dir() else 1)
    _, status = os.waitpid(child, 0)
    assert status == 0


def test_broken_files_are_exceptions_with_fields(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"\x10" + b"\0" * 7 + b"{}")
    with pytest.raises(regraft.CheckpointError) as caught:
        regraft.open(tmp_path / "x.safetensors")
    assert caught.value.kind == "corrupt" and caught.value.file.endswith("x.safetensors")
    with pytest.raises(regraft.CheckpointError) as caught:
        regraft.plan(tmp_path / "gone")
    assert caught.value.kind == "io"
    save_file({"a": torch.zeros(100)}, tmp_path / "y.safetensors")
    opened = regraft.open(tmp_path / "y.safetensors")
    os.truncate(tmp_path / "y.safetensors", 120)
    with pytest.raises(regraft.CheckpointError, match="shorter"):
        opened["a"]


def test_a_manifest_plans_and_has_no_bytes(tmp_path):
    (tmp_path / "m.json").write_text(json.dumps({"layers.0.weight": ["F32", [2, 3]]}))
    assert regraft.compile(RENAME).plan(tmp_path / "m.json").keys() == ["blocks.0.weight"]
    opened = regraft.open(tmp_path / "m.json")
    assert opened.shapes["layers.0.weight"] == (2, 3)
    with pytest.raises(regraft.CheckpointError, match="no bytes"):
        opened["layers.0.weight"]


def test_config_beside_the_checkpoint_chooses_the_rules(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    experts = {
        f"model.layers.0.block_sparse_moe.experts.{e}.{w}.weight": torch.randn(2, 2)
        for e in range(2)
        for w in ("w1", "w2", "w3")
    }
    save_file(experts, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "mixtral"}))
    plan = regraft.plan(folder)
    assert ("mixtral", False) in plan.rules and plan.verdict == "converts"
    assert "model.layers.0.mlp.experts.down_proj" in plan
    assert plan.keys() == sorted(regraft.open(folder).apply())
    done = regraft.convert(folder, tmp_path / "out")
    assert done.plan.keys() == plan.keys()
    assert regraft.plan(tmp_path / "out", reverse=True).verdict == "converts"
    assert regraft.plan(tmp_path / "out").verdict == "already"


@pytest.mark.parametrize("framework", ["torch", "numpy"])
def test_ties_in_files_compare_what_is_in_the_map(framework, tmp_path):
    pytest.importorskip(framework, reason=f"{framework} is not installed")
    head = torch.arange(12).view(3, 4).bfloat16()
    save_file(
        {"lm_head.weight": head, "model.embed_tokens.weight": head.clone()},
        tmp_path / "x.safetensors",
    )
    opened = regraft.open(tmp_path / "x.safetensors", framework=framework)
    save = {"rules": "tied_lm_head", "tied": True, "reverse": True}
    assert opened.plan(**save).keys() == ["model.embed_tokens.weight"]
    if framework == "torch":
        opened["lm_head.weight"][0, 0] = 9
        with pytest.warns(regraft.RegraftWarning, match="differs"):
            assert len(opened.apply(**save)) == 2
    assert regraft.plan(tmp_path / "x.safetensors", **save).keys() == [
        "model.embed_tokens.weight"
    ], "the file is as it was"


def test_numpy_over_files(tmp_path):
    numpy = pytest.importorskip("numpy", reason="numpy is not installed")
    save_file({"a": torch.arange(6.0).view(2, 3)}, tmp_path / "x.safetensors")
    opened = regraft.open(tmp_path / "x.safetensors", framework="numpy")
    assert isinstance(opened["a"], numpy.ndarray) and opened["a"].flags.writeable
    out = opened.apply(regraft.compile('map "a" <-> "b" via transpose(0, 1)'))
    assert out["b"].tolist() == [[0, 3], [1, 4], [2, 5]]
    with pytest.raises(ValueError):
        regraft.open(tmp_path / "x.safetensors", framework="jax")


RANKS = """
shards {r: 0..ranks} in "consolidated.{r}.pth"
let ranks
map "{r: 0..ranks}.wq" <-> "q" via concat(0, over r)
map "{r: 0..ranks}.wo" <-> "o" via concat(1, over r)
map "{r: 0..ranks}.norm" <-> "norm" via same(over r)
"""


def ranks_of(whole, count, folder):
    folder.mkdir()
    for rank in range(count):
        part = {
            "wq": whole["q"].chunk(count, 0)[rank].contiguous(),
            "wo": whole["o"].chunk(count, 1)[rank].contiguous(),
            "norm": whole["norm"],
        }
        save_file(part, folder / f"consolidated.{rank:02}.safetensors")
    return folder


def test_files_with_equal_keys_are_told_apart_by_names(tmp_path):
    whole = {"q": torch.randn(8, 6), "o": torch.randn(6, 8), "norm": torch.randn(6)}
    folder = ranks_of(whole, 2, tmp_path / "ranks")
    files = {str(rank): folder / f"consolidated.{rank:02}.safetensors" for rank in range(2)}
    with pytest.raises(regraft.CheckpointError, match="the key is in"):
        regraft.open(list(files.values()))
    # Without a name, keys stay as they are.
    assert set(regraft.open({"": files["0"]})) == {"wq", "wo", "norm"}
    for name in (".", "a..b"):
        with pytest.raises(regraft.CheckpointError, match="can't stand before a key"):
            regraft.open({name: files["0"]})
    opened = regraft.open(files)
    assert set(opened) == {f"{rank}.{key}" for rank in range(2) for key in ("wq", "wo", "norm")}
    assert torch.equal(opened["1.wq"], whole["q"][4:])
    assert torch.equal(pickle.loads(pickle.dumps(opened))["1.wq"], whole["q"][4:])
    rules = regraft.compile(RANKS)
    made = opened.apply(rules)
    assert {key: tensor.tolist() for key, tensor in made.items()} == {
        key: tensor.tolist() for key, tensor in whole.items()
    }
    regraft.convert(files, tmp_path / "whole.safetensors", rules=rules)
    assert_same(load_file(tmp_path / "whole.safetensors"), whole)


def test_files_of_ranks_are_read_and_written_as_rules_say(tmp_path):
    whole = {"q": torch.randn(8, 6), "o": torch.randn(6, 8), "norm": torch.randn(6)}
    rules = regraft.compile(RANKS)
    for count in (1, 2, 4):
        folder = ranks_of(whole, count, tmp_path / f"ranks{count}")
        assert len(regraft.plan(folder, rules=rules)) == 3
        regraft.convert(folder, tmp_path / f"out{count}", rules=rules)
        assert_same(load_file(tmp_path / f"out{count}" / "model.safetensors"), whole)
        back = tmp_path / f"back{count}"
        done = regraft.convert(
            tmp_path / f"out{count}", back, rules=rules, reverse=True, parameters={"ranks": count}
        )
        assert done.files == tuple(f"consolidated.{rank:02}.safetensors" for rank in range(count))
        for name in done.files:
            assert_same(load_file(back / name), load_file(folder / name))


def test_one_tensor_for_each_rank_is_one_in_memory():
    rules = regraft.compile(RANKS)
    whole = {"q": torch.randn(8, 6), "o": torch.randn(6, 8), "norm": torch.randn(6)}
    parts = rules.apply(whole, reverse=True, parameters={"ranks": 2})
    assert parts["0.norm"].data_ptr() == parts["1.norm"].data_ptr() == whole["norm"].data_ptr()
    assert_same(rules.apply(parts), whole)
    parts["1.norm"] = parts["1.norm"] + 1
    with pytest.raises(regraft.PlanError, match="1.norm.* differs from .0.norm"):
        rules.apply(parts)


def assert_same(found, expected):
    assert set(found) == set(expected)
    for key, tensor in expected.items():
        assert torch.equal(found[key], tensor), key

"""What torch and numpy saved, opened by regraft, beside what they load themselves: thousands of
files made at random, compared bit for bit."""

import json
import warnings

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
np = pytest.importorskip("numpy", reason="numpy is not installed")

import regraft
import torch_files
from torch_files import Maker, below, columns, raw, said

# How many files each test makes.
FILES = {
    "flat": 1500,
    "nested": 700,
    "modules": 160,
    "sharded": 200,
    "named": 90,
    "arrays": 100,
    "numpy": 400,
    "converted": 40,
}


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(scope="module")
def dtypes():
    """Those that the archive takes, and those that the container before it takes."""
    return {False: list(torch_files.DTYPES), True: torch_files.legacy_dtypes()}


def load(path, of=None):
    """What torch reads; or, of dtypes that it writes into the older container and then can't read,
    what was saved."""
    try:
        return torch.load(path, weights_only=False)
    except AttributeError:
        if of is None:
            raise
        return of


def compare(opened, expected, seed):
    """The same keys, dtypes, shapes and bits."""
    assert set(opened) == set(expected), seed
    for key, tensor in expected.items():
        dtype, shape, data = columns(tensor)
        assert (opened.dtypes[key], opened.shapes[key]) == (dtype, shape), (seed, key)
        assert opened.nbytes[key] == len(data), (seed, key)
        found = opened[key]
        assert type(found) is torch.Tensor, (seed, key)
        assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape), (seed, key)
        assert raw(found) == data, (seed, key)


def test_enough_files():
    assert sum(FILES.values()) >= 2000


def test_every_dtype_is_made(dtypes):
    """What the others draw from."""
    assert len(dtypes[False]) == 20
    assert set(dtypes[True]) >= {torch.float32, torch.bool, torch.complex64, torch.float8_e5m2}


def test_flat_files(tmp_path, dtypes):
    path = tmp_path / "pytorch_model.bin"
    for seed in range(FILES["flat"]):
        maker, legacy = Maker(seed), seed % 3 == 0
        of = maker.tree(dtypes[legacy])
        torch_files.save(maker, of, path, legacy)
        compare(regraft.open(path), below(load(path, of if legacy else None)), seed)


def test_nested_files(tmp_path, dtypes):
    path = tmp_path / "model.ckpt"
    for seed in range(FILES["nested"]):
        maker, legacy = Maker(seed + 10_000), seed % 3 == 0
        of, root, others = maker.nested(dtypes[legacy])
        torch_files.save(maker, of, path, legacy)
        loaded = load(path, of if legacy else None)
        opened = regraft.open(path)
        compare(opened, below(loaded[root] if root else loaded), (seed, root))
        if root and len(loaded) > 1:
            assert said(opened), f"{seed}: what lies beside {root} isn't mentioned"
        for other in others:
            part = loaded[other] if other else loaded
            compare(regraft.open(path, root=other), below(part), (seed, "root", other))


def test_files_as_arrays(tmp_path, dtypes):
    """Of torch's files, without torch's tensors."""
    path = tmp_path / "model.pt"
    known = [dtype for dtype in dtypes[True] if hasattr(np, str(dtype).split(".")[1])]
    assert len(known) >= 13
    for seed in range(FILES["arrays"]):
        maker, legacy = Maker(seed + 70_000), seed % 3 == 0
        of = maker.tree(known)
        torch_files.save(maker, of, path, legacy)
        opened = regraft.open(path, framework="numpy")
        expected = below(of)
        assert set(opened) == set(expected), seed
        for key, tensor in expected.items():
            found = opened[key]
            assert type(found) is np.ndarray, (seed, key)
            assert found.dtype.name == str(tensor.dtype).split(".")[1], (seed, key)
            assert found.shape == tuple(tensor.shape), (seed, key)
            assert np.ascontiguousarray(found).tobytes() == raw(tensor), (seed, key)


def test_modules(tmp_path):
    path = tmp_path / "model.pt"
    for seed in range(FILES["modules"]):
        maker, legacy = Maker(seed + 20_000), seed % 3 == 0
        module = maker.module()
        of = module.state_dict()
        if maker.chance(0.3):
            of = {"model": of, "epoch": 1}
        torch_files.save(maker, of, path, legacy)
        opened = regraft.open(path)
        compare(opened, module.state_dict(), seed)
        tied = module.lm_head.weight is module.embed_tokens.weight
        if tied:
            # One storage in the file is one in memory.
            places = [opened[f"{name}.weight"].data_ptr() for name in ("lm_head", "embed_tokens")]
            assert legacy or places[0] == places[1], seed
        module.load_state_dict({key: opened[key] for key in opened}, strict=True)


def test_sharded_files(tmp_path, dtypes):
    made = seed = 0
    while made < FILES["sharded"]:
        maker, folder = Maker(seed + 30_000), tmp_path / str(seed)
        expected, shards = torch_files.sharded(maker, folder, dtypes[False])
        made, index = made + shards, folder / "pytorch_model.bin.index.json"
        given = maker.random.choice(["folder", "index", "files"])
        if given == "files":
            compare(regraft.open(sorted(folder.glob("*.bin"))), expected, seed)
        else:
            compare(regraft.open(folder if given == "folder" else index), expected, seed)
        seed += 1
    assert made >= FILES["sharded"]


def unreadable(maker):
    """A tensor that a safetensors file can't have, or that can't be had without code."""
    dense = maker.dense([3, 2], torch.float32).nan_to_num()
    return maker.random.choice(
        [
            lambda: dense.to_sparse(),
            lambda: dense.to_sparse_csr(),
            lambda: torch.empty(2, 3, device="meta"),
            lambda: maker.dense([2], torch.complex128),
            lambda: maker.dense([2], torch.complex32),
            lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
            lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.quint8),
            lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
            lambda: maker.dense([2], torch.complex64).conj(),
            lambda: torch_files.Opaque(dense),
        ]
    )()


def test_what_can_not_be_read_is_named(tmp_path, dtypes):
    path = tmp_path / "model.pt"
    for seed in range(FILES["named"]):
        maker = Maker(seed + 40_000)
        rest = {f"layers.{number}": maker.tensor(dtypes[False]) for number in range(3)}
        of = maker.mixed({**rest, "strange": unreadable(maker)})
        torch.save({"state_dict": of, "epoch": 3} if maker.chance(0.5) else of, path)
        try:
            opened = regraft.open(path)
        except regraft.CheckpointError as error:
            assert "strange" in str(error), (seed, str(error))
        else:
            compare(opened, below(rest), seed)
            assert "strange" in said(opened), (seed, said(opened))


def test_a_negated_tensor_has_its_sign_or_is_refused(tmp_path):
    path = tmp_path / "model.pt"
    negated = torch.tensor([1 + 2j, 3 - 4j]).conj().imag
    assert negated.is_neg()
    torch.save({"w": torch.ones(2), "negated": negated}, path)
    try:
        opened = regraft.open(path)
    except regraft.CheckpointError as error:
        assert "negated" in str(error)
        return
    if "negated" in opened:
        assert opened["negated"].tolist() == [-2, 4]
    else:
        assert "negated" in said(opened)


@pytest.mark.parametrize(
    "of",
    [
        {0: torch.ones(1), 1: torch.ones(2), "1": torch.ones(3)},
        {"a.b": torch.ones(1), "a": {"b": torch.ones(2)}},
        {"state_dict": {"a": [torch.ones(1)], "a.0": torch.ones(2)}},
    ],
)
def test_two_tensors_of_one_key_are_refused(tmp_path, of):
    torch.save(of, tmp_path / "model.pt")
    with pytest.raises(regraft.CheckpointError):
        regraft.open(tmp_path / "model.pt")


def test_a_root_that_is_not_there(tmp_path):
    torch.save({"model": {"w": torch.ones(1)}, "ema": {}, "epoch": 3}, tmp_path / "model.pt")
    for root in ("gone", "model.gone", "ema", "epoch"):
        with pytest.raises(regraft.CheckpointError) as caught:
            regraft.open(tmp_path / "model.pt", root=root)
        assert root in str(caught.value)


def test_keys_stay_in_the_order_of_the_file(tmp_path):
    of = {key: torch.ones(1) for key in ("b", "a", "10", "9", "c")}
    for legacy in (False, True):
        torch.save(of, tmp_path / "x.pt", _use_new_zipfile_serialization=not legacy)
        assert list(regraft.open(tmp_path / "x.pt")) == list(of)


def test_files_beside_a_model_are_no_part_of_it(tmp_path):
    torch.save({"w": torch.ones(2)}, tmp_path / "pytorch_model.bin")
    torch.save(torch_files.Opaque(3), tmp_path / "training_args.bin")
    torch.save({"state": {0: {"exp_avg": torch.ones(2)}}}, tmp_path / "optimizer.pt")
    torch.save({"last_epoch": 3}, tmp_path / "scheduler.pt")
    compare(regraft.open(tmp_path), {"w": torch.ones(2)}, "beside")


def test_what_is_written_to_a_tensor_stays_in_this_process(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"w": torch.zeros(3, 4).t()}, path)
    before = path.read_bytes()
    opened = regraft.open(path)
    tensor = opened["w"]
    tensor += 1
    assert path.read_bytes() == before
    assert regraft.open(path)["w"].sum() == 0


def read_safetensors(folder):
    """Key -> dtype, shape and bytes of all files of a directory, by the format alone."""
    found = {}
    for file in folder.glob("*.safetensors"):
        data = file.read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")
        for key, entry in json.loads(data[8:start]).items():
            if key != "__metadata__":
                begin, end = (start + offset for offset in entry["data_offsets"])
                found[key] = (entry["dtype"], tuple(entry["shape"]), data[begin:end])
    return found


def test_converted_files(tmp_path, dtypes):
    for seed in range(FILES["converted"]):
        maker, legacy = Maker(seed + 50_000), seed % 3 == 0
        path, out = tmp_path / f"{seed}.pt", tmp_path / f"out-{seed}"
        of, root, _ = maker.nested(dtypes[legacy])
        torch_files.save(maker, of, path, legacy)
        loaded = load(path, of if legacy else None)
        expected = below(loaded[root] if root else loaded)
        regraft.convert(path, out, materialize_ties=True)
        assert read_safetensors(out) == {key: columns(of) for key, of in expected.items()}, seed


def test_numpy_files(tmp_path):
    for seed in range(FILES["numpy"]):
        maker = Maker(seed + 60_000)
        if seed % 3 == 0:
            path = tmp_path / "a.npy"
            np.save(path, torch_files.array(maker))
            expected = {None: np.load(path)}
        else:
            path = tmp_path / "a.npz"
            names = ["w", "layers/0/w", "a.b", "ключ", "arr_0", "x y"]
            chosen = maker.random.sample(names, maker.random.randint(1, 4))
            save = np.savez if seed % 3 == 1 else np.savez_compressed
            save(path, **{name: torch_files.array(maker) for name in chosen})
            with np.load(path) as found:
                expected = dict(found.items())
        opened = regraft.open(path, framework="numpy")
        if seed % 3 == 0:
            # A file of one array has no key of its own.
            expected = {next(iter(opened)): expected[None]}
        assert set(opened) == set(expected), seed
        for key, found in expected.items():
            array, given = torch_files.native(found), opened[key]
            assert (given.dtype, given.shape) == (array.dtype, array.shape), (seed, key)
            assert np.ascontiguousarray(given).tobytes() == array.tobytes(), (seed, key)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(3, [("a", "f4"), ("b", "i4")]),
        np.array(["a", "bc"]),
        np.array([b"a", b"bc"]),
        np.array([None, 3], dtype=object),
        np.array(["2026-01-02"], "M8[D]"),
        np.zeros(2, "c16"),
        np.zeros(2, "g"),
    ],
    ids=lambda array: str(array.dtype),
)
def test_arrays_that_no_tensor_can_be_are_refused(tmp_path, array):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    try:
        opened = regraft.open(tmp_path / "a.npy")
    except regraft.CheckpointError:
        pass
    else:
        assert not opened and said(opened)
    np.savez(tmp_path / "a.npz", strange=array, w=np.ones(2))
    try:
        opened = regraft.open(tmp_path / "a.npz")
    except regraft.CheckpointError as error:
        assert "strange" in str(error)
    else:
        assert list(opened) == ["w"] and "strange" in said(opened)

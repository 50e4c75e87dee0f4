"""Files that torch wrote, of the kinds that people have; and those that it wrote in other times or
on other machines, made so."""

import argparse
import contextlib
import datetime
import enum
import functools
import io
import json
import pathlib
import pickle
import struct
import sys
import tarfile
import types
from collections import Counter, OrderedDict, defaultdict
from unittest import mock

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from .expect import at, below, entries, entry, raw
from .pickles import (
    FLOATS,
    Member,
    Raw,
    archive,
    call,
    document,
    name,
    saved,
    storage,
    tensor,
    text,
)
from .pickles import value as opcodes

FILE = "checkpoint.pt"


def floats(*shape):
    return torch.randn(*shape)


def state_dict():
    return OrderedDict({"a.weight": floats(3, 4), "a.bias": floats(3), "steps": torch.tensor(7)})


def foreign(module, item, base=object, **body):
    """A class of a module that nobody has who only reads the file."""
    made = types.new_class(item, (base,), {}, lambda space: space.update(body))
    made.__module__, made.__qualname__ = module, item
    return made


@contextlib.contextmanager
def importable(*classes):
    """Pickles name classes by module; here these modules are there."""
    modules = {}
    for item in classes:
        parts = item.__module__.split(".")
        for end in range(1, len(parts) + 1):
            path = ".".join(parts[:end])
            modules.setdefault(path, types.ModuleType(path))
        setattr(modules[item.__module__], item.__name__, item)
    with mock.patch.dict(sys.modules, modules):
        yield


class Maker:
    """Writes a case: an object by `torch.save`, what is expected of it by loading it again."""

    def __init__(self, cases):
        self.cases = cases

    def save(self, case, of, classes=(), **options):
        path = self.cases.folder(case) / FILE
        with importable(*classes):
            torch.save(of, path, **options)
        return path

    def load(self, path, classes=()):
        with importable(*classes):
            return torch.load(path, weights_only=False, map_location="cpu")

    def read(self, case, of, root="", skipped=(), classes=(), roots=(), options=None, **fields):
        """All tensors under the root are read."""
        path = self.save(case, of, classes, **(options or {}))
        loaded = self.load(path, classes)
        if roots:
            fields["roots"] = {other: entries(below(at(loaded, other))) for other in roots}
        self.cases.readable(case, FILE, below(at(loaded, root)), root, skipped, **fields)

    def named(self, case, of, why, says, rest, maybe=None, classes=(), **fields):
        """What can't be read is named; the rest is read, or the file is refused."""
        self.save(case, of, classes)
        self.cases.refused(case, FILE, why, says, rest, maybe, **fields)


def trees(make):
    sd = state_dict()
    make.read(
        "zip_one_dict_twice",
        {"state_dict": sd, "model": sd},
        root="state_dict",
        skipped=["model"],
        roots=["model", ""],
        note="the second is the first, by the pickle's memo",
    )
    make.read("zip_integer_keys", {0: floats(2), 1: {10: floats(3), 2: floats(1)}, -1: floats(2)})
    collide = {0: floats(2), 4711: floats(3), "4711": floats(4)}
    make.save("refused_keys_of_one_text", collide)
    make.cases.refused("refused_keys_of_one_text", FILE, "collision", ["4711"])
    make.save("refused_keys_by_two_paths", {"one.two": floats(2), "one": {"two": floats(3)}})
    make.cases.refused("refused_keys_by_two_paths", FILE, "collision", ["one.two"])
    make.read("zip_list", [floats(2), floats(3), (floats(1), floats(2, 2))])
    bare = floats(2, 3)
    make.save("zip_bare_tensor", bare)
    make.cases.expect("zip_bare_tensor", FILE, root="", only=entry(bare))
    make.read(
        "zip_nested_deep",
        {"meta": {"epoch": 3}, "a": {"b": [{"w": floats(2)}, {"w": floats(3)}]}, "c": floats(1)},
        note="tensors at several places: by their whole paths",
    )
    make.read(
        "zip_only_dict",
        {"epoch": 3, "weights": OrderedDict(sd), "args": argparse.Namespace(lr=1e-3)},
        root="weights",
        skipped=["epoch", "args"],
        note="the only dict that holds tensors",
    )
    make.read(
        "zip_ema_pair",
        {"state_dict": sd, "state_dict_ema": {k: v + 1 for k, v in sd.items()}, "epoch": 1},
        root="state_dict",
        skipped=["state_dict_ema", "epoch"],
        roots=["state_dict_ema"],
    )
    make.read(
        "zip_empty_model",
        {"model": {}, "module": sd, "epoch": 1},
        root="module",
        skipped=["model", "epoch"],
        note="a root holds a tensor",
    )
    make.read(
        "zip_containers",
        {
            "d": defaultdict(list, {"w": floats(2)}),
            "t": (floats(1), [floats(3)]),
            "e": {},
            "n": None,
        },
    )
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    make.read("zip_metadata", module.state_dict(), note="`_metadata` is no entry")
    make.read("legacy_metadata", module.state_dict(), options=LEGACY)


LEGACY = {"_use_new_zipfile_serialization": False}


def bits(make):
    plain = floats(3)
    pair = torch.tensor([1 + 2j, 3 - 4j])
    neg = pair.conj().imag
    assert neg.is_neg()
    make.named(
        "zip_neg_bit",
        {"plain": plain, "negated": neg},
        "neg",
        ["negated"],
        {"plain": plain},
        {"negated": neg},
    )
    path = make.cases.place / "zip_neg_bit" / FILE
    assert torch.load(path)["negated"].tolist() == [-2, 4]
    make.named(
        "refused_conj_bit",
        {"plain": plain, "turned": pair.conj()},
        "conj",
        ["turned"],
        {"plain": plain},
        {"turned": pair.conj()},
    )


def kinds(make):
    plain = {"plain": floats(2, 2)}

    def named(case, why, key, of, **options):
        make.named(case, {**plain, key: of}, why, [key], plain, **options)

    named("refused_meta", "meta", "hollow", torch.empty(3, 2, device="meta"))
    quantized = torch.quantize_per_tensor(floats(4), 0.1, 10, torch.quint8)
    named("refused_quantized", "quantized", "packed", quantized)
    by_channel = torch.quantize_per_channel(
        floats(2, 3), torch.tensor([0.1, 0.2]), torch.tensor([0, 1]), 0, torch.qint8
    )
    named("refused_quantized_by_channel", "quantized", "packed", by_channel)
    jagged = torch.nested.nested_tensor([floats(2), floats(3)], layout=torch.jagged)
    named("refused_jagged", "nested", "ragged", jagged)
    strided = torch.nested.nested_tensor([floats(2), floats(3)])
    named("refused_nested", "nested", "ragged", strided)
    named("refused_complex128", "dtype", "wide", torch.zeros(2, dtype=torch.complex128))
    named("refused_complex32", "dtype", "narrow", torch.zeros(2, dtype=torch.complex32))
    named("refused_csr", "sparse", "thin", torch.eye(3).to_sparse_csr())
    named("refused_bits8", "dtype", "odd", torch.zeros(2, dtype=torch.uint8).view(torch.bits8))
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    as_tensor = {"array": torch.from_numpy(array)}
    named("refused_array", "array", "array", array, maybe=as_tensor)
    stored = floats(4)
    named("refused_storage", "storage", "raw", stored.untyped_storage())
    Holder = foreign("training.state", "Holder")
    holder = Holder()
    holder.inner = floats(3)
    named("refused_tensor_in_an_object", "code", "kept", holder, classes=[Holder])
    # Once more outside of the root: left out like all that is beside it.
    make.read(
        "zip_tensor_in_an_object_beside",
        {"state_dict": plain, "ema": holder},
        root="state_dict",
        skipped=["ema"],
        classes=[Holder],
    )


def parameters(make):
    marked = nn.Parameter(floats(2, 2))
    marked.tag = "mine"
    Special = foreign("training.tensors", "Special", torch.Tensor)
    special = floats(3).as_subclass(Special)
    special.note = {"scale": 2}
    noted = floats(2)
    noted.origin = "here"
    make.read(
        "zip_parameters_with_state",
        {
            "marked": marked,
            "noted": noted,
            "buffer": nn.Buffer(floats(2)),
            "frozen": nn.Parameter(floats(1), False),
        },
    )
    # torch makes it of the class; without it the data is read all the same, or it is named.
    path = make.save("zip_subclass", {"special": special, "plain": floats(1)}, [Special])
    loaded = make.load(path, [Special])
    tensors = {key: of.as_subclass(torch.Tensor) for key, of in loaded.items()}
    make.cases.readable("zip_subclass", FILE, tensors)
    old = {
        "first": call("torch._utils", "_rebuild_tensor", storage(), 0, (2, 3), (3, 1)),
        "on_gpu": tensor(of=storage(location="cuda:3")),
        "untyped": tensor(of=storage("1", 24, "UntypedStorage", module="torch.storage")),
        "by_bytes": Raw(
            opcodes(
                call(
                    "torch._utils",
                    "_rebuild_tensor_v3",
                    *(
                        storage("1", 24, "UntypedStorage", module="torch.storage"),
                        0,
                        (2, 3),
                        (3, 1),
                    ),
                    *(False, call("collections", "OrderedDict"), Raw(name("torch", "uint16"))),
                )
            )
        ),
    }
    del old["untyped"]  # torch has no dtype for it.
    path = make.cases.folder("zip_rebuilt_otherwise") / FILE
    path.write_bytes(saved(old, {"0": FLOATS, "1": FLOATS}))
    make.cases.readable("zip_rebuilt_otherwise", FILE, make.load(path))
    old = Raw(
        b"}("
        + b"U\1w"
        + tensor()
        + b"T\1\0\0\0v"
        + tensor(offset=3, shape=(3,), stride=(1,))
        + b"u"
    )
    path = make.cases.folder("zip_text_of_python_2") / FILE
    path.write_bytes(saved(old))
    make.cases.readable("zip_text_of_python_2", FILE, make.load(path))


def containers(make):
    sd = {"w": floats(4, 3), "half": floats(5).half(), "twisted": floats(3, 4).t()}
    config = torch.utils.serialization.config
    with mock.patch.object(config.save, "compute_crc32", False):
        make.read("zip_no_crc", sd, note="written with compute_crc32=False")
    path = make.cases.folder("zip_skip_data") / FILE
    with torch.serialization.skip_data():
        torch.save(sd, path)
    make.cases.readable(
        "zip_skip_data", FILE, make.load(path), note="space was left, nothing written"
    )
    buffer = io.BytesIO()
    torch.save(sd, buffer)
    path = make.cases.folder("zip_file_object") / FILE
    path.write_bytes(buffer.getvalue())
    make.cases.readable("zip_file_object", FILE, make.load(path))
    swapped = {
        "f32": floats(2, 3),
        "f16": floats(4).half(),
        "i64": torch.tensor([1, -2]),
        "u8": torch.tensor([1, 2], dtype=torch.uint8),
        "c64": torch.randn(2, dtype=torch.complex64),
        "turned": floats(3, 2).t(),
    }
    as_big = {key: _swapped(of) for key, of in swapped.items()}
    path = make.cases.folder("zip_big_endian") / FILE
    with mock.patch.object(torch.serialization.sys, "byteorder", "big"):
        torch.save(as_big, path)
    loaded = make.load(path)
    assert all(raw(loaded[key]) == raw(of) for key, of in swapped.items())
    make.cases.refused(
        "zip_big_endian", FILE, "big", [], {}, loaded, note="right if it is read, or refused"
    )
    # torch writes the stream's storages little-endian on every machine, and reads them so.
    path = make.cases.folder("legacy_of_a_big_endian_machine") / FILE
    with mock.patch.object(torch.serialization.sys, "byteorder", "big"):
        torch.save(swapped, path, **LEGACY)
    loaded = make.load(path)
    assert all(raw(loaded[key]) == raw(of) for key, of in swapped.items())
    make.cases.refused(
        "legacy_of_a_big_endian_machine",
        FILE,
        "big",
        *([], {}, loaded),
        note="sys_info says big, and storages are little-endian all the same",
    )
    good = document({"w": tensor()})

    def members(folder, **options):
        parts = {"data.pkl": good, "data/0": FLOATS, "version": b"3\n"}
        return [Member(f"{folder}/{part}", data, **options) for part, data in parts.items()]

    for case, data in {
        "zip_64": archive(members("x", zip64=True), zip64=True),
        "zip_64_members": archive(members("x", zip64=True)),
        "zip_comment": archive(members("x"), comment=b"PK\5\6 is no end here"),
        "zip_unicode_folder": archive(members("\u043f\u0430\u043f\u043a\u0430")),
    }.items():
        path = make.cases.folder(case) / FILE
        path.write_bytes(data)
        make.cases.readable(case, FILE, make.load(path))
    (make.cases.folder("zip_nested_folder") / FILE).write_bytes(archive(members("x/y")))
    found = torch.frombuffer(bytearray(FLOATS), dtype=torch.float32).reshape(2, 3)
    make.cases.refused(
        "zip_nested_folder",
        FILE,
        "corrupt",
        *([], {}, {"w": found}),
        note="torch 2.15 refuses it; some tools write it so",
    )


def _swapped(of):
    """The same elements in the other byte order, in the same strides."""
    parts = torch.view_as_real(of) if of.is_complex() else of
    out = parts.numpy().copy(order="K").byteswap()
    turned = torch.from_numpy(out)
    return torch.view_as_complex(turned) if of.is_complex() else turned


def _tar(make):
    """The container before the stream: a tar of pickles and raw tensors."""
    kinds = {
        torch.float32: ("FloatStorage", "FloatTensor", "f"),
        torch.int64: ("LongStorage", "LongTensor", "q"),
    }
    base, numbers = floats(6), torch.tensor([3, 1, 2])
    stored = [(10, base), (11, numbers)]
    # Key, storage, shape, strides, offset.
    tensors = [
        (20, 10, (2, 3), (3, 1), 0, torch.float32),
        (21, 10, (3, 2), (1, 3), 0, torch.float32),
        (22, 11, (2,), (1,), 1, torch.int64),
        (23, 12, (2,), (1,), 0, torch.float32),
    ]
    storages = pickle.dumps(2, 2)
    for key, of in stored:
        named = Raw(name("torch", kinds[of.dtype][0]))
        storages += document((key, "cpu", named)) + struct.pack("<q", of.numel()) + raw(of)
    # A storage that is a part of another: (itself, of which, first element, elements).
    storages += document(Raw(b"](" + opcodes((12, 10, 2, 4)) + b"e"))
    views = pickle.dumps(len(tensors), 2)
    for key, of, shape, stride, offset, dtype in tensors:
        views += document((key, of, Raw(name("torch", kinds[dtype][1]))))
        views += struct.pack("<ii", len(shape), 0)
        views += struct.pack(f"<{len(shape)}q{len(shape)}qq", *shape, *stride, offset)
    items = {f"t{key}": Raw(text(str(key)) + b"Q") for key, *_ in tensors}
    parts = {
        "sys_info": document({"protocol_version": 1000, "little_endian": True}),
        "pickle": document({**items, "epoch": 3}),
        "storages": storages,
        "tensors": views,
    }
    path = make.cases.folder("tar_by_hand") / FILE
    with open(path, "wb") as file:
        with tarfile.open(fileobj=file, mode="w:", format=tarfile.PAX_FORMAT) as tar:
            for part, data in parts.items():
                info = tarfile.TarInfo(part)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    path.write_bytes(path.read_bytes()[:10240].rstrip(b"\0") + bytes(1024))
    data = path.read_bytes()
    path.write_bytes(data + bytes(-len(data) % 512))
    loaded = make.load(path)
    assert loaded["t21"].shape == (3, 2) and loaded["t23"].tolist() == base[2:4].tolist()
    make.cases.refused(
        "tar_by_hand",
        FILE,
        "tar",
        *([], {}, below(loaded)),
        note="before PyTorch 0.1.10: read, or refused with what it is",
    )


def frameworks(make):
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    optimizer = torch.optim.AdamW(model.parameters())
    model(floats(4, 3)).sum().backward()
    optimizer.step()
    Callback = foreign("pytorch_lightning.callbacks", "ModelCheckpoint")
    lightning = {
        "epoch": 3,
        "global_step": 1200,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": {f"net.{key}": of for key, of in model.state_dict().items()},
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 1}}}},
        "callbacks": {Callback: {"best": torch.tensor(0.25), "path": pathlib.PurePosixPath("a/b")}},
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [{"base_lrs": [1e-3], "last": np.float64(0.5)}],
        "hparams_name": "args",
        "hyper_parameters": argparse.Namespace(
            lr=np.float64(1e-3), device=torch.device("cpu"), dtype=torch.bfloat16
        ),
        "rng": {"torch": torch.get_rng_state(), "numpy": np.random.RandomState(0).get_state()},
    }
    lightning["rng"]["torch"] = lightning["rng"]["torch"][:16].clone()
    skipped = [key for key in lightning if key != "state_dict"]
    make.read("zip_lightning_whole", lightning, "state_dict", skipped, [Callback])
    Stage = enum.IntEnum("ZeroStageEnum", {"disabled": 0, "weights": 3})
    Stage.__module__, Stage.__qualname__ = "deepspeed.runtime.zero.config", "ZeroStageEnum"
    deepspeed = {
        "module": {key: of.bfloat16() for key, of in model.state_dict().items()},
        "buffer_names": [],
        "optimizer": None,
        "param_shapes": [OrderedDict((k, v.shape) for k, v in model.state_dict().items())],
        "frozen_param_shapes": None,
        "shared_params": {},
        "lr_scheduler": {"last_batch_iteration": 3},
        "data_sampler": None,
        "random_ltd": None,
        "sparse_tensor_module_names": set(),
        "skipped_steps": 0,
        "global_steps": 4,
        "dp_world_size": 2,
        "ds_config": {"zero_optimization": {"stage": Stage.weights}},
        "ds_version": "0.18.1",
    }
    skipped = [key for key in deepspeed if key != "module"]
    make.read("zip_deepspeed", deepspeed, "module", skipped, [Stage])
    Config = foreign("training.config", "Config")
    config = Config()
    config.lr, config.layers = 1e-3, [1, 2]
    odd = {
        "model": model.state_dict(),
        "config": config,
        "made": functools.partial(int, base=2),
        "when": datetime.datetime(2026, 1, 2),
        "seen": {1, 2},
        "some": frozenset("a"),
        "counts": Counter("aab"),
        "number": 1 + 2j,
        "bytes": b"\0\xff",
        "array": np.arange(3),
        "words": np.array(["a", None], dtype=object),
        "slice": slice(1, None, 2),
        "range": range(3),
        "type": Config,
        "big": 1 << 200,
        "negative": -(1 << 70),
        "size": torch.Size([1, 2]),
        "layout": torch.strided,
        "generator": np.random.default_rng(0),
    }
    skipped = [key for key in odd if key != "model"]
    make.read("zip_odd_values", odd, "model", skipped, [Config], options={"pickle_protocol": 5})
    Net = foreign("training.model", "Net", nn.Module)
    net = Net()
    net.layer, net.extra = nn.Linear(2, 2), nn.Parameter(floats(3))
    net.register_buffer("seen", torch.tensor(4))
    make.named(
        "refused_whole_module_with_children",
        net,
        "module",
        [],
        {},
        net.state_dict(),
        [Net],
        note="its parameters by the names of its state dict, or refused",
    )
    make.named(
        "refused_whole_module_under_model",
        {"model": net, "epoch": 3},
        "module",
        [],
        {},
        net.state_dict(),
        [Net],
    )
    scripted = torch.jit.script(nn.Linear(2, 2))
    path = make.cases.folder("refused_torchscript") / FILE
    torch.jit.save(scripted, str(path))
    make.cases.refused("refused_torchscript", FILE, "torchscript", [], {}, scripted.state_dict())


def indexes(make):
    first, second = {"first.weight": floats(2)}, {"b": floats(3), "c": floats(1)}
    names = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]

    def sharded(case, where):
        folder = make.cases.folder(case)
        if case == right_case:
            for file, of in zip(names, (first, second)):
                torch.save(of, folder / file)
        (folder / "pytorch_model.bin.index.json").write_text(
            json.dumps({"metadata": {"total_size": 23}, "weight_map": where})
        )
        return folder

    def refused(case, where, says):
        sharded(case, where)
        make.cases.refused(case, ".", "corrupt", says, files=shared)

    right_case = "bin_sharded_by_index"
    right = {"first.weight": names[0], "b": names[1], "c": names[1]}
    shared = {name: f"../{right_case}/{name}" for name in names}
    both = {**first, **second}
    sharded(right_case, right)
    note = "total_size in the index is wrong, as in many published ones"
    make.cases.readable(right_case, "pytorch_model.bin.index.json", both, note=note)
    gone = "pytorch_model-00003-of-00003.bin"
    refused("bin_no_file", {**right, "d": gone}, [gone])
    refused("bin_wrong_file", {**right, "first.weight": names[1]}, ["first.weight"])
    refused("bin_key_missing", {**right, "gone.weight": names[1]}, ["gone.weight"])
    refused("hostile_index_parent", {**right, "d": f"../{right_case}/{names[0]}"}, [])
    folder = sharded("bin_beside_safetensors", right)
    save_file(both, folder / "model.safetensors", metadata={"format": "pt"})
    make.cases.readable(
        "bin_beside_safetensors",
        ".",
        both,
        files=shared,
        ties=[],
        note="one checkpoint twice: either, and it is said",
    )


def make(cases):
    torch.manual_seed(11)
    maker = Maker(cases)
    for part in (trees, bits, kinds, parameters, containers, _tar, frameworks, indexes):
        part(maker)

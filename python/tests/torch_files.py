"""Files for tests, made at random from a seed: trees of tensors as people save them with torch, and
arrays as they save them with numpy."""

import argparse
import datetime
import io
import json
import random
from collections import OrderedDict, defaultdict

import numpy as np
import regraft
import torch
from torch import nn

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
    torch.float8_e8m0fnu: "F8_E8M0",
    torch.float4_e2m1fn_x2: "F4",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.complex64: "C64",
}
"""Every dtype of torch that a safetensors file has."""

BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

ROOTS = ["state_dict", "model", "module", "model_state_dict"]
"""Keys below which a state dict is looked for."""

NAMES = ["weight", "bias", "layers", "0", "12", "q_proj", "norm", "running_mean", "_extra", "h"]
ODD = [
    "",
    ".",
    "a.b",
    "x/y",
    " ",
    "\n",
    '"',
    "\\",
    "ключ",
    "重み",
    "\U0001f600",
    "é",
    "e\u0301",
    "%s",
]


class Marked(torch.Tensor):
    """A subclass of tensors, as libraries have them."""


class Opaque:
    """An object of a class that only the training code has."""

    def __init__(self, inner):
        self.inner = inner


def raw(tensor):
    """The bytes of a tensor in row-major order."""
    # As integers: some dtypes can't be copied.
    return tensor.detach().view(BITS[tensor.element_size()]).contiguous().numpy().tobytes()


def columns(tensor):
    """Dtype and shape as safetensors has them, and the bytes."""
    name, shape = DTYPES[tensor.dtype], tuple(tensor.shape)
    if name == "F4":
        shape = (*shape[:-1], shape[-1] * 2)
    return name, shape, raw(tensor)


def below(value, path=()):
    """Every tensor of a tree, by its path: dicts by key, lists and tuples by index."""
    if isinstance(value, torch.Tensor):
        return {".".join(path): value.as_subclass(torch.Tensor)}
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    else:
        return {}
    found = {}
    for key, inner in items:
        found.update(below(inner, (*path, str(key))))
    return found


def said(opened):
    """All that is said of an opened checkpoint: its notes, and what a plan of it finds or is
    refused for."""
    told = list(opened.notes)
    try:
        findings = opened.plan().findings
    except regraft.PlanError as error:
        return "\n".join([*told, str(error)])
    for finding in findings:
        told += [finding.message, *finding.keys, *finding.hints]
    return "\n".join(told)


class Maker:
    """Makes things at random, the same for the same seed."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.torch = torch.Generator().manual_seed(seed)
        self.pool = []

    def chance(self, share):
        return self.random.random() < share

    def dense(self, shape, dtype):
        """A tensor of random bits; of booleans, of zeros and ones."""
        count = 1
        for size in shape:
            count *= size
        if dtype == torch.bool:
            return torch.randint(0, 2, shape, generator=self.torch).bool()
        width = torch.empty(0, dtype=dtype).element_size()
        data = torch.randint(0, 256, (count * width,), dtype=torch.uint8, generator=self.torch)
        return data.view(dtype).reshape(shape)

    def shape(self):
        rank = self.random.choice([0, 1, 1, 2, 2, 2, 3, 4])
        sizes = [0, 1, 2, 3, 4, 5] if self.chance(0.15) else [1, 2, 3, 4, 5, 7]
        return [self.random.choice(sizes) for _ in range(rank)]

    def view(self, tensor):
        """A view of a tensor, by one step."""
        rank = tensor.dim()
        kind = self.random.choice(["slice", "step", "turn", "select", "expand", "stride", "window"])
        if kind == "stride" and tensor.untyped_storage().nbytes():
            return self.strided(tensor)
        if rank == 0:
            return tensor.expand(self.random.randint(0, 3))
        axis = self.random.randrange(rank)
        size = tensor.shape[axis]
        if kind == "turn":
            order = list(range(rank))
            self.random.shuffle(order)
            return tensor.permute(order)
        if kind == "expand":
            return tensor.unsqueeze(0).expand(self.random.randint(1, 3), *tensor.shape)
        if kind == "window" and size > 1:
            return tensor.unfold(axis, self.random.randint(1, size), self.random.randint(1, 2))
        if kind == "select" and size:
            return tensor.select(axis, self.random.randrange(size))
        start = self.random.randint(0, max(0, size - 1))
        step = self.random.randint(1, 3) if kind == "step" else 1
        cut = [slice(None)] * rank
        end = self.random.randint(start if self.chance(0.1) else min(start + 1, size), size)
        cut[axis] = slice(start, end, step)
        return tensor[tuple(cut)]

    def strided(self, tensor):
        """Any strides that stay within the storage: overlapping, repeating, with holes."""
        count = tensor.untyped_storage().nbytes() // tensor.element_size()
        offset = self.random.randrange(count)
        room, shape, stride = count - 1 - offset, [], []
        for _ in range(self.random.randint(0, 3)):
            step = self.random.randint(0, 4)
            size = self.random.randint(1, min(5, room // step + 1 if step else 3))
            room -= step * (size - 1)
            shape.append(size)
            stride.append(step)
        return tensor.as_strided(shape, stride, offset)

    def tensor(self, dtypes):
        """A tensor: its own, a view of its own, or one that shares with an earlier one."""
        if self.pool and self.chance(0.3):
            tensor = self.random.choice(self.pool)
            if self.chance(0.3):
                return tensor
        else:
            dtype = self.random.choice(dtypes)
            if dtype == torch.float4_e2m1fn_x2:
                # Two elements in a byte: only rows of it are cut.
                rows = self.random.randint(1, 5)
                tensor = self.dense([rows, self.random.randint(1, 4)], dtype)
                return tensor[self.random.randrange(rows) :]
            tensor = self.dense(self.shape(), dtype)
        for _ in range(self.random.choice([0, 0, 1, 1, 2, 3])):
            tensor = self.view(tensor)
        self.pool.append(tensor)
        return self.dressed(tensor)

    def dressed(self, tensor):
        """A tensor as training code has it: a parameter, a buffer, a subclass."""
        kind = self.random.choice(["plain"] * 7 + ["parameter", "buffer", "subclass", "noted"])
        if kind == "parameter":
            floats = tensor.dtype.is_floating_point and tensor.element_size() > 1
            return nn.Parameter(tensor, requires_grad=floats and self.chance(0.7))
        if kind == "buffer":
            return nn.Buffer(tensor)
        if kind == "subclass":
            return tensor.as_subclass(Marked)
        if kind == "noted":
            tensor = tensor.view(tensor.shape) if tensor.numel() else tensor.clone()
            tensor.note = "an attribute"
        return tensor

    def value(self):
        """Something that is no tensor, and has none."""
        return self.random.choice(
            [
                *(None, True, 0, -1, 255, 256, 70000, 1 << 40, 1 << 100, -(1 << 70), 0.5, 1e300),
                *("", "text", "x" * 300, "ключ", b"", b"\0\xff", 1 + 2j, [], (), {}, set()),
                *(np.float64(1.5), np.int64(-3), np.bool_(True), np.arange(3)),
                *(torch.Size([1, 2]), torch.float16, torch.device("cpu"), torch.strided),
                *([1, [2, (3,)]], {"a": {"b": None}}, {1: 2}, {(1, 2): 3}, {"a", "b"}),
                *(argparse.Namespace(lr=1e-3, sizes=[1, 2]), datetime.date(2026, 1, 2)),
                *(OrderedDict(a=1), defaultdict(list, a=[1]), Opaque(3), Opaque, slice(1, 2)),
            ]
        )

    def key(self, taken):
        """A key that isn't there yet, also as text."""
        while True:
            key = self.random.choice(NAMES)
            if self.chance(0.15):
                key = self.random.choice(ODD)
            elif self.chance(0.1):
                key = self.random.randint(-3, 30)
            elif self.chance(0.5):
                key = f"{key}.{self.random.randint(0, 9)}.{self.random.choice(NAMES)}"
            if str(key) not in taken:
                return key

    def tree(self, dtypes, depth=2, taken=None, path=()):
        """A dict with a tensor, or several, directly in it; `taken` are all paths so far."""
        taken = set() if taken is None else taken
        made = self.random.choice([dict, dict, OrderedDict])()
        if self.chance(0.05):
            made = defaultdict(list)
        for number in range(self.random.randint(1, 6)):
            for _ in range(20):
                key = self.key([str(other) for other in made])
                whole = ".".join((*path, str(key)))
                if whole not in taken:
                    break
            else:
                continue
            kind = self.random.random()
            if number == 0 or kind < 0.65 or not depth:
                made[key] = self.tensor(dtypes)
                taken.add(whole)
            elif kind < 0.75:
                made[key] = self.value() if self.chance(0.5) else None
                # What may be a tree of its own takes its paths too.
                taken.add(whole)
            elif kind < 0.9:
                made[key] = self.tree(dtypes, depth - 1, taken, (*path, str(key)))
            else:
                items = [self.tensor(dtypes) for _ in range(self.random.randint(1, 3))]
                indices = [f"{whole}.{index}" for index in range(len(items))]
                if taken.isdisjoint(indices):
                    taken.update(indices)
                    made[key] = self.random.choice([list, tuple])(items)
        return made

    def beside(self, count):
        """Things as they lie beside a state dict, none of them with a tensor."""
        names = ["epoch", "global_step", "args", "config", "hyper_parameters", "best", "version"]
        return {key: self.value() for key in self.random.sample(names, count)}

    def optimizer(self):
        state = {
            number: {"step": torch.tensor(3.0), "exp_avg": self.dense([2], torch.float32)}
            for number in range(self.random.randint(1, 3))
        }
        return {"state": state, "param_groups": [{"lr": 1e-3, "params": list(state)}]}

    def mixed(self, items):
        """A dict of the items in any order."""
        order = list(items)
        self.random.shuffle(order)
        return {key: items[key] for key in order}

    def nested(self, dtypes):
        """A file as training code writes it; where its root is, and other roots to ask for."""
        kind = self.random.choice(["named", "named", "optimizer", "only", "list", "several", "ema"])
        beside = self.beside(self.random.randint(0, 4))
        if kind == "list":
            items = [self.tensor(dtypes), self.tree(dtypes), self.tensor(dtypes)]
            self.random.shuffle(items)
            return self.random.choice([list, tuple])(items), "", [""]
        if kind == "several":
            trees = {"generator": self.tree(dtypes), "discriminator": self.tree(dtypes)}
            return self.mixed({**trees, **beside}), "", ["", "generator", "discriminator"]
        if kind == "only":
            root = self.random.choice(["weights", "net", "params", "encoder"])
            return self.mixed({root: self.tree(dtypes), **beside}), root, ["", root]
        root = self.random.choice(ROOTS)
        items = {root: self.tree(dtypes), **beside}
        if kind == "optimizer":
            items[self.random.choice(["optimizer", "optimizer_state_dict"])] = self.optimizer()
            return self.mixed(items), root, [root]
        if kind == "ema":
            other = self.random.choice(["ema", "model_ema", "state_dict_ema"])
            items[other] = self.tree(dtypes)
            return self.mixed(items), root, ["", root, other]
        return self.mixed(items), root, ["", root]

    def module(self):
        """A module with ties, buffers, and nested modules."""
        width = self.random.randint(1, 6)
        layers = [
            nn.Linear(width, self.random.randint(1, 4), bias=self.chance(0.7)),
            nn.BatchNorm1d(width),
            nn.LayerNorm(width),
            nn.Conv2d(width, 2, 3),
            nn.MultiheadAttention(width, 1),
            nn.ParameterDict({"a": nn.Parameter(torch.randn(2, generator=self.torch))}),
        ]
        module = nn.Sequential(*self.random.sample(layers, self.random.randint(1, 4)))
        module.embed_tokens = nn.Embedding(5, width)
        module.lm_head = nn.Linear(width, 5, bias=False)
        module.register_buffer("cos", torch.randn(3, 2, generator=self.torch).t())
        if self.chance(0.5):
            module.lm_head.weight = module.embed_tokens.weight
        if self.chance(0.3):
            module = module.to(self.random.choice([torch.float16, torch.bfloat16]))
        return module


def legacy_dtypes():
    """The dtypes that the container before 1.6 takes."""
    found = []
    for dtype in DTYPES:
        empty = torch.empty(1, dtype=dtype)
        try:
            torch.save(empty, io.BytesIO(), _use_new_zipfile_serialization=False)
        except Exception:
            continue
        found.append(dtype)
    return found


def save(maker, of, path, legacy):
    """Saves in any of the ways that `torch.save` has."""
    options = {"pickle_protocol": maker.random.randint(2, 5)}
    if legacy:
        options["_use_new_zipfile_serialization"] = False
    if maker.chance(0.5):
        torch.save(of, path, **options)
        return
    out = io.BytesIO()
    torch.save(of, out, **options)
    path.write_bytes(out.getvalue())


def sharded(maker, folder, dtypes):
    """A directory of `.bin` with their index; what is in it."""
    folder.mkdir()
    shards, where, expected = maker.random.randint(1, 4), {}, {}
    for shard in range(shards):
        maker.pool.clear()
        name = f"pytorch_model-{shard + 1:05}-of-{shards:05}.bin"
        tensors = {
            f"layers.{shard}.{number}": maker.tensor(dtypes)
            for number in range(maker.random.randint(1, 5))
        }
        torch.save(tensors, folder / name)
        expected.update(below(torch.load(folder / name, weights_only=False)))
        where.update(dict.fromkeys(tensors, name))
    index = {"metadata": {"total_size": maker.random.randint(0, 99)}, "weight_map": where}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return expected, shards


ARRAYS = ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?", "c8"]


def array(maker):
    """An array of any dtype that a safetensors file has, in any order of bytes and elements."""
    dtype = np.dtype(maker.random.choice(ARRAYS))
    shape = maker.shape()
    count = int(np.prod(shape, dtype=int))
    data = bytes(maker.random.randrange(256) for _ in range(count * dtype.itemsize))
    made = np.frombuffer(data, dtype).reshape(shape)
    if dtype.kind == "b":
        made = np.frombuffer(data, "u1").reshape(shape) > 127
    if maker.chance(0.25):
        made = made.astype(dtype.newbyteorder(">"))
    if maker.chance(0.3):
        made = np.asfortranarray(made) if made.ndim else made
    if maker.chance(0.2) and made.ndim:
        made = made[::2]
    return made


def native(found):
    """An array as it is expected: in the machine's order of bytes and in row-major order."""
    return np.array(found, dtype=found.dtype.newbyteorder("="), order="C")

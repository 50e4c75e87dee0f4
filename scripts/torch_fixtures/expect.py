"""What a case is: a directory with a file to open, and `expected.json` on what is in it."""

import hashlib
import json
import shutil
from pathlib import Path

import torch

OWNED = "/tmp/regraft-owned"
"""What hostile files try to make."""

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
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def raw(tensor):
    """The bytes of a tensor, little-endian in row-major order."""
    plain = tensor.detach().resolve_conj().resolve_neg()
    # As integers: some dtypes can't be copied.
    return plain.view(BITS[plain.element_size()]).contiguous().numpy().tobytes()


def entry(tensor):
    """`[dtype, shape, SHA-256]`. Two elements of F4 are one of torch's."""
    name, shape = DTYPES[tensor.dtype], list(tensor.shape)
    if name == "F4":
        shape[-1] *= 2
    return [name, shape, hashlib.sha256(raw(tensor)).hexdigest()]


def entries(tensors):
    return {key: entry(tensor) for key, tensor in tensors.items()}


def ties(tensors):
    """Groups of keys that are one tensor: same storage, offset, shape and strides."""
    groups = {}
    for key, tensor in tensors.items():
        if tensor.numel():
            place = (tensor.untyped_storage().data_ptr(), tensor.storage_offset())
            groups.setdefault((place, tensor.shape, tensor.stride()), []).append(key)
    return [group for group in groups.values() if len(group) > 1]


def below(value, path=()):
    """Every tensor of a tree, by its path: dicts by key, lists and tuples by index."""
    if isinstance(value, torch.Tensor):
        return {".".join(path): value}
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


def at(value, root):
    """The part of a tree that a dotted root names."""
    for name in root.split(".") if root else []:
        value = value[name]
    return value


class Cases:
    """The directory that cases are written to."""

    def __init__(self, place):
        self.place = Path(place)
        self.names = []

    def folder(self, name):
        """A fresh directory for a case."""
        assert name not in self.names, name
        self.names.append(name)
        folder = self.place / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def expect(self, name, opened, **fields):
        """Writes `expected.json` of a case."""
        text = json.dumps({"open": opened, **fields}, indent=0, sort_keys=True)
        (self.place / name / "expected.json").write_text(text + "\n")

    def readable(self, name, opened, tensors, root="", skipped=(), **fields):
        """A case of which all tensors are read."""
        self.expect(
            name,
            opened,
            root=root,
            skipped=list(skipped),
            tensors=entries(tensors),
            ties=fields.pop("ties", ties(tensors)),
            **fields,
        )

    def refused(self, name, opened, why, says=(), rest=None, maybe=None, **fields):
        """A case that is refused whole, or, where `rest` is given, read without what `says`
        names; `maybe` are tensors that it may have then."""
        if rest is not None:
            fields["rest"] = entries(rest)
        if maybe is not None:
            fields["maybe"] = entries(maybe)
        self.expect(name, opened, refused=why, says=list(says), **fields)

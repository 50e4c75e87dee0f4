"""What regraft asks of tensors, for torch and for numpy: facts, bytes that differ, and the
primitive ops of a plan.

Neither is imported before a value of it is seen, or asked for.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import operator
import sys
from collections.abc import Sequence
from typing import Any, Callable

Shape = tuple[int, ...]

# Name in the safetensors format -> torch dtype. F6 has none, and two F4 elements are one of
# torch's.
_TORCH_NAMES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "I16": "int16",
    "U16": "uint16",
    "I32": "int32",
    "U32": "uint32",
    "I64": "int64",
    "U64": "uint64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "C64": "complex64",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F4": "float4_e2m1fn_x2",
}

# Name in the safetensors format -> name in numpy, or in ml_dtypes for what numpy lacks.
_NUMPY_NAMES = {
    **{name: torch_name for name, torch_name in _TORCH_NAMES.items() if name != "F4"},
    "F8_E8M0": "float8_e8m0fnu",
}

_FP4 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)

# Ops of two tensors, element by element.
BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "add_by": operator.add,
    "sub_by": operator.sub,
    "mul_by": operator.mul,
    "div_by": operator.truediv,
}

# What makes no number infinite or NaN that wasn't.
_KEEPS = ("neg", "one_for_zero", "unpack", "lookup", "norm", "absmax")


def _squares(tensor: Any, dims: Sequence[int], padded: Callable[[Any, int], Any]) -> Any:
    """Sums of squares, added in the order of the engine: in eight lanes where neighbours are
    reduced, else one after the other."""
    kept = [dim for dim in range(tensor.ndim) if dim not in dims]
    count = math.prod(tensor.shape[dim] for dim in dims)
    moved = tensor.permute(*kept, *dims) if hasattr(tensor, "permute") else None
    moved = tensor.transpose(*kept, *dims) if moved is None else moved
    rows = moved.reshape(-1, count)
    lanes = 8 if tensor.ndim - 1 in dims and count >= 8 else 1
    squares = padded(rows * rows, -count % lanes)
    sums = squares[:, :lanes]
    for at in range(lanes, squares.shape[1], lanes):
        sums = sums + squares[:, at : at + lanes]
    while sums.shape[1] > 1:
        half = sums.shape[1] // 2
        sums = sums[:, :half] + sums[:, half:]
    return sums


def _in_list(least: float, largest: float, length: int) -> None:
    if not 0 <= least <= largest < length:
        raise ValueError(f"an index of {least} or {largest} leaves the {length} that there are")


# Largest finite numbers, for the dtypes that a cast can overflow; of F8_E8M0, of which each is a
# power of two, as well.
_LARGEST = {
    "F16": 65504.0,
    "BF16": (2 - 2.0**-7) * 2.0**127,
    "F32": (2 - 2.0**-23) * 2.0**127,
    "F64": math.inf,
    "F8_E5M2": 57344.0,
    "F8_E4M3": 448.0,
    "F8_E8M0": 2.0**127,
    "F8_E4M3FNUZ": 240.0,
    "F8_E5M2FNUZ": 57344.0,
}


def _cast_is_safe(from_: str | None, to: str | None) -> bool:
    """Whether every finite number of one dtype is one of the other."""
    if to not in _LARGEST:
        return True
    return from_ in _LARGEST and _LARGEST[from_] <= _LARGEST[to] and to != "F8_E8M0"


# Elements compared at once where tensors differ, so that a mask stays small.
_STRETCH = 1 << 24


def _sinusoids(rows: int, columns: int) -> list[list[float]]:
    """Sinusoidal positions: in row p the sines of p / 10000^(2i / columns), then their cosines."""
    scales = [10_000.0 ** (2.0 * i / columns) for i in range(columns // 2)]
    return [
        [wave(row / scale) for wave in (math.sin, math.cos) for scale in scales]
        for row in range(rows)
    ]


class TorchOps:
    """The ops over torch tensors, on any device."""

    def __init__(self) -> None:
        import torch

        self.torch = torch
        self.dtypes = {
            name: getattr(torch, own) for name, own in _TORCH_NAMES.items() if hasattr(torch, own)
        }
        self.names = {dtype: name for name, dtype in self.dtypes.items()}
        self.tensor_type = torch.Tensor
        self.plain_types = (torch.Tensor, torch.nn.Parameter)
        self._strided = torch.strided
        self._bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

    def guard(self) -> Any:
        return self.torch.no_grad()

    def dtype(self, name: str) -> Any:
        try:
            return self.dtypes[name]
        except KeyError:
            raise TypeError(f"torch {self.torch.__version__} has no dtype for {name}") from None

    def info(self, tensor: Any) -> tuple[str, Shape] | None:
        """dtype and shape as a header has them; None for what has no place in one."""
        name = self.names.get(tensor.dtype)
        if name is None or tensor.layout is not self._strided:
            return None
        if name == "F4":
            shape = tuple(tensor.shape)
            return (name, (*shape[:-1], 2 * shape[-1])) if shape else None
        return name, tensor.shape

    def has_info(self, tensor: Any) -> bool:
        """Whether it has a place in a header, as ``info`` tells, which takes twice as long."""
        name = self.names.get(tensor.dtype)
        if name is None or tensor.layout is not self._strided:
            return False
        return name != "F4" or tensor.ndim > 0

    def own_shape(self, name: str, shape: Shape) -> Shape:
        """A header's shape as torch counts elements."""
        return (*shape[:-1], shape[-1] // 2) if name == "F4" and shape else shape

    def from_buffer(
        self,
        buffer: Any,
        name: str,
        shape: Shape,
        offset: int,
        count: int,
        strides: Shape | None = None,
    ) -> Any:
        """A tensor over bytes of a buffer; strides are in elements, and none means one run."""
        dtype, shape = self.dtype(name), self.own_shape(name, shape)
        if count == 0:
            return self.torch.empty(shape, dtype=dtype)
        flat = self.torch.frombuffer(
            buffer, dtype=dtype, count=count // dtype.itemsize, offset=offset
        )
        if strides is not None:
            return flat.as_strided(shape, strides)
        # Sizes one by one are read faster than a tuple of them, but none is no view.
        return flat.view(*shape) if shape else flat.view(())

    def place(self, tensor: Any) -> Any:
        """What tensors must share to be put together without a copy of their own; None if only
        torch knows how."""
        return tensor.device if type(tensor) in self.plain_types else None

    def detached(self, tensor: Any) -> Any:
        """A parameter's tensor: what is made of it is no parameter."""
        return tensor.detach() if tensor.requires_grad else tensor

    def empty(self, shape: Shape, name: str, place: Any) -> Any:
        return self.torch.empty(shape, dtype=self.dtype(name), device=place)

    def fill(self, value: float, name: str, shape: Shape, place: Any) -> Any:
        dtype = self.dtype(name)
        if dtype.is_floating_point or dtype.is_complex:
            return self.torch.full(shape, value, dtype=self.torch.float64, device=place).to(dtype)
        return self.torch.full(shape, int(value), dtype=dtype, device=place)

    def sinusoids(self, name: str, shape: Shape, place: Any) -> Any:
        values = self.torch.tensor(_sinusoids(*shape), dtype=self.torch.float64, device=place)
        return values.reshape(shape).to(self.dtype(name))

    def copy(self, out: Any, tensor: Any) -> None:
        out.copy_(tensor)

    def own(self, tensor: Any) -> Any:
        """A copy in a storage of its own."""
        return tensor.clone()

    def narrow(self, tensor: Any, dim: int, start: int, length: int) -> Any:
        return tensor.narrow(dim, start, length)

    def unbind(self, tensor: Any, dim: int) -> Sequence[Any]:
        return tensor.unbind(dim)

    def permute(self, tensor: Any, dims: Sequence[int]) -> Any:
        return tensor.permute(tuple(dims))

    def reshape(self, tensor: Any, shape: Shape) -> Any:
        # torch gives a view wherever strides allow it.
        return tensor.reshape(shape)

    def view(self, tensor: Any, shape: Shape) -> Any:
        try:
            return tensor.view(shape)
        except RuntimeError:
            return None

    def concat(self, tensors: Sequence[Any], dim: int) -> Any:
        return self.torch.cat(list(tensors), dim)

    def cast(self, tensor: Any, name: str) -> Any:
        made = tensor.to(self.dtype(name))
        if name == "F8_E4M3" and tensor.dtype != made.dtype:
            self._unsaturate(local(tensor), local(made))
        return made

    def _unsaturate(self, tensor: Any, made: Any) -> None:
        """F8_E4M3 has no infinity: what is too large becomes NaN, as over files. Newer versions of
        torch make it the largest number, infinity as well, of which nobody would hear."""
        if (
            type(made) not in self.plain_types
            or "meta" in (made.device.type, tensor.device.type)
            or made.numel() == 0
        ):
            return
        wide = tensor.float()
        least, largest = wide.aminmax()
        # Half way to what would be the next number.
        if not max(-least.item(), largest.item()) <= 464.0:
            made.view(self.torch.uint8)[~(wide.abs() <= 464.0)] |= 0x7F

    def arithmetic(self, op: str, tensor: Any, value: float) -> Any:
        # Plans have arithmetic on floats only; up to 32 bits they compute in float32, as the engine
        # does.
        wide = tensor if tensor.dtype == self.torch.float64 else tensor.float()
        if op in ("add", "mul"):
            return (wide + value if op == "add" else wide * value).to(tensor.dtype)
        if op == "one_for_zero":
            return tensor.masked_fill(tensor == 0, 1)
        return getattr(self.torch, op)(wide).to(tensor.dtype)

    def count(self, name: str, shape: Shape, place: Any) -> Any:
        return self.torch.arange(shape[0], dtype=self.dtype(name), device=place)

    def expand(self, tensor: Any, shape: Shape) -> Any:
        return tensor.expand(shape)

    def binary(self, op: str, a: Any, b: Any, name: str) -> Any:
        """Computed in float32, or float64 where one of them is, and rounded once."""
        torch = self.torch
        double = torch.float64 in (a.dtype, b.dtype) or name == "F64"
        wide = torch.float64 if double else torch.float32
        return self.cast(BINARY[op](a.to(wide), b.to(wide)), name)

    def reduced(self, op: str, tensor: Any, dims: Shape, name: str) -> Any:
        torch = self.torch
        wide = tensor if tensor.dtype == torch.float64 else tensor.float()
        shape = [1 if dim in dims else size for dim, size in enumerate(tensor.shape)]
        if tensor.numel() == 0:
            made = torch.zeros(shape, dtype=wide.dtype, device=tensor.device)
        elif op == "absmax":
            made = wide.abs().amax(tuple(dims), keepdim=True)
        else:
            pad = torch.nn.functional.pad
            made = self._root(_squares(wide, dims, lambda rows, count: pad(rows, (0, count))))
        return self.cast(made.reshape(shape), name)

    def product(self, a: Any, b: Any) -> Any:
        """As torch multiplies matrices on the device: on a CPU, for short rows, what the engine
        gives."""
        return a @ b

    def _root(self, sums: Any) -> Any:
        """Square roots, rounded as IEEE 754 asks for. torch's own are off by a last bit on some
        CPUs (MKL's, on AMD); twice the bits, rounded, are right."""
        torch = self.torch
        if sums.dtype == torch.float32 or sums.device.type == "meta":
            return sums.double().sqrt().to(sums.dtype)
        roots = [math.sqrt(one) for one in sums.flatten().tolist()]
        return torch.tensor(roots, dtype=sums.dtype, device=sums.device).reshape(sums.shape)

    def unpack(self, tensor: Any, bits: int) -> Any:
        torch = self.torch
        codes = tensor.contiguous().unsqueeze(-1).view(torch.uint8)
        return torch.stack((codes & 15, codes >> 4), -1).flatten(-2) if bits == 4 else codes

    def decode(self, codes: Any, code: str) -> Any:
        torch = self.torch
        if code == "e2m1":
            return torch.tensor(_FP4, dtype=torch.float32, device=codes.device)[(codes & 15).long()]
        one = torch.ones((), dtype=torch.float32, device=codes.device)
        return torch.ldexp(one, codes.to(torch.int32) - 127)

    def lookup(self, codes: Any, values: Any) -> Any:
        if codes.numel() and "meta" not in (codes.device.type, values.device.type):
            least, largest = codes.aminmax()
            _in_list(least.item(), largest.item(), len(values))
        return values[codes.long()]

    def overflowed(self, op: str, values: Sequence[Any], made: Any, arguments: Any) -> int:
        """How many elements are infinite or NaN though they were computed from finite ones: one
        pass that takes no memory, if there are none."""
        torch = self.torch
        # Of others there are no numbers to look at, or only their own framework could.
        if (
            type(made) not in self.plain_types
            or "meta" in (made.device.type, values[0].device.type)
            or made.numel() == 0
        ):
            return 0
        value = values[0]
        if op in _KEEPS or (
            op == "cast" and _cast_is_safe(self.names.get(value.dtype), self.names.get(made.dtype))
        ):
            return 0
        if not self._not_finite_at_all(made):
            return 0
        lost = ~torch.isfinite(self._wide(made))
        if op == "decode":
            # As a power of two, 255 is no number.
            lost &= value != 255
        else:
            for value in values:
                lost &= self._finite(value)
        return int(lost.sum())

    def _wide(self, tensor: Any) -> Any:
        """Floats of less than 16 bits have no ops of their own."""
        return (
            tensor.float()
            if tensor.dtype.is_floating_point and tensor.element_size() < 2
            else tensor
        )

    def _finite(self, tensor: Any) -> Any:
        return self.torch.isfinite(self._wide(tensor))

    def _not_finite_at_all(self, tensor: Any) -> bool:
        """Whether there is an infinity or a NaN: either shows in the least or the largest
        element."""
        if not tensor.dtype.is_floating_point:
            return False
        least, largest = self._wide(tensor).aminmax()
        return not (math.isfinite(least.item()) and math.isfinite(largest.item()))

    def not_finite(self, tensor: Any) -> int | None:
        """How many elements are infinite or NaN; None for what has neither."""
        if not tensor.dtype.is_floating_point:
            return None
        return int((~self._finite(tensor)).sum())

    def differing_bytes(self, x: Any, y: Any) -> int | None:
        """How many bytes differ; None if that can't be known here."""
        if x is y:
            return 0
        if (
            x.dtype != y.dtype
            or x.shape != y.shape
            or x.layout is not self.torch.strided
            or y.layout is not self.torch.strided
        ):
            return None
        a, b = local(x), local(y)
        try:
            same = a.untyped_storage()._cdata == b.untyped_storage()._cdata or (
                a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr() != 0
            )
            if (
                same
                and a.storage_offset() == b.storage_offset()
                and a.stride() == b.stride()
                and a.shape == b.shape
            ):
                return 0
        except (RuntimeError, NotImplementedError, AttributeError):
            return None
        # What a rank sees of a distributed tensor isn't the whole, and ranks must agree.
        if a is not x or b is not y or "meta" in (a.device.type, b.device.type):
            return None
        a, b = a.detach(), b.detach()
        if b.device != a.device:
            b = b.to(a.device)
        a, b = a.contiguous().view(-1), b.contiguous().view(-1)
        if a.numel() == 0:
            return 0
        size = a.element_size()
        whole = self._bits.get(size, self.torch.int64)
        if self.torch.equal(a.view(whole), b.view(whole)):
            return 0
        a, b = a.view(self.torch.uint8), b.view(self.torch.uint8)
        return sum(int((p != q).sum()) for p, q in zip(a.split(_STRETCH), b.split(_STRETCH)))


def local(tensor: Any) -> Any:
    """What a rank holds of a distributed tensor; a plain tensor itself."""
    to_local = getattr(tensor, "to_local", None)
    if callable(to_local):
        try:
            return to_local()
        except RuntimeError:
            return tensor
    return tensor


class NumpyOps:
    """The ops over numpy arrays. What numpy lacks (bfloat16, float8) comes from ml_dtypes, if it is
    installed."""

    def __init__(self) -> None:
        import numpy

        self.np = numpy
        self.tensor_type = numpy.ndarray
        self.names = {
            numpy.dtype(own): name
            for name, own in _NUMPY_NAMES.items()
            if hasattr(numpy, own) or own in ("bool",)
        }
        self.by_name = {dtype.name: name for dtype, name in self.names.items()}
        self.by_name.update({own: name for name, own in _NUMPY_NAMES.items()})

    def guard(self) -> Any:
        return self.np.errstate(all="ignore")

    def dtype(self, name: str) -> Any:
        own = _NUMPY_NAMES.get(name)
        if own is None:
            raise TypeError(f"numpy has no dtype for {name}")
        try:
            return self.np.dtype(own)
        except TypeError:
            pass
        try:
            return self.np.dtype(getattr(importlib.import_module("ml_dtypes"), own))
        except (ImportError, AttributeError):
            raise TypeError(
                f"numpy has no dtype for {name}; the package ml_dtypes has one"
            ) from None

    def info(self, array: Any) -> tuple[str, Shape] | None:
        name = self.by_name.get(array.dtype.name)
        if name is None or not array.dtype.isnative:
            return None
        return name, array.shape

    def has_info(self, array: Any) -> bool:
        return self.info(array) is not None

    def from_buffer(
        self,
        buffer: Any,
        name: str,
        shape: Shape,
        offset: int,
        count: int,
        strides: Shape | None = None,
    ) -> Any:
        dtype = self.dtype(name)
        if count == 0:
            return self.np.empty(shape, dtype=dtype)
        flat = self.np.frombuffer(buffer, dtype=self.np.uint8, count=count, offset=offset).view(
            dtype
        )
        if strides is None:
            return flat.reshape(shape)
        steps = [stride * dtype.itemsize for stride in strides]
        return self.np.lib.stride_tricks.as_strided(flat, shape, steps)

    def place(self, array: Any) -> Any:
        return "numpy" if type(array) is self.np.ndarray else None

    def detached(self, array: Any) -> Any:
        return array

    def empty(self, shape: Shape, name: str, place: Any) -> Any:
        return self.np.empty(shape, dtype=self.dtype(name))

    def fill(self, value: float, name: str, shape: Shape, place: Any) -> Any:
        dtype = self.dtype(name)
        return self.np.full(shape, value if dtype.kind in "fcV" else int(value), dtype=dtype)

    def sinusoids(self, name: str, shape: Shape, place: Any) -> Any:
        return self.cast(
            self.np.asarray(_sinusoids(*shape), dtype=self.np.float64).reshape(shape), name
        )

    def copy(self, out: Any, array: Any) -> None:
        out[...] = array

    def own(self, array: Any) -> Any:
        return array.copy()

    def narrow(self, array: Any, dim: int, start: int, length: int) -> Any:
        return array[(slice(None),) * dim + (slice(start, start + length),)]

    def unbind(self, array: Any, dim: int) -> Sequence[Any]:
        moved = self.np.moveaxis(array, dim, 0)
        # With the dots, an element of one dimension is an array too.
        return [moved[at, ...] for at in range(len(moved))]

    def permute(self, array: Any, dims: Sequence[int]) -> Any:
        return array.transpose(tuple(dims))

    def reshape(self, array: Any, shape: Shape) -> Any:
        return array.reshape(shape)

    def view(self, array: Any, shape: Shape) -> Any:
        view = array.reshape(shape)
        return view if self.np.may_share_memory(view, array) else None

    def concat(self, arrays: Sequence[Any], dim: int) -> Any:
        return self.np.concatenate(list(arrays), dim)

    def cast(self, array: Any, name: str) -> Any:
        to = self.dtype(name)
        # As the engine does: a float of 16 bits or less is reached through float32.
        if array.dtype == self.np.float64 and to.itemsize < 4 and to.kind in "fV":
            array = array.astype(self.np.float32)
        return array.astype(to)

    def arithmetic(self, op: str, array: Any, value: float) -> Any:
        np = self.np
        wide = array if array.dtype == np.float64 else array.astype(np.float32)
        by = wide.dtype.type(value)
        ops: dict[str, Callable[[], Any]] = {
            "add": lambda: wide + by,
            "mul": lambda: wide * by,
            "neg": lambda: -wide,
            "exp": lambda: np.exp(wide),
            "log": lambda: np.log(wide),
            "one_for_zero": lambda: np.where(wide == 0, wide.dtype.type(1), wide),
        }
        return ops[op]().astype(array.dtype)

    def count(self, name: str, shape: Shape, place: Any) -> Any:
        return self.np.arange(shape[0], dtype=self.dtype(name))

    def expand(self, array: Any, shape: Shape) -> Any:
        return self.np.broadcast_to(array, shape)

    def binary(self, op: str, a: Any, b: Any, name: str) -> Any:
        np = self.np
        double = np.float64 in (a.dtype, b.dtype) or name == "F64"
        wide = np.float64 if double else np.float32
        with np.errstate(all="ignore"):
            return self.cast(BINARY[op](a.astype(wide), b.astype(wide)), name)

    def reduced(self, op: str, array: Any, dims: Shape, name: str) -> Any:
        np = self.np
        wide = array if array.dtype == np.float64 else array.astype(np.float32)
        shape = [1 if dim in dims else size for dim, size in enumerate(array.shape)]
        if array.size == 0:
            made = np.zeros(shape, dtype=wide.dtype)
        elif op == "absmax":
            made = np.abs(wide).max(axis=tuple(dims), keepdims=True)
        else:
            made = np.sqrt(_squares(wide, dims, lambda rows, n: np.pad(rows, ((0, 0), (0, n)))))
        return self.cast(made.reshape(shape), name)

    def product(self, a: Any, b: Any) -> Any:
        with self.np.errstate(all="ignore"):
            return a @ b

    def unpack(self, array: Any, bits: int) -> Any:
        np = self.np
        codes = np.ascontiguousarray(array)[..., None].view(np.uint8)
        if bits == 8:
            return codes
        return np.stack((codes & 15, codes >> 4), -1).reshape(*array.shape, -1)

    def decode(self, codes: Any, code: str) -> Any:
        np = self.np
        if code == "e2m1":
            return np.asarray(_FP4, dtype=np.float32)[codes & 15]
        with np.errstate(over="ignore"):
            return np.ldexp(np.float32(1), codes.astype(np.int32) - 127)

    def lookup(self, codes: Any, values: Any) -> Any:
        if codes.size:
            _in_list(codes.min(), codes.max(), len(values))
        return values[codes.astype(self.np.int64)]

    def overflowed(self, op: str, values: Sequence[Any], made: Any, arguments: Any) -> int:
        np = self.np
        value = values[0]
        if op in _KEEPS or (
            op == "cast"
            and _cast_is_safe(self.by_name.get(value.dtype.name), self.by_name.get(made.dtype.name))
        ):
            return 0
        lost = self._lost(made)
        if lost is None or not lost.any():
            return 0
        if op == "decode":
            lost = lost & (value != 255)
        else:
            for value in values:
                before = self._lost(value)
                lost = lost if before is None else lost & ~before
        return int(np.count_nonzero(lost))

    def _lost(self, array: Any) -> Any:
        """What is infinite or NaN; None for what has neither."""
        return (
            None if self.by_name.get(array.dtype.name) not in _LARGEST else ~self.np.isfinite(array)
        )

    def not_finite(self, array: Any) -> int | None:
        lost = self._lost(array)
        return None if lost is None else int(self.np.count_nonzero(lost))

    def differing_bytes(self, x: Any, y: Any) -> int | None:
        np = self.np
        if x is y:
            return 0
        if x.dtype != y.dtype or x.shape != y.shape:
            return None
        here = ("data", "strides", "shape")
        if all(x.__array_interface__[field] == y.__array_interface__[field] for field in here):
            return 0
        a, b = (np.ascontiguousarray(v).reshape(-1).view(np.uint8) for v in (x, y))
        return sum(
            int(np.count_nonzero(a[at : at + _STRETCH] != b[at : at + _STRETCH]))
            for at in range(0, a.size, _STRETCH)
        )


_found: dict[str, Any] = {}


def torch_ops() -> TorchOps:
    if "torch" not in _found:
        _found["torch"] = TorchOps()
    return _found["torch"]


def numpy_ops() -> NumpyOps:
    if "numpy" not in _found:
        _found["numpy"] = NumpyOps()
    return _found["numpy"]


def seen_ops() -> list[Any]:
    """The ops of every framework that is imported: no value can be of another."""
    ops: list[Any] = []
    # A module under way to be imported has no classes yet.
    if getattr(sys.modules.get("torch"), "Tensor", None) is not None:
        ops.append(torch_ops())
    if getattr(sys.modules.get("numpy"), "ndarray", None) is not None:
        ops.append(numpy_ops())
    return ops


def ops_of(value: Any) -> Any:
    """The ops for a value; None if it is no tensor."""
    for ops in seen_ops():
        if isinstance(value, ops.tensor_type):
            return ops
    return None


def ops_by_name(framework: str | None) -> Any:
    """The ops of a framework by name; torch, else numpy, if none is named."""
    if framework in ("torch", "pt"):
        return torch_ops()
    if framework in ("numpy", "np"):
        return numpy_ops()
    if framework is not None:
        raise ValueError(f"the framework is 'torch' or 'numpy', not {framework!r}")
    for name, make in (("torch", torch_ops), ("numpy", numpy_ops)):
        if name in sys.modules or importlib.util.find_spec(name) is not None:
            return make()
    raise ImportError("neither torch nor numpy is installed: there is nothing to give tensors as")


def bits(dtype: str) -> int:
    """Bits of an element."""
    known = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "BOOL": 8, "C64": 64}.get(dtype)
    if known is None:
        known = 8 if dtype.startswith("F8") else int("".join(c for c in dtype if c.isdigit()))
    return known


def nbytes(dtype: str, shape: Sequence[int]) -> int:
    """Size of a tensor in bytes."""
    return math.prod(shape) * bits(dtype) // 8

"""Carries a plan out over tensors in memory: index maps are views wherever strides allow it, and
what is put together is copied once."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

from ._arrays import BINARY, local, ops_by_name, ops_of

_ARITHMETIC = ("add", "mul", "neg", "exp", "log", "one_for_zero")
_REDUCTIONS = ("norm", "absmax")
_COMPUTES = (*_ARITHMETIC, *BINARY, *_REDUCTIONS, "cast", "product", "unpack", "decode", "lookup")


class _Run:
    def __init__(
        self,
        nodes: list[Any],
        targets: tuple[list[str], list[int]],
        source: Mapping[str, Any],
        consumed: MutableMapping[str, Any] | None,
    ) -> None:
        self.nodes = nodes
        self.keys, self.numbers = targets
        self.source = source
        self.consumed = consumed
        self.made: dict[int, Any] = {}
        self.overflowed: dict[int, int] = {}
        """Nodes with elements that were computed from finite ones and are infinite or NaN, and how
        many."""
        self.kinds: dict[type, Any] = {}
        """The ops of each type of value."""
        self.known: set[int] = set()
        """Sources whose values have a place in a header."""
        self.uses = [0] * len(nodes)
        for number in self.numbers:
            self.uses[number] += 1
        for node in nodes:
            if type(node) is tuple:
                for number in node[1]:
                    self.uses[number] += 1

    def run(self) -> dict[str, Any]:
        result: dict[str, Any] = {}
        nodes, source, uses, consumed = self.nodes, self.source, self.uses, self.consumed
        for key, number in zip(self.keys, self.numbers):
            node = nodes[number]
            # Most keys are renamed or stay.
            if type(node) is not str:
                result[key] = self.value(number)
            elif consumed is None:
                result[key] = source[node]
            elif uses[number] == 1:
                uses[number] = 0
                result[key] = consumed.pop(node)
            else:
                result[key] = self.value(number)
        return result

    def value(self, number: int) -> Any:
        """A node's tensor, for one of its uses; after the last it is forgotten."""
        self.uses[number] -= 1
        last = self.uses[number] == 0
        node = self.nodes[number]
        if type(node) is str:
            if last and self.consumed is not None:
                return self.consumed.pop(node)
            return self.source[node]
        if number in self.made:
            return self.made.pop(number) if last else self.made[number]
        value = self.make(number, node)
        if not last:
            self.made[number] = value
        return value

    def make(self, number: int, node: tuple[Any, ...]) -> Any:
        op, inputs, arguments, dtype, shape = node
        if op == "concat":
            return self.concat(node)
        if op in ("fill", "sinusoids", "count"):
            # Beside the other tensors, if there are any.
            first = next(
                (self.source[key] for key in self.nodes if type(key) is str and key in self.source),
                None,
            )
            ops = ops_of(first)
            if ops is None:
                ops, place = ops_by_name(None), None
            else:
                place = ops.place(first)
            if op == "sinusoids":
                return ops.sinusoids(dtype, shape, place)
            if op == "count":
                return ops.count(dtype, shape, place)
            return ops.fill(arguments[0], dtype, shape, place)
        values = [self.tensor(number) for number in inputs]
        value = values[0]
        ops = self.ops_of(value)
        if dtype == "F4" and op not in ("cast", "narrow", "reshape"):
            raise TypeError(f"there is no {op} of F4 in memory: two elements are one of torch's")
        if op == "narrow":
            dim, start, length = arguments
            if dtype == "F4" and dim == len(shape) - 1:
                start, length = start // 2, length // 2
            return ops.narrow(value, dim, start, length)
        if op == "permute":
            return ops.permute(value, arguments)
        if op == "reshape":
            return ops.reshape(value, ops.own_shape(dtype, shape) if dtype == "F4" else shape)
        if op == "expand":
            return ops.expand(value, shape)
        if op not in _COMPUTES:
            raise NotImplementedError(f"this version has no op {op}")
        made = self.compute(ops, op, values, arguments, dtype)
        lost = ops.overflowed(op, [local(value) for value in values], local(made), arguments)
        if lost:
            self.overflowed[number] = lost
        return made

    def compute(
        self,
        ops: Any,
        op: str,
        values: list[Any],
        arguments: Any,
        dtype: str,
    ) -> Any:
        if op == "cast":
            return ops.cast(values[0], dtype)
        if op in BINARY:
            return ops.binary(op, values[0], values[1], dtype)
        if op in _REDUCTIONS:
            return ops.reduced(op, values[0], arguments, dtype)
        if op == "product":
            return ops.product(values[0], values[1])
        if op == "unpack":
            return ops.unpack(values[0], arguments[0])
        if op == "decode":
            return ops.cast(ops.decode(values[0], arguments[0]), dtype)
        if op == "lookup":
            return ops.lookup(values[0], values[1])
        return ops.arithmetic(op, values[0], arguments[0] if arguments else 0.0)

    def overflows(self, result: Mapping[str, Any]) -> dict[str, int]:
        """The keys of the result with elements that overflowed, and how many. Nothing is looked at
        again where nothing did."""
        if not self.overflowed:
            return {}
        counts: list[int] = []
        for number, node in enumerate(self.nodes):
            # Inputs come first.
            below = sum(counts[one] for one in node[1]) if type(node) is tuple else 0
            counts.append(below + self.overflowed.get(number, 0))
        found: dict[str, int] = {}
        for key, number in zip(self.keys, self.numbers):
            if counts[number]:
                # Of a part, only what is in it; of an integer that was made from an infinity, what
                # was lost before.
                ops, value = ops_of(result[key]), local(result[key])
                there = ops.not_finite(value)
                count = counts[number] if there is None else min(counts[number], there)
                if count:
                    found[key] = count
        return found

    def ops_of(self, value: Any) -> Any:
        kind = type(value)
        if kind not in self.kinds:
            self.kinds[kind] = ops_of(value)
        return self.kinds[kind]

    def tensor(self, number: int) -> Any:
        value = self.value(number)
        ops = self.ops_of(value)
        if ops is None:
            raise TypeError(
                f"{self.named(number)} is {type(value).__name__}, no tensor: rules can rename or "
                "drop it, and nothing else"
            )
        is_source = type(self.nodes[number]) is str and number not in self.known
        if is_source and not ops.has_info(value):
            kind = f"{value.dtype}, {getattr(value, 'layout', 'strided')}"
            raise TypeError(
                f"{self.named(number)} is {kind}, which has no place in a header: rules can "
                "rename or drop it, and nothing else"
            )
        return ops.detached(value)

    def named(self, number: int) -> str:
        node = self.nodes[number]
        return f"the value of {node!r}" if type(node) is str else "a value"

    def concat(self, node: tuple[Any, ...]) -> Any:
        _, inputs, (dim,), dtype, shape = node
        place, ops = self.common_place(inputs)
        if place is None or dtype == "F4":
            values = [self.tensor(number) for number in inputs]
            several = {type(self.ops_of(value)) for value in values}
            if len(several) > 1:
                raise TypeError("tensors of torch and arrays of numpy can't be put together")
            return self.ops_of(values[0]).concat(values, dim)
        out = ops.empty(shape, dtype, place)
        self.fill_parts(node, out, ops)
        return out

    def fill_parts(self, node: tuple[Any, ...], out: Any, ops: Any) -> None:
        dim, at = node[2][0], 0
        if self.is_stack(node):
            for number, part in zip(node[1], ops.unbind(out, dim)):
                self.uses[number] -= 1
                self.put(self.nodes[number][1][0], part, ops)
            return
        for number in node[1]:
            length = self.shape(number)[dim]
            self.put(number, ops.narrow(out, dim, at, length), ops)
            at += length

    def is_stack(self, node: tuple[Any, ...]) -> bool:
        """Whether tensors are put together along a new dimension, and are needed for nothing
        else."""
        _, inputs, (dim,), _, shape = node
        one = (*shape[:dim], *shape[dim + 1 :])
        if len(inputs) != shape[dim]:
            return False
        for number in inputs:
            part = self.nodes[number]
            if type(part) is str or part[0] != "reshape" or number in self.made:
                return False
            if self.uses[number] != 1 or self.shape(part[1][0]) != one:
                return False
        return True

    def put(self, number: int, out: Any, ops: Any) -> None:
        """Makes a node where it belongs, so that stacks of concatenations need no tensors in
        between."""
        node = self.nodes[number]
        if number in self.known:
            return ops.copy(out, ops.detached(self.value(number)))
        if type(node) is tuple and self.uses[number] == 1 and number not in self.made:
            if node[0] == "concat":
                self.uses[number] -= 1
                return self.fill_parts(node, out, ops)
            if node[0] == "permute":
                self.uses[number] -= 1
                back = sorted(range(len(node[2])), key=node[2].__getitem__)
                return self.put(node[1][0], ops.permute(out, back), ops)
            if node[0] == "reshape":
                view = ops.view(out, self.shape(node[1][0]))
                if view is not None:
                    self.uses[number] -= 1
                    return self.put(node[1][0], view, ops)
        ops.copy(out, self.tensor(number))

    def shape(self, number: int) -> tuple[int, ...]:
        node = self.nodes[number]
        return self.source[node].shape if type(node) is str else node[4]

    def common_place(self, inputs: tuple[int, ...]) -> tuple[Any, Any]:
        """Where every tensor under these nodes is; None if in several places, or if only its own
        framework can put it together."""
        place, kind, open_, seen = None, None, list(inputs), set()
        while open_:
            number = open_.pop()
            if number in seen:
                continue
            seen.add(number)
            node = self.nodes[number]
            value = self.made.get(number)
            if value is None and type(node) is str:
                value = self.source[node]
            if value is None:
                open_.extend(node[1])
                continue
            ops = self.ops_of(value)
            here = None if ops is None or not ops.has_info(value) else ops.place(value)
            if here is None or (place is not None and (here != place or ops is not kind)):
                return None, None
            if type(node) is str:
                self.known.add(number)
            place, kind = here, ops
        return place, kind


def sources(nodes: list[Any], numbers: list[int]) -> list[str]:
    """The keys of the tensors that targets are made of, in the order in which they are needed."""
    found, seen = [], set()
    left = numbers[::-1]
    while left:
        number = left.pop()
        if number in seen:
            continue
        seen.add(number)
        node = nodes[number]
        if type(node) is str:
            found.append(node)
        else:
            left.extend(node[1][::-1])
    return found


def execute(
    nodes: list[Any],
    targets: tuple[list[str], list[int]],
    source: Mapping[str, Any],
    consumed: MutableMapping[str, Any] | None = None,
) -> tuple[dict[str, Any], dict[str, int]]:
    """The result of a plan, and its keys with elements that overflowed. Tensors of ``consumed`` are
    taken out of it once nothing needs them any more."""
    from contextlib import ExitStack

    from ._arrays import seen_ops

    run = _Run(nodes, targets, source, consumed)
    with ExitStack() as stack:
        for ops in seen_ops():
            stack.enter_context(ops.guard())
        result = run.run()
        return result, run.overflows(result)

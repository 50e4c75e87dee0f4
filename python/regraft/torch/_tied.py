"""Whether tensors that are tied are one, when ranks hold them in parts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from .._memory import Box, Place

Found = Mapping[str, Mapping[Any, str]]
"""By key and box, what is equal where the elements are."""


class Digests:
    """What a rank knows of the parts that it has of some tensors."""

    def __init__(self) -> None:
        self._parts: dict[str, dict[Any, tuple[Place | None, Any]]] = {}

    def add(self, box: Box, place: Place | None, tensor: Any) -> None:
        key, start, shape = box
        self._parts.setdefault(key, {})[start, shape] = (place, tensor)

    def all(self, pairs: Iterable[tuple[str, str]]) -> Found:
        """A digest of each part; of two that lie in one place, the place says enough."""
        found: dict[str, dict[Any, str]] = {key: {} for key in self._parts}
        for pair in pairs:
            parts = [self._parts.get(key, {}) for key in pair]
            for key, own, other in zip(pair, parts, reversed(parts)):
                for box, (place, tensor) in own.items():
                    one = place is not None and place == other.get(box, (None, None))[0]
                    found[key][box] = f"at {place}" if one else _digest(tensor)
        return found


def _digest(tensor: Any) -> str:
    hasher = hashlib.blake2b()
    for part in tensor.reshape(-1).split(16 << 20):
        hasher.update(part.cpu().contiguous().view(torch.uint8).numpy())
    return hasher.hexdigest()


def is_one(a: str, b: str, found: Iterable[Found]) -> bool:
    """Whether two tensors are equal by what all ranks found; not if they are parted otherwise."""
    both: tuple[dict[Any, str], dict[Any, str]] = ({}, {})
    for of_rank in found:
        for key, digests in zip((a, b), both):
            digests.update(of_rank.get(key, {}))
    return bool(both[0]) and both[0] == both[1]

"""Making many objects at once."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def many() -> Iterator[None]:
    """While a hundred thousand lists, tuples and tensors are made, of which none is garbage, Python
    would look for some several times, among all that the process holds: a third of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()

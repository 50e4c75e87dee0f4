"""A weight loader for sglang: gives a model the weights of a checkpoint in another layout.

    python -m sglang.launch_server --custom-weight-loader regraft.sglang.load …

sglang calls it for updates of weights whose load format is ``regraft.sglang.load``, with what the
update has; of that one names the checkpoint: ``[("path", "./fine-tuned")]``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ._weights import weights

__all__ = ["load"]


def load(model: Any, named_tensors: Iterable[tuple[str, Any]]) -> None:
    """Loads the checkpoint whose path is given as ``path`` into a model; what else is given is for
    :func:`regraft.weights`. Without rules, those of the checkpoint's config lead to the hub's
    layout, which sglang's models read."""
    given = dict(named_tensors)
    path = given.pop("path")
    if given.get("rules") is None:
        given.setdefault("to", "hub")
    model.load_weights(weights(path, framework="torch", **given))

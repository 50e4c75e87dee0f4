"""A model loader for vLLM: serves a checkpoint in another layout than its model's, without a
converted copy. vLLM finds it by its entry point, or once :func:`register` was called:

    vllm serve ./fine-tuned --load-format regraft \
        --model-loader-extra-config '{"rules": ["mixtral"], "reverse": true}'

The extra config has what :func:`regraft.weights` takes; without any, the config of the checkpoint
chooses rules that lead to the hub's layout, which is what vLLM's models read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ._weights import weights

__all__ = ["register", "weights_for"]


def weights_for(path: str, extra: dict[str, Any] | None) -> Iterator[tuple[str, Any]]:
    """Names and tensors as a model of vLLM loads them."""
    given = dict(extra or {})
    if given.get("rules") is None:
        given.setdefault("to", "hub")
    return weights(path, framework="torch", **given)


def register() -> None:
    """Makes ``--load-format regraft`` known."""
    from vllm.model_executor.model_loader import (
        register_model_loader,
    )
    from vllm.model_executor.model_loader.base_loader import (
        BaseModelLoader,
    )

    @register_model_loader("regraft")
    class RegraftLoader(BaseModelLoader):
        def download_model(self, model_config: Any) -> None:
            """Nothing is fetched: the model is a path."""

        def load_weights(self, model: Any, model_config: Any) -> None:
            extra = self.load_config.model_loader_extra_config
            wanted = {name for name, _ in model.named_parameters()}
            path = getattr(model_config, "model_weights", "") or model_config.model
            loaded = model.load_weights(weights_for(path, extra))
            # A model that doesn't say what it loaded can't be asked.
            if loaded is not None and (missing := wanted - set(loaded)):
                raise ValueError(f"the checkpoint lacks weights of the model: {sorted(missing)}")

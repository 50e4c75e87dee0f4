"""A state dict adapter for torchtitan whose storage reader converts: a sharded model begins from
the hub's files, each rank reads its own boxes, and no code of the adapter knows the layouts.

A model's train spec names it: ``state_dict_adapter=regraft_adapter("titan.graft")``, with rules
that lead from the hub's names to torchtitan's. To save for the hub,
`regraft.torch.distributed.Writer` takes the same rules; torchtitan's own `last_save_in_hf` expects
an adapter that renames, so leave it off.
"""

from typing import Any

from regraft.torch.distributed import Reader


def regraft_adapter(rules: Any, base: type = object) -> type:
    """An adapter class; `base` is torchtitan's `StateDictAdapter`."""

    class Adapter(base):
        fqn_to_index_mapping = None

        def __init__(self, model_config: Any, hf_assets_path: Any) -> None:
            self.model_config, self.hf_assets_path = model_config, hf_assets_path

        def to_hf(self, state_dict: dict[str, Any]) -> dict[str, Any]:
            """The reader takes the model's own names."""
            return state_dict

        def from_hf(self, hf_state_dict: dict[str, Any]) -> dict[str, Any]:
            """And gives them."""
            return hf_state_dict

        def get_hf_storage_reader(self, path: str, from_quantized: bool = False) -> Reader:
            """Quantized or not, the headers say."""
            return Reader(path, rules)

    return Adapter

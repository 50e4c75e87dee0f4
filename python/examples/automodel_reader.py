"""Lets a checkpointer of NeMo AutoModel read base models by regraft: models of transformers are
loaded from the hub's files by `torch.distributed.checkpoint`, each rank its own boxes, through the
rules that their config asks for."""

from typing import Any

from regraft.torch.distributed import Reader


def read_by_regraft(checkpointer: Any, rules: Any = None) -> None:
    """Replaces the storage reader of base models; that of training checkpoints stays."""
    inner = checkpointer._get_storage_reader

    def reader(model_path: str, key_mapping: Any, is_init_step: bool = False, **given: Any) -> Any:
        if is_init_step:
            # Key mappings are for names that the rules convert.
            return Reader(model_path, rules)
        return inner(model_path, key_mapping, is_init_step=is_init_step, **given)

    checkpointer._get_storage_reader = reader

"""``torch.distributed.checkpoint`` over checkpoints as they are published: sharded models are
loaded from them, through rules, and each rank reads its own parts alone."""

from ._reader import Reader

__all__ = ["Reader"]

"""``torch.distributed.checkpoint`` over checkpoints as they are published: sharded models are
loaded from them and saved as them, through rules, and each rank reads and writes its own parts
alone."""

from ._reader import Reader
from ._writer import Writer

__all__ = ["Reader", "Writer"]

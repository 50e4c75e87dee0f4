"""Saves checkpoints by `torch.distributed.checkpoint` from several processes, and what is in them.

usage: dcp_files.py PROCESSES SEED DIRECTORY. In DIRECTORY are then one directory for each
checkpoint, and `expected.pt`: name -> where its root lies, key -> tensor.
"""

import os
import random
import sys
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing
from torch import nn
from torch.distributed.checkpoint import (
    DefaultSavePlanner,
    FileSystemWriter,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.state_dict import get_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)
from torch_files import DTYPES, Maker

MESHES = {1: [(1,), (1, 1)], 2: [(2,), (1, 2), (2, 1)], 4: [(4,), (2, 2), (4, 1)]}

# Too few elements for four processes, as many, more, and none.
SIZES = [0, 1, 2, 3, 4, 5, 7, 9, 16]


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width, bias=False)
        self.norm = nn.LayerNorm(width)
        self.register_buffer("seen", torch.tensor(3))

    def forward(self, x):
        return x + self.down(torch.relu(self.up(self.norm(x))))


class Saver:
    """What one process does; every process draws the same from the seed."""

    def __init__(self, rank, world, seed, place):
        self.world, self.rank, self.place = world, rank, Path(place)
        self.maker, self.random = Maker(seed), random.Random(seed)
        self.expected = {}
        torch.manual_seed(seed)

    def mesh(self, shape=None):
        return init_device_mesh("cpu", shape or self.random.choice(MESHES[self.world]))

    def distributed(self, full, mesh):
        """A tensor spread over a mesh, somehow. Every process has it whole: nothing is sent."""
        axes = [Shard(axis) for axis in range(min(2, full.dim()))]
        chosen = [self.random.choice([*axes, *axes, Replicate()]) for _ in mesh.shape]
        return distribute_tensor(full, mesh, chosen, src_data_rank=None)

    def tensors(self, few=False):
        """Key -> tensor, and key -> how it is saved."""
        full, saved, mesh = {}, {}, self.mesh()
        for number in range(self.random.randint(4, 8)):
            shape = [self.random.choice(SIZES) for _ in range(self.random.choice([0, 1, 2, 2, 3]))]
            # F4 counts pairs of elements.
            dtypes = [dtype for dtype in DTYPES if dtype != torch.float4_e2m1fn_x2]
            dtype = self.random.choice(dtypes[:4] if few else dtypes)
            key = self.random.choice(["layers.{}.weight", "ключ.{}", "a/{}"]).format(number)
            full[key] = saved[key] = self.maker.dense(shape, dtype)
            if self.random.random() < 0.7:
                saved[key] = self.distributed(full[key], mesh)
            elif shape and self.random.random() < 0.5:
                # A view: its storage holds more.
                saved[key] = torch.cat([full[key], full[key]])[: shape[0]]
        return full, saved

    def done(self, name, full, root="", folder=None):
        whole = {key: of.detach().clone() for key, of in full.items()}
        self.expected[name] = {"root": root, "tensors": whole, "folder": folder or name}

    def writer(self, path):
        kind = self.random.choice(["plain", "plain", "many", "threads"])
        options = {"many": {"single_file_per_rank": False}, "threads": {"thread_count": 3}}
        return FileSystemWriter(path, **options.get(kind, {}))

    def plain(self, number):
        name = f"plain-{number}"
        full, saved = self.tensors()
        beside = {"epoch": 3, "note": "text", "list": [1, {"a": None}]} if number % 2 else {}
        planner = DefaultSavePlanner(dedup_save_to_lowest_rank=number % 3 == 0)
        dcp.save(
            {**saved, **beside}, storage_writer=self.writer(self.place / name), planner=planner
        )
        self.done(name, full)

    def nested(self, number):
        name = f"nested-{number}"
        full, saved = self.tensors()
        dcp.save({"model": saved, "epoch": 3}, checkpoint_id=self.place / name)
        self.done(name, {f"model.{key}": of for key, of in full.items()}, "model")

    def fsdp(self, number, tensor_parallel=False):
        name = f"fsdp-{number}" + ("-tp" if tensor_parallel else "")
        width = self.random.choice([2, 3, 5]) if not tensor_parallel else 4
        model = nn.Sequential(Block(width), Block(width))
        whole = {key: of.clone() for key, of in model.state_dict().items()}
        mesh = self.mesh((self.world,))
        if tensor_parallel:
            both = init_device_mesh("cpu", (2, self.world // 2), mesh_dim_names=("dp", "tp"))
            plan = {"up": ColwiseParallel(), "down": RowwiseParallel()}
            for block in model:
                parallelize_module(block, both["tp"], plan)
            mesh = both["dp"]
        for block in model:
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
        model(torch.randn(2, width)).sum().backward()
        optimizer.step()
        of_model, of_optimizer = get_state_dict(model, optimizer)
        found = {
            key: of.full_tensor() if isinstance(of, DTensor) else of for key, of in of_model.items()
        }
        assert set(found) == set(whole)
        state = {"model": of_model, "optimizer": of_optimizer, "step": 7, "lr": 1e-3}
        dcp.save(state, checkpoint_id=self.place / name)
        self.done(name, {f"model.{key}": of for key, of in found.items()}, "model")

    def shards(self, number, consolidated):
        name = f"shards-{number}" + ("-consolidated" if consolidated else "")
        full, saved = self.tensors(few=True)
        mapping = None
        if self.random.random() < 0.5:
            mapping = {key: 1 + at % 2 for at, key in enumerate(full)}
        writer = HuggingFaceStorageWriter(
            str(self.place / name),
            fqn_to_index_mapping=mapping,
            save_distributed=True,
            enable_consolidation=consolidated,
        )
        dcp.save(saved, storage_writer=writer)
        self.done(name, full)
        if consolidated:
            self.done(f"{name}-sharded", full, folder=f"{name}/sharded")


def run(rank, world, seed, place):
    warnings.simplefilter("ignore")
    meeting = os.path.join(place, "meeting")
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
    saver = Saver(rank, world, seed, place)
    for number in range(12):
        saver.plain(number)
    for number in range(3):
        saver.nested(number)
        saver.shards(number, False)
    for number in range(2):
        saver.shards(number, True)
    saver.fsdp(0)
    if world == 4:
        saver.fsdp(1, tensor_parallel=True)
    if rank == 0:
        torch.save(saver.expected, os.path.join(place, "expected.pt"))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    processes, given, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    torch.multiprocessing.start_processes(
        run, (processes, given, folder), processes, start_method="fork"
    )

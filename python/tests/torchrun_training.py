"""What torchrun starts in a test: training that goes on from the last checkpoint there is, and
doubles every weight in each step.

    torchrun torchrun_training.py HUB OUT STEPS [die]

`die`: the second rank dies while it saves the second step."""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from dcp_ranks import sharded_model
from regraft.torch.distributed import Reader, Writer


class Dying(Writer):
    def write_data(self, plan, planner):
        if dist.get_rank() == 1:
            os._exit(9)
        return super().write_data(plan, planner)


def main(hub, out, steps, *die):
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    done = len([name for name in os.listdir(out) if name.startswith("step-")])
    model = sharded_model(hub)
    state = {"model": model.state_dict()}
    last = Path(out) / f"step-{done}" if done else hub
    dcp.load(state, storage_reader=Reader(last, under="model"))
    # Nobody lists the folder any more.
    dist.barrier()
    for step in range(done + 1, int(steps) + 1):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(2)
        writer = (Dying if die and step == 2 else Writer)(
            Path(out) / f"step-{step}", like=hub, under="model"
        )
        dcp.save({"model": model.state_dict()}, storage_writer=writer)
    print(f"rank {dist.get_rank()} of {dist.get_world_size()} began after step {done}", flush=True)
    dist.destroy_process_group()


main(*sys.argv[1:])

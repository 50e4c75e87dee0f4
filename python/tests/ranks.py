"""Processes of a group, as a launcher starts them, used again from test to test: importing torch
takes longer than most tests."""

import multiprocessing
import tempfile
import traceback


def _serve(rank, pipe, folder):
    import dcp_ranks
    import torch

    torch.set_num_threads(1)
    groups = 0
    while True:
        name, size, arguments = pipe.recv()
        groups += 1
        try:
            if rank >= size:
                pipe.send((True, None))
                continue
            torch.distributed.init_process_group(
                "gloo", init_method=f"file://{folder}/{groups}", rank=rank, world_size=size
            )
            try:
                pipe.send((True, getattr(dcp_ranks, name)(*arguments)))
            finally:
                torch.distributed.destroy_process_group()
        except BaseException:
            pipe.send((False, traceback.format_exc()))


class Ranks:
    """So many processes, each with its rank."""

    def __init__(self, size):
        context = multiprocessing.get_context("spawn")
        self.folder = tempfile.TemporaryDirectory()
        self.pipes, self.processes = [], []
        for rank in range(size):
            here, there = context.Pipe()
            process = context.Process(
                target=_serve, args=(rank, there, self.folder.name), daemon=True
            )
            process.start()
            there.close()
            self.pipes.append(here)
            self.processes.append(process)

    def send(self, size, name, *arguments):
        """Begins a function of `dcp_ranks` in the first `size` ranks."""
        for pipe in self.pipes:
            pipe.send((name, size, arguments))

    def run(self, size, name, *arguments):
        """What a function of `dcp_ranks` gives in each of the first `size` ranks."""
        self.send(size, name, *arguments)
        given = []
        for rank, pipe in enumerate(self.pipes):
            assert pipe.poll(400), f"rank {rank} doesn't answer"
            ok, result = pipe.recv()
            if rank < size:
                given.append((ok, result))
        for ok, result in given:
            if not ok:
                raise AssertionError(result)
        return [result for _, result in given]

    def close(self):
        for process in self.processes:
            process.kill()
            process.join()
        self.folder.cleanup()

"""What torch saved, beside what torch itself takes for the same: a file of many keys listed, shards
of `torch.save` converted, and a checkpoint of four processes made one.

    python benches/saved_by_torch.py [--regraft target/release/regraft] [--mib 3072]
        [--keys 50000] [--runs 3] [--work DIRECTORY] [--only list,convert,consolidate]

Each measurement runs in a process of its own, once in each round, and the median of the rounds
counts. The time of regraft is that of its whole process; that of torch is of the work alone,
without importing it. Memory is the most anonymous memory of the process that was seen, looked for
each millisecond. Files are read once before, so that all find them in the page cache. Nothing is
synced on either side, but everything is before the clock starts, so that none waits for what
another left to be written.

Needs torch, safetensors, a release build, and room for four times so many MiB.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RENAME = 'rename "layers.{l}.**" <-> "blocks.{l}.**"\n'
SHARDS = 4
KEYS_IN_A_SHARD = 12


# What is measured of torch. Each gives its seconds.


def list_torch(path):
    import torch

    start = time.perf_counter()
    keys = list(torch.load(path, mmap=True, weights_only=True))
    took = time.perf_counter() - start
    assert len(keys) > 1
    return took


def convert_torch(source, out, how):
    import torch
    from safetensors.torch import save_file

    start = time.perf_counter()
    os.mkdir(out)
    where = {}
    for shard in sorted(Path(source).glob("*.bin")):
        tensors = torch.load(shard, mmap=how == "mmap", weights_only=True)
        named = {key.replace("layers.", "blocks.", 1): of for key, of in tensors.items()}
        name = shard.with_suffix(".safetensors").name
        save_file(named, Path(out) / name, metadata={"format": "pt"})
        where.update(dict.fromkeys(named, name))
    text = json.dumps({"metadata": {}, "weight_map": where})
    (Path(out) / "model.safetensors.index.json").write_text(text)
    return time.perf_counter() - start


def consolidate_torch_save(source, out):
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    start = time.perf_counter()
    dcp_to_torch_save(source, out)
    return time.perf_counter() - start


def consolidate_torch_files(source, out, threads):
    from torch.distributed.checkpoint._consolidate_hf_safetensors import (
        consolidate_safetensors_files,
    )

    keys = json.loads((Path(source).parent / "keys.json").read_text())
    mapping = {key: 1 + at % SHARDS for at, key in enumerate(keys)}
    os.mkdir(out)
    start = time.perf_counter()
    consolidate_safetensors_files(source, out, mapping, num_threads=int(threads))
    return time.perf_counter() - start


# What is measured on. Each is made in a process of its own.


def make_list(place, keys):
    import torch

    of = {f"layers.{n // 96}.experts.{n % 96}.weight": torch.ones(4) for n in range(int(keys))}
    torch.save(of, Path(place) / "many.pt")


def _shard(number, mib):
    import torch

    columns = 2048
    rows = max(4, int(mib) * (1 << 20) // (SHARDS * KEYS_IN_A_SHARD * columns * 2) // 4 * 4)
    return {
        f"layers.{number}.{key}.weight": torch.randn(rows, columns, dtype=torch.bfloat16)
        for key in range(KEYS_IN_A_SHARD)
    }


def make_convert(place, mib):
    import torch
    from safetensors.torch import save_file

    for kind, index in (("bin", "pytorch_model.bin"), ("files", "model.safetensors")):
        folder, where = Path(place) / kind, {}
        folder.mkdir()
        for shard in range(SHARDS):
            torch.manual_seed(shard)
            tensors = _shard(shard, mib)
            stem, ending = index.split(".")
            name = f"{stem}-{shard + 1:05}-of-{SHARDS:05}.{ending}"
            if kind == "bin":
                torch.save(tensors, folder / name)
            else:
                save_file(tensors, folder / name, metadata={"format": "pt"})
            where.update(dict.fromkeys(tensors, name))
        text = json.dumps({"metadata": {}, "weight_map": where})
        (folder / f"{index}.index.json").write_text(text)


def _rank(rank, place, mib):
    import torch
    import torch.distributed as dist
    import torch.distributed.checkpoint as dcp
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Shard

    meeting = f"file://{place}/meeting"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=SHARDS)
    mesh = init_device_mesh("cpu", (SHARDS,))
    torch.manual_seed(rank)
    state = {}
    for number in range(SHARDS):
        for key, of in _shard(number, int(mib) // SHARDS).items():
            state[key] = DTensor.from_local(of, mesh, [Shard(0)])
    dcp.save(state, checkpoint_id=f"{place}/dcp")
    writer = dcp.HuggingFaceStorageWriter(f"{place}/shards", save_distributed=True)
    dcp.save(state, storage_writer=writer)
    if rank == 0:
        (Path(place) / "keys.json").write_text(json.dumps(list(state)))
    dist.barrier()
    dist.destroy_process_group()


def make_consolidate(place, mib):
    import torch.multiprocessing

    torch.multiprocessing.start_processes(_rank, (place, mib), SHARDS, start_method="fork")


# Measuring.


def anonymous(pid):
    """Anonymous memory of a process now, in bytes."""
    try:
        with open(f"/proc/{pid}/status") as status:
            for line in status:
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) << 10
    except (OSError, ProcessLookupError):
        pass
    return 0


def run(command):
    """Seconds of a process, the most anonymous memory seen of it, and what it wrote."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=err)
        most = 0
        while process.poll() is None:
            most = max(most, anonymous(process.pid))
            time.sleep(0.001)
        took = time.perf_counter() - start
        out.seek(0)
        err.seek(0)
        said = out.read()
        if process.returncode not in (0, 1):
            raise RuntimeError(" ".join((err.read() + said).split())[:300])
        return took, most, said


class Bench:
    def __init__(self, arguments, place):
        self.arguments, self.place = arguments, place
        self.rules = place / "rename.graft"
        self.rules.write_text(RENAME)
        self.out = place / "out"

    def clear(self):
        if self.out.is_dir():
            shutil.rmtree(self.out)
        self.out.unlink(missing_ok=True)

    def medians(self, **contestants):
        """Of each contestant, a name and what runs it once, the median of some runs: seconds and
        memory, or None if it can't be done."""
        found = {contestant: [] for contestant in contestants}
        for _ in range(self.arguments.runs):
            for contestant, (name, once) in contestants.items():
                if found[contestant] is None:
                    continue
                self.clear()
                os.sync()
                try:
                    found[contestant].append(once())
                except RuntimeError as error:
                    print(f"  {name:<44} failed: {error}", flush=True)
                    found[contestant] = None
        self.clear()
        for contestant, (name, _) in contestants.items():
            if found[contestant] is not None:
                seconds = statistics.median(took for took, _ in found[contestant])
                most = max(memory for _, memory in found[contestant])
                print(f"  {name:<44} {seconds:>9.3f} s {most / 2**20:>9.1f} MiB", flush=True)
                found[contestant] = seconds, most
        return argparse.Namespace(**found)

    def torch(self, name, *task):
        def once():
            command = [sys.executable, __file__, "--task", *map(str, task)]
            took, most, said = run(command)
            if not said:
                raise RuntimeError("no time was told")
            return json.loads(said.splitlines()[-1]), most

        return name, once

    def regraft(self, name, *given):
        return name, lambda: run([self.arguments.regraft, *map(str, given)])[:2]

    def apply(self, name, source, *given):
        given = ("-o", self.out, "--ties", "materialize", "--no-sync", "--quiet", *given)

        def once():
            took, most, said = run([self.arguments.regraft, "apply", source, *given])
            if not self.out.is_dir():
                raise RuntimeError(f"nothing was written: {said[:200]}")
            return took, most

        return name, once

    def make(self, what, size):
        command = [sys.executable, __file__, "--task", f"make_{what}", self.place, size]
        subprocess.run([str(part) for part in command], check=True)
        for file in self.place.rglob("*"):
            if file.is_file():
                with open(file, "rb") as data:
                    while data.read(1 << 24):
                        pass

    def list(self):
        keys = self.arguments.keys
        print(f"== a file of {keys:,} keys, opened and listed")
        self.make("list", keys)
        path = self.place / "many.pt"
        found = self.medians(
            torch=self.torch("torch.load(mmap, weights_only)", "list_torch", path),
            ours=self.regraft("regraft inspect --json", "inspect", path, "--json"),
        )
        faster("than torch.load", found.torch, found.ours, 5)
        bounded(found.ours)

    def convert(self):
        print(f"== {self.arguments.mib:,} MiB in {SHARDS} shards, renamed, to safetensors")
        self.make("convert", self.arguments.mib)
        task = ("convert_torch", self.place / "bin", self.out)
        rules = ("--rules", self.rules)
        found = self.medians(
            torch=self.torch("torch.load + save_file", *task, "read"),
            mapped=self.torch("torch.load(mmap) + save_file", *task, "mmap"),
            files=self.apply("regraft apply, from safetensors", self.place / "files", *rules),
            ours=self.apply("regraft apply, from .bin", self.place / "bin", *rules),
        )
        faster("than torch.load + save_file", found.torch, found.ours, 3)
        faster("than torch.load(mmap) + save_file", found.mapped, found.ours)
        if found.files and found.ours:
            ratio = found.ours[0] / found.files[0]
            print(f"  -> {ratio:.2f} x the time from safetensors (to reach: at most 1.10)")
        bounded(found.ours)

    def consolidate(self):
        print(f"== {self.arguments.mib:,} MiB that {SHARDS} processes saved, made one")
        self.make("consolidate", self.arguments.mib)
        dcp, shards = self.place / "dcp", self.place / "shards"
        found = self.medians(
            torch=self.torch("dcp_to_torch_save", "consolidate_torch_save", dcp, self.out),
            ours=self.apply("regraft apply, from .distcp", dcp),
        )
        faster("than dcp_to_torch_save", found.torch, found.ours, 3)
        bounded(found.ours)
        task = ("consolidate_torch_files", shards, self.out)
        cores = os.cpu_count() or 1
        many = f"consolidate_safetensors_files, {cores} threads"
        found = self.medians(
            one=self.torch("consolidate_safetensors_files, 1 thread", *task, 1),
            many=self.torch(many, *task, cores),
            ours=self.apply("regraft apply, from safetensors shards", shards),
        )
        best = min((each for each in (found.one, found.many) if each), default=None)
        faster("than consolidate_safetensors_files", best, found.ours, 3)
        bounded(found.ours)


def faster(than, torch, ours, reach=None):
    if torch and ours:
        ratio = torch[0] / ours[0]
        print(f"  -> {ratio:.1f} x faster {than}" + (f" (to reach: {reach})" if reach else ""))


def bounded(ours):
    if ours:
        print(f"  -> {ours[1] / 2**20:.1f} MiB of anonymous memory (to reach: 64)")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    release = Path(__file__).parent.parent / "target" / "release" / "regraft"
    parser.add_argument("--regraft", type=Path, default=release)
    parser.add_argument("--mib", type=int, default=3072)
    parser.add_argument("--keys", type=int, default=50_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--only", default="list,convert,consolidate")
    parser.add_argument("--task", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.task:
        name, *given = arguments.task
        took = globals()[name](*given)
        if took is not None:
            print(json.dumps(took))
        return
    for part in arguments.only.split(","):
        with tempfile.TemporaryDirectory(dir=arguments.work) as place:
            getattr(Bench(arguments, Path(place)), part)()


if __name__ == "__main__":
    main()

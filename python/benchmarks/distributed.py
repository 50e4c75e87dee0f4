"""Loads and saves a sharded model by torch.distributed.checkpoint, with regraft's storage and with
torch's own for files of the hub, side by side.

    python benchmarks/distributed.py [--mib 3072] [--ranks 2 4] [--rounds 3] [--folder DIR]

gloo on CPU, a model like Mixtral: on the hub a tensor for each projection of each expert, in the
model packed. regraft loads and saves through the rules; torch's storage knows none, and moves the
hub's own tensors, sharded alike. Prints seconds of the slowest rank (the best of the rounds, taken
in turns), bytes beside those of the boxes, memory that isn't the model's; then how long the
metadata of 49,152 keys takes.

Saving is measured three times, as the two don't promise the same. By default regraft's files are on
the disk when they appear; torch syncs the parts of each rank, and not the files that are made of
them. `durable`: torch's output is synced, and its parts aren't, since they go. `unsynced`: neither
waits for the disk.
"""

import argparse
import json
import os
import shutil
import tempfile
import time

import regraft
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing as multiprocessing
from regraft.torch.distributed import Reader, Writer
from safetensors.torch import save_file
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard
from torch.distributed.tensor import empty as distributed_empty

EXPERTS = 8
HIDDEN, FFN = 2048, 3584


def make_hub(folder, mib):
    """Files of the hub's layout, of about so many MiB."""
    layer = 2 * EXPERTS * 3 * HIDDEN * FFN + 2 * 4 * HIDDEN * HIDDEN
    layers = max(1, round((mib << 20) / layer))
    config = {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "hidden_size": HIDDEN,
        "intermediate_size": FFN,
        "num_hidden_layers": layers,
        "num_local_experts": EXPERTS,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "vocab_size": 1024,
        "tie_word_embeddings": False,
    }
    with open(f"{folder}/config.json", "w") as file:
        json.dump(config, file)

    def tensor(*shape):
        return torch.randint(-(2**15), 2**15, shape, dtype=torch.int16).view(torch.bfloat16)

    weight_map = {}
    for number in range(layers):
        name = f"model-{number + 1:05}-of-{layers:05}.safetensors"
        prefix = f"model.layers.{number}"
        tensors = {f"{prefix}.block_sparse_moe.gate.weight": tensor(EXPERTS, HIDDEN)}
        for expert in range(EXPERTS):
            for which, shape in (
                ("w1", (FFN, HIDDEN)),
                ("w2", (HIDDEN, FFN)),
                ("w3", (FFN, HIDDEN)),
            ):
                key = f"{prefix}.block_sparse_moe.experts.{expert}.{which}.weight"
                tensors[key] = tensor(*shape)
        for which in "qkvo":
            tensors[f"{prefix}.self_attn.{which}_proj.weight"] = tensor(HIDDEN, HIDDEN)
        for which in ("input", "post_attention"):
            tensors[f"{prefix}.{which}_layernorm.weight"] = tensor(HIDDEN)
        if number == 0:
            tensors["model.embed_tokens.weight"] = tensor(1024, HIDDEN)
            tensors["lm_head.weight"] = tensor(1024, HIDDEN)
            tensors["model.norm.weight"] = tensor(HIDDEN)
        save_file(tensors, f"{folder}/{name}", metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(tensors, name))
    with open(f"{folder}/model.safetensors.index.json", "w") as file:
        json.dump({"metadata": {}, "weight_map": weight_map}, file)


def anonymous():
    """Memory of this process that is no file's, in bytes."""
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) << 10
    return 0


class Watch:
    """The most memory that a stretch of work took beside what there was before."""

    def __enter__(self):
        import threading

        self.before, self.most, self.done = anonymous(), 0, threading.Event()
        self.thread = threading.Thread(target=self.look)
        self.thread.start()
        self.start = time.perf_counter()
        return self

    def look(self):
        while not self.done.wait(0.005):
            self.most = max(self.most, anonymous() - self.before)

    def __exit__(self, *_):
        self.seconds = time.perf_counter() - self.start
        self.done.set()
        self.thread.join()


def empty(shapes, mesh):
    """Shards along the first dimension, whose memory is there already."""
    made = {}
    for key, (dtype, shape) in shapes.items():
        made[key] = distributed_empty(shape, dtype=dtype, device_mesh=mesh, placements=[Shard(0)])
        made[key].to_local().zero_()
    return made


def rank_of(rank, size, hub, folder, rounds, results):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/group{size}", rank=rank, world_size=size
    )
    mesh = init_device_mesh("cpu", (size,))
    opened = regraft.open(hub, framework="torch")
    plan = opened.plan(to="model")
    dtype = torch.bfloat16
    packed = {target.key: (dtype, target.shape) for target in plan}
    plain = {key: (dtype, tuple(opened.shapes[key])) for key in opened}
    del opened, plan
    found, out = {}, f"{folder}/out"

    def measure(name, work):
        """Seconds of the best round and memory of the worst, each begun with nothing that the disk
        is still to have."""
        if rank == 0:
            shutil.rmtree(out, ignore_errors=True)
            os.sync()
        dist.barrier()
        with Watch() as watch:
            work()
        dist.barrier()
        best, most = found.get(name, (float("inf"), 0))
        found[name] = (min(best, watch.seconds), max(most, watch.most))

    model, hub_model = empty(packed, mesh), empty(plain, mesh)
    reader, torchs = Reader(hub), HuggingFaceStorageReader(hub)
    for _ in range(rounds):
        measure("load, regraft", lambda: dcp.load(model, storage_reader=reader))
        measure("load, torch", lambda: dcp.load(hub_model, storage_reader=torchs))
    found["read"] = (reader.bytes_read, sum(t.to_local().nbytes for t in model.values()))
    with open(f"{hub}/model.safetensors.index.json") as file:
        files = json.load(file)["weight_map"]
    mapping = {key: int(name.split("-")[1]) for key, name in files.items()}

    def ours(sync):
        # Files as large as those of the source, which torch writes.
        largest = max(os.path.getsize(f"{hub}/{name}") for name in set(files.values()))
        writer = Writer(out, like=hub, sync=sync, max_shard_size=largest)
        dcp.save(model, storage_writer=writer)

    def theirs(sync_parts, sync_output):
        writer = HuggingFaceStorageWriter(
            out, mapping, save_distributed=True, enable_consolidation=True
        )
        writer.sync_files = sync_parts
        dcp.save(hub_model, storage_writer=writer)
        if sync_output and rank == 0:
            for name in os.listdir(out):
                if name.endswith(".safetensors"):
                    synced = os.open(f"{out}/{name}", os.O_RDONLY)
                    os.fsync(synced)
                    os.close(synced)

    for _ in range(rounds):
        measure("save, regraft", lambda: ours(True))
        if rank == 0:
            found["written"] = sum(os.path.getsize(f"{out}/{name}") for name in os.listdir(out))
        measure("save, torch", lambda: theirs(True, False))
        measure("save, durable, torch", lambda: theirs(False, True))
        measure("save, unsynced, regraft", lambda: ours(False))
        measure("save, unsynced, torch", lambda: theirs(False, False))
    if rank == 0:
        shutil.rmtree(out, ignore_errors=True)
    results[rank] = found
    dist.destroy_process_group()


def metadata_of_many_keys(folder, keys=49_152, files=8):
    """Seconds for the metadata of so many keys, and then for looking each up, by regraft and by
    torch."""
    path = f"{folder}/many"
    os.mkdir(path)
    weight_map, one = {}, torch.zeros(1)
    for number in range(files):
        name = f"model-{number + 1:05}-of-{files:05}.safetensors"
        names = [f"layers.{at}.weight" for at in range(number, keys, files)]
        save_file({n: one.clone() for n in names}, f"{path}/{name}")
        weight_map.update(dict.fromkeys(names, name))
    with open(f"{path}/model.safetensors.index.json", "w") as file:
        json.dump({"metadata": {}, "weight_map": weight_map}, file)
    taken = []
    for reader in (Reader(path, []), HuggingFaceStorageReader(path)):
        best = []
        for _ in range(3):
            start = time.perf_counter()
            tensors = reader.read_metadata().state_dict_metadata
            read = time.perf_counter()
            assert sum(tensors[f"layers.{at}.weight"].size[0] for at in range(keys)) == keys
            best.append((read - start, time.perf_counter() - read))
        taken.append(min(best))
    shutil.rmtree(path)
    return taken


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--mib", type=int, default=3072)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        hub = f"{folder}/hub"
        os.mkdir(hub)
        make_hub(hub, given.mib)
        total = sum(os.path.getsize(f"{hub}/{name}") for name in os.listdir(hub))
        print(f"{total / 2**20:.0f} MiB in the hub's layout")
        for size in given.ranks:
            with multiprocessing.Manager() as manager:
                results = manager.dict()
                multiprocessing.spawn(
                    rank_of, (size, hub, folder, given.rounds, results), nprocs=size
                )
                found = [results[rank] for rank in range(size)]
            print(f"\n{size} ranks")
            for what, by in (
                ("load", "load, regraft"),
                ("save", "save, regraft"),
                ("save, durable", "save, regraft"),
                ("save, unsynced", "save, unsynced, regraft"),
            ):
                ours, theirs = (
                    max(of_rank[name][0] for of_rank in found) for name in (by, f"{what}, torch")
                )
                print(f"{what}: {ours:.2f} s, torch {theirs:.2f} s: {ours / theirs:.2f} of it")
                most = max(of_rank[by][1] for of_rank in found)
                print(f"{what}: at most {most / 2**20:.0f} MiB beside the shards")
            read = max(of_rank["read"][0] / of_rank["read"][1] for of_rank in found)
            print(f"bytes read of bytes of the boxes: {read:.4f}")
            print(f"bytes in files of the source's: {found[0]['written'] / total:.4f}")
        ours, theirs = metadata_of_many_keys(folder)
        print(f"\nmetadata of 49,152 keys in 8 files: {ours[0]:.3f} s, torch {theirs[0]:.3f} s")
        print(f"and each of them looked up: {ours[1]:.3f} s, torch {theirs[1]:.3f} s")


if __name__ == "__main__":
    main()

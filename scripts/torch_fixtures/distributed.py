"""Checkpoints of `torch.distributed.checkpoint`: some that two processes saved, and some whose
metadata is written here, right once and then lying."""

import json
import os
import pickle
import tempfile
from unittest import mock

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file
from torch import nn
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.state_dict import get_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

from .expect import OWNED, Cases, raw
from .pickles import call, document, saved, storage, tensor

CKPT = "ckpt"
RIGHT = "by_hand"
"""The case that has the file which others share."""


class Owns:
    """Makes a file when it is unpickled."""

    def __reduce__(self):
        return os.system, (f"touch {OWNED}",)


def ranks(rank, world, place, meeting):
    """What two processes save."""
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
    torch.manual_seed(3)
    cases = Cases(place)

    def done(case, tensors, root="", skipped=(), **fields):
        if rank == 0:
            cases.readable(case, CKPT, tensors, root, skipped, ties=[], **fields)

    def folder(case):
        if rank == 0:
            cases.folder(case)
        dist.barrier()
        return os.path.join(place, case, CKPT)

    mesh = init_device_mesh("cpu", (2, world // 2), mesh_dim_names=("dp", "tp"))
    full = {
        "rows": torch.randn(5, 3),
        "columns": torch.randn(3, 5).bfloat16(),
        "same": torch.randn(4),
        "plain": torch.arange(6),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
    }
    placed = {
        "rows": [Shard(0), Shard(1)],
        "columns": [Shard(1), Replicate()],
        "same": [Replicate(), Replicate()],
    }
    saved = {
        key: distribute_tensor(of, mesh, placed[key]) if key in placed else of
        for key, of in full.items()
    }
    dcp.save({**saved, "epoch": 3, "note": "text"}, checkpoint_id=folder("mesh_2"))
    done("mesh_2", full, skipped=["epoch", "note"])

    # By `torch.save`, each process has a file of its own with its part.
    path = folder("dtensors_of_one_process")
    if rank == 0:
        own = {key: saved[key] for key in ("rows", "same", "plain")}
        torch.save({**own, "plain": full["plain"]}, path)
        cases.refused(
            "dtensors_of_one_process",
            CKPT,
            "dtensor",
            ["rows"],
            {"plain": full["plain"]},
            {"same": full["same"]},
            note="`rows` is a part of the tensor that its shape says, `same` is whole",
        )

    model = nn.Sequential(nn.Linear(3, 5, bias=False))
    whole = {key: of.clone() for key, of in model.state_dict().items()}
    fully_shard(model, mesh=init_device_mesh("cpu", (world,)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
    model(torch.randn(2, 3)).sum().backward()
    optimizer.step()
    of_model, of_optimizer = get_state_dict(model, optimizer)
    state = {"model": of_model, "optimizer": of_optimizer, "step": 7}
    dcp.save(state, checkpoint_id=folder("fsdp2_sgd_2"))
    below = {f"model.{key}": of for key, of in whole.items()}
    done("fsdp2_sgd_2", below, "model", ["optimizer", "step"])
    dist.barrier()
    dist.destroy_process_group()


def zipped(of):
    """An archive of a tensor, a third as long as torch's own."""
    kinds = {torch.float32: "FloatStorage", torch.float16: "HalfStorage"}
    stored = storage(numel=of.numel(), kind=kinds[of.dtype])
    made = tensor(tuple(of.shape), of.stride(), of=stored)
    return saved(made, {"0": raw(of)})


class Written:
    """A checkpoint by hand: `rows.weight` of four rows in two chunks, and `one.bias`."""

    def __init__(self):
        torch.manual_seed(5)
        self.w, self.b = torch.randn(4, 3), torch.randn(2)
        self.payloads = [zipped(self.w[:3].clone()), zipped(self.w[3:].clone()), zipped(self.b)]
        chunks = [self.chunk((0, 0), (3, 3)), self.chunk((3, 0), (1, 3))]
        self.tensors = {
            "rows.weight": TensorStorageMetadata(
                TensorProperties(torch.float32), torch.Size((4, 3)), chunks
            ),
            "one.bias": TensorStorageMetadata(
                TensorProperties(torch.float32), torch.Size((2,)), [self.chunk((0,), (2,))]
            ),
        }
        self.file = "__0_0.distcp"
        self.storage = {}
        self.place()
        self.right = b"".join(self.payloads)
        self.files = {}

    @staticmethod
    def chunk(offsets, sizes):
        return ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes))

    def place(self):
        """Says where the payloads lie."""
        at = 0
        indices = [("rows.weight", (0, 0)), ("rows.weight", (3, 0)), ("one.bias", (0,))]
        for (key, offset), payload in zip(indices, self.payloads):
            self.storage[MetadataIndex(key, offset)] = _StorageInfo(self.file, at, len(payload))
            at += len(payload)

    def info(self, key, *offset):
        return self.storage[MetadataIndex(key, offset)]

    def write(self, folder, metadata=None):
        place = folder / CKPT
        place.mkdir()
        data = b"".join(self.payloads)
        if data == self.right and folder.name != RIGHT:
            self.files = {f"{CKPT}/{self.file}": f"../{RIGHT}/{CKPT}/{self.file}"}
        else:
            (place / self.file).write_bytes(data)
        if metadata is None:
            planner = {key: (key,) for key in self.tensors}
            made = Metadata(self.tensors, planner, self.storage, StorageMeta(), "1.0.0")
            metadata = pickle.dumps(made)
        (place / ".metadata").write_bytes(metadata)
        return place


def by_hand(cases):
    right = Written()
    expected = {"rows.weight": right.w, "one.bias": right.b}
    place = right.write(cases.folder(RIGHT))
    found = {"rows.weight": torch.zeros(4, 3), "one.bias": torch.zeros(2)}
    dcp.load(found, checkpoint_id=place, no_dist=True)
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    cases.readable(RIGHT, CKPT, expected)

    # As older versions wrote it: without strides, the meta of the storage, and the version.
    old = Written()
    now = TensorProperties.__getstate__
    with mock.patch.object(TensorProperties, "__getstate__", lambda of: now(of)[:5]):
        metadata = Metadata(old.tensors, None, old.storage)
        for field in ("planner_data", "storage_meta", "version"):
            del metadata.__dict__[field]
        old.write(cases.folder("by_hand_older"), pickle.dumps(metadata, 4))
    cases.readable("by_hand_older", CKPT, expected, files=old.files)

    # The item of bytes holds code; nobody asks for it.
    beside = Written()
    beside.payloads.append(pickle.dumps(Owns()))
    beside.tensors["extra"] = BytesStorageMetadata()
    beside.storage[MetadataIndex("extra")] = _StorageInfo(
        beside.file, sum(map(len, beside.payloads[:3])), len(beside.payloads[3])
    )
    beside.write(cases.folder("hostile_bytes_item"))
    cases.readable("hostile_bytes_item", CKPT, expected, skipped=["extra"])


def lies(cases):
    def lie(name, key="rows.weight", why="corrupt", says=None):
        """A decorator: writes a checkpoint after what it decorates has changed it."""

        def write(change):
            made = Written()
            change(made)
            made.write(cases.folder(f"hostile_{name}"))
            said = [key] if says is None else says
            cases.refused(f"hostile_{name}", CKPT, why, said, files=made.files)

        return write

    big = 1 << 62

    @lie("file_outside", says=["by_hand"])
    def _(made):
        made.info("rows.weight", 0, 0).relative_path = "../../by_hand/ckpt/__0_0.distcp"

    @lie("file_absolute", says=["/etc/hostname"])
    def _(made):
        made.info("rows.weight", 0, 0).relative_path = "/etc/hostname"

    @lie("file_missing", says=["__1_0.distcp"])
    def _(made):
        made.info("rows.weight", 3, 0).relative_path = "__1_0.distcp"

    @lie("file_is_the_metadata", says=[])
    def _(made):
        made.info("rows.weight", 3, 0).relative_path = ".metadata"

    @lie("chunk_missing")
    def _(made):
        made.tensors["rows.weight"].chunks.pop()

    @lie("chunk_missing_in_the_middle")
    def _(made):
        made.tensors["rows.weight"].size = torch.Size((5, 3))
        made.tensors["rows.weight"].chunks[1] = made.chunk((4, 0), (1, 3))
        made.storage[MetadataIndex("rows.weight", (4, 0))] = made.storage.pop(
            MetadataIndex("rows.weight", (3, 0))
        )

    @lie("chunk_without_bytes")
    def _(made):
        del made.storage[MetadataIndex("rows.weight", (3, 0))]

    @lie("chunk_twice")
    def _(made):
        made.tensors["rows.weight"].chunks.append(made.chunk((0, 0), (3, 3)))

    @lie("chunks_overlap")
    def _(made):
        made.tensors["rows.weight"].chunks[1] = made.chunk((2, 0), (1, 3))
        made.storage[MetadataIndex("rows.weight", (2, 0))] = made.storage.pop(
            MetadataIndex("rows.weight", (3, 0))
        )

    @lie("chunk_leaves_the_tensor")
    def _(made):
        made.tensors["rows.weight"].size = torch.Size((4, 2))

    @lie("chunk_negative", says=[])
    def _(made):
        made.tensors["rows.weight"].chunks[1] = made.chunk((-1, 0), (1, 3))
        made.storage[MetadataIndex("rows.weight", (-1, 0))] = made.storage.pop(
            MetadataIndex("rows.weight", (3, 0))
        )

    @lie("chunk_of_other_rank")
    def _(made):
        made.tensors["rows.weight"].chunks[1] = made.chunk((3,), (1,))

    @lie("chunk_sizes_overflow", says=[])
    def _(made):
        made.tensors["rows.weight"].size = torch.Size((big, big))
        made.tensors["rows.weight"].chunks[:] = [made.chunk((0, 0), (big, big))]

    @lie("chunk_end_overflows", says=[])
    def _(made):
        made.tensors["rows.weight"].chunks[1] = made.chunk((2**63 - 1, 0), (2**63 - 1, 3))
        moved = made.storage.pop(MetadataIndex("rows.weight", (3, 0)))
        made.storage[MetadataIndex("rows.weight", (2**63 - 1, 0))] = moved

    @lie("no_chunks")
    def _(made):
        made.tensors["rows.weight"].chunks.clear()

    @lie("range_beyond")
    def _(made):
        made.info("rows.weight", 3, 0).offset = 1 << 40

    @lie("range_overflows", says=[])
    def _(made):
        made.info("rows.weight", 3, 0).offset = 2**63 - 1
        made.info("rows.weight", 3, 0).length = 2**63 - 1

    @lie("range_negative", says=[])
    def _(made):
        made.info("rows.weight", 3, 0).offset = -1

    @lie("range_too_long", "one.bias")
    def _(made):
        made.info("one.bias", 0).length += 1

    @lie("range_cut", says=[])
    def _(made):
        made.info("rows.weight", 0, 0).length -= 30

    @lie("range_shifted", says=[])
    def _(made):
        made.info("rows.weight", 0, 0).offset += 1

    @lie("range_of_another")
    def _(made):
        made.info("rows.weight", 3, 0).offset = made.info("one.bias", 0).offset
        made.info("rows.weight", 3, 0).length = made.info("one.bias", 0).length

    @lie("payload_of_other_dtype")
    def _(made):
        made.payloads[1] = zipped(made.w[3:].half())
        made.place()

    @lie("payload_of_other_shape")
    def _(made):
        made.payloads[1] = zipped(made.w[3:].clone().reshape(3))
        made.place()

    @lie("payload_is_code", why="code", says=[])
    def _(made):
        made.payloads[1] = saved(pickle.dumps(Owns()))
        made.place()

    @lie("payload_no_archive", says=[])
    def _(made):
        made.payloads[1] = b"\0" * 64
        made.place()

    @lie("compressed", why="compressed")
    def _(made):
        made.info("rows.weight", 0, 0).transform_descriptors = ["zstd"]

    @lie("size_is_text", says=[])
    def _(made):
        made.tensors["rows.weight"].size = "43"


def documents(cases):
    """A `.metadata` that isn't one."""
    right = Written()
    good = pickle.dumps(Metadata(right.tensors, None, right.storage))
    for case, (why, data, says) in {
        "system": ("code", pickle.dumps(Owns()), ["system"]),
        "system_within": (
            "code",
            pickle.dumps(Metadata(right.tensors, Owns(), right.storage)),
            [],
        ),
        "system_in_state": (
            "code",
            document(call("os", "system", f"touch {OWNED}"), 4),
            ["os.system"],
        ),
        "truncated": ("corrupt", good[:-40], []),
        "empty": ("corrupt", b"", []),
        "other_object": ("corrupt", pickle.dumps({"state_dict_metadata": {}}), []),
        "no_tensors": ("nothing", pickle.dumps(Metadata({}, {}, {})), []),
        "json": ("corrupt", b'{"state_dict_metadata": {}}', []),
    }.items():
        made = Written()
        made.write(cases.folder(f"hostile_metadata_{case}"), data)
        rest = {"rows.weight": right.w, "one.bias": right.b} if case == "system_within" else None
        cases.refused(f"hostile_metadata_{case}", CKPT, why, says, rest, files=made.files)
    made = Written()
    (made.write(cases.folder("refused_no_metadata")) / ".metadata").rename(
        cases.place / "refused_no_metadata" / CKPT / "__0.metadata"
    )
    cases.refused(
        "refused_no_metadata",
        CKPT,
        "corrupt",
        rest={"rows.weight": right.w, "one.bias": right.b},
        files=made.files,
        note="what a save without collectives leaves: one file of metadata for each process",
    )


def shards(cases):
    """The shards in safetensors, whose metadata says where each part lies."""
    torch.manual_seed(7)
    w = torch.randn(5, 3)

    def write(case, offsets, parts, text=None):
        place = cases.folder(case) / CKPT
        place.mkdir()
        for number, (offset, part) in enumerate(zip(offsets, parts), 1):
            info = json.dumps({"rows.weight": {"saved_offsets": offset}}) if text is None else text
            name = f"shard-{number:05}-model-00001-of-00001.safetensors"
            said = {"format": "pt", "DCP_SHARDING_INFO": info, "DCP_VERSION": "1.0"}
            save_file({"rows.weight": part.contiguous()}, place / name, metadata=said)

    parts = [w[:3], w[3:]]
    write("shards_by_hand", [[0, 0], [3, 0]], parts)
    cases.readable("shards_by_hand", CKPT, {"rows.weight": w})
    for case, offsets in {
        "hole": [[0, 0], [4, 0]],
        "overlap": [[0, 0], [2, 0]],
        "twice": [[0, 0], [0, 0]],
        "negative": [[0, 0], [-3, 0]],
        "other_rank": [[0, 0], [3]],
        "overflow": [[0, 0], [2**64 - 1, 0]],
    }.items():
        write(f"hostile_shards_{case}", offsets, parts)
        says = [] if case in ("negative", "overflow") else ["rows.weight"]
        cases.refused(f"hostile_shards_{case}", CKPT, "corrupt", says)
    write("hostile_shards_no_json", [[0, 0], [3, 0]], parts, "{")
    cases.refused("hostile_shards_no_json", CKPT, "corrupt")


def make(cases):
    cases.place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        meeting = os.path.join(scratch, "meeting")
        torch.multiprocessing.spawn(ranks, (2, str(cases.place), meeting), 2)
    cases.names += ["mesh_2", "fsdp2_sgd_2", "dtensors_of_one_process"]
    by_hand(cases)
    lies(cases)
    documents(cases)
    shards(cases)

"""What ranks do in the tests of distributed checkpoints."""

import regraft
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from regraft.torch.distributed import Reader
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor


def placed(name):
    """Placements by name: `s0`, `s1`, `r`; on a mesh of two dims `s0,r`."""
    one = {"r": Replicate, "s0": lambda: Shard(0), "s1": lambda: Shard(1), "s2": lambda: Shard(2)}
    return [one[part]() for part in name.split(",")]


def mesh_of(name):
    size, dims = dist.get_world_size(), name.count(",") + 1
    shape = (size,) if dims == 1 else (2, size // 2)
    return init_device_mesh("cpu", shape, mesh_dim_names=("a", "b")[:dims])


def empty(shapes, name):
    """A state dict of distributed tensors, whose elements are none of the checkpoint's."""
    mesh, made = mesh_of(name), {}
    for key, (dtype, shape) in shapes.items():
        placements = placed(name)
        for at, placement in enumerate(placements):
            if placement.is_shard() and placement.dim >= len(shape):
                placements[at] = Replicate()
        made[key] = distribute_tensor(
            torch.full(shape, 77, dtype=dtype), mesh, placements, src_data_rank=None
        )
    return made


def differing(state_dict, expected):
    """Keys whose tensors differ from those of the whole, which every rank has."""
    wrong = []
    for key, tensor in state_dict.items():
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if not torch.equal(whole, expected[key]):
            wrong.append(key)
    return wrong


def load(path, rules, options, name, expected_path, under=""):
    """Loads with any placements; gives keys that are wrong, bytes read, and bytes of the boxes."""
    expected = torch.load(expected_path)
    state_dict = empty({k: (t.dtype, tuple(t.shape)) for k, t in expected.items()}, name)
    reader = Reader(path, rules, under=under, **options)
    dcp.load({under: state_dict} if under else state_dict, storage_reader=reader)
    local = sum(tensor.to_local().nbytes for tensor in state_dict.values())
    return differing(state_dict, expected), reader.bytes_read, local


def load_strided(path, key):
    """A shard in strides, as data parallelism over tensor parallelism makes them, alone and not."""
    from torch.distributed.tensor.placement_types import _StridedShard

    whole = regraft.open(path, framework="torch").apply(to="model")[key]
    wrong = []
    for placements in [
        [_StridedShard(0, split_factor=2), Shard(0)],
        [_StridedShard(2, split_factor=3), Replicate()],
        [_StridedShard(1, split_factor=2), Shard(0)],
    ]:
        mesh = mesh_of("s0,s0")
        tensor = distribute_tensor(torch.zeros_like(whole), mesh, placements)
        dcp.load({key: tensor}, storage_reader=Reader(path))
        if not torch.equal(tensor.full_tensor(), whole):
            wrong.append(str(placements))
    return wrong


class Local(torch.Tensor):
    """A plain tensor with attributes: parts of a larger one."""


def load_plain_parts(path, key):
    """Experts of a rank as a plain tensor that says which they are: two boxes of two columns."""
    whole = regraft.open(path, framework="torch").apply(to="model")[key]
    rank = dist.get_rank()
    tensor = torch.zeros(1, whole.shape[1], 10)
    tensor.global_shape = tuple(whole.shape)
    tensor.global_offsets = ((rank, 0, 0), (rank, 0, 20))
    tensor.local_offsets = ((0, 0, 0), (0, 0, 5))
    tensor.local_sizes = ((1, whole.shape[1], 5), (1, whole.shape[1], 5))
    dcp.load({key: tensor}, storage_reader=Reader(path))
    own = whole[rank : rank + 1]
    return torch.equal(tensor, torch.cat([own[..., :5], own[..., 20:25]], 2))


def refused(path):
    """What dcp says of keys that the checkpoint lacks."""
    state_dict = {"model.norm.weight": torch.zeros(32), "model.more.weight": torch.zeros(2)}
    said = ""
    try:
        dcp.load(state_dict, storage_reader=Reader(path))
    except dcp.api.CheckpointException as error:
        said = str(error)
    dcp.load(
        state_dict,
        storage_reader=Reader(path),
        planner=dcp.DefaultLoadPlanner(allow_partial_load=True),
    )
    return said, float(state_dict["model.norm.weight"].sum()), state_dict["model.more.weight"]


def other_places(path):
    """Tensors that can't be read into where they are: another dtype, elements in one place."""
    model = {"model.norm.weight": torch.zeros(32, dtype=torch.float64)}
    dcp.load(model, storage_reader=Reader(path))
    return model["model.norm.weight"]


def sharded_model(path, size_of_mesh=None):
    """A model of transformers without weights, sharded by FSDP2."""
    import transformers
    from torch.distributed.fsdp import fully_shard

    config = transformers.AutoConfig.from_pretrained(path)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(77)
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh).eval()


TOKENS = torch.arange(12).reshape(2, 6) * 5 % 64


def logits_of_sharded(path):
    """What a sharded model gives that was loaded from the hub's layout."""
    model = sharded_model(path)
    state_dict = {"model": model.state_dict()}
    dcp.load(state_dict, storage_reader=Reader(path, under="model"))
    with torch.no_grad():
        return model(TOKENS).logits

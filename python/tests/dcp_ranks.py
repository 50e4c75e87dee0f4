"""What ranks do in the tests of distributed checkpoints."""

import os

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


def loaded_and_logits(path):
    """The whole tensors of a sharded model that was loaded from the hub's layout, and what it
    gives."""
    model = sharded_model(path)
    state_dict = {"model": model.state_dict()}
    dcp.load(state_dict, storage_reader=Reader(path, under="model"))
    # Buffers aren't sharded.
    whole = {
        key: tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        for key, tensor in model.state_dict().items()
    }
    with torch.no_grad():
        return whole, model(TOKENS).logits


def sharded(path, name):
    """A state dict in memory, with these placements."""
    tensors = torch.load(path)
    made = empty({k: (t.dtype, tuple(t.shape)) for k, t in tensors.items()}, name)
    for key, tensor in made.items():
        whole = distribute_tensor(
            tensors[key], tensor.device_mesh, tensor.placements, src_data_rank=None
        )
        tensor.to_local().copy_(whole.to_local())
    return made


def save(tensors, out, name, rules, options):
    """Saves a state dict with any placements; gives how many bytes this rank wrote."""
    from regraft.torch.distributed import Writer

    under = options.get("under")
    state_dict = sharded(tensors, name)
    writer = Writer(out, rules, **options)
    dcp.save({under: state_dict} if under else state_dict, storage_writer=writer)
    return writer.bytes_written


def save_tied(path, out, placements, differ):
    """Saves a model whose config ties two tensors that lie apart, and may differ."""
    from regraft.torch.distributed import Writer

    made = sharded(path, "s0")
    made["lm_head.weight"] = sharded(path, placements)["lm_head.weight"]
    if differ and dist.get_rank() == 1:
        made["lm_head.weight"].to_local()[-1] += 1
    said = ""
    writer = Writer(out, config={"model_type": "llama", "tie_word_embeddings": True})
    try:
        dcp.save(made, storage_writer=writer)
    except dcp.api.CheckpointException as error:
        said = str(error)
    return said


def save_and_die(tensors, out, like):
    """The second rank dies while it writes; the others are left waiting until they are killed."""
    from regraft.torch.distributed import Writer

    class Dying(Writer):
        def write_data(self, plan, planner):
            if dist.get_rank() == 1:
                os._exit(9)
            return super().write_data(plan, planner)

    dcp.save(sharded(tensors, "s0"), storage_writer=Dying(out, like=like))


def save_and_fail(tensors, out, like):
    """The second rank fails; then all save again."""
    from regraft.torch.distributed import Writer

    class Failing(Writer):
        def write_data(self, plan, planner):
            if dist.get_rank() == 1:
                raise OSError("the disk is full")
            return super().write_data(plan, planner)

    writer, said = Failing(out, like=like), ""
    try:
        dcp.save(sharded(tensors, "s0"), storage_writer=writer)
    except dcp.api.CheckpointException as error:
        said = str(error)
    there = os.path.exists(out)
    dist.barrier()
    del writer
    dcp.save(sharded(tensors, "s0"), storage_writer=Writer(out, like=like))
    return said, there


def save_refused(out, rules):
    """What is said of a value that is computed from what several ranks hold."""
    from regraft.torch.distributed import Writer

    tensors = {"w": torch.randn(8, 6), "scale": torch.randn(8, 1)}
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    made = {key: distribute_tensor(tensor, mesh, [Shard(0)]) for key, tensor in tensors.items()}
    made["w"] = made["w"].redistribute(placements=[Shard(1)])
    try:
        dcp.save(made, storage_writer=Writer(out, rules))
    except dcp.api.CheckpointException as error:
        return str(error)
    return ""


def save_async(tensors, out, options):
    from regraft.torch.distributed import Writer

    state_dict = sharded(tensors, "s0")
    dcp.async_save(state_dict, storage_writer=Writer(out, **options)).result()


def save_sharded_model(path, out):
    """Loads a sharded model, and saves it."""
    from regraft.torch.distributed import Writer

    model = sharded_model(path)
    state_dict = model.state_dict()
    dcp.load(state_dict, storage_reader=Reader(path))
    dcp.save(state_dict, storage_writer=Writer(out, like=path))


def load_head(path, state):
    """The last stage of a pipeline: it has the head, and no embedding."""
    whole = torch.load(state)["lm_head.weight"]
    head = empty({"lm_head.weight": (whole.dtype, tuple(whole.shape))}, "s0")
    reader = Reader(path)
    dcp.load(head, storage_reader=reader)
    tensor = head["lm_head.weight"]
    return torch.equal(tensor.full_tensor(), whole), reader.bytes_read, tensor.to_local().nbytes


def load_tied(path):
    """A model whose head is its embedding, under both keys."""
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(path)
    expected = model.state_dict()
    assert expected["lm_head.weight"] is not None
    state_dict = {key: torch.zeros_like(tensor) for key, tensor in expected.items()}
    state_dict["lm_head.weight"] = state_dict["model.embed_tokens.weight"]
    reader = Reader(path)
    dcp.load(state_dict, storage_reader=reader)
    assert all(torch.equal(state_dict[key], tensor) for key, tensor in expected.items())
    return reader.bytes_read


TITAN = """ruleset titan: hub <-> titan
rename "model.**" <-> "**"
rename "embed_tokens.weight" <-> "tok_embeddings.weight"
rename "lm_head.weight" <-> "output.weight"
map "layers.{l}.self_attn.q_proj.weight" <-> "layers.{l}.attention.wq.weight" via rope_halves(4)
map "layers.{l}.self_attn.k_proj.weight" <-> "layers.{l}.attention.wk.weight" via rope_halves(2)
"""


def load_as_torchtitan(path):
    """As torchtitan's checkpointer does it, by an adapter."""
    import sys

    sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "examples"))
    from torchtitan_adapter import regraft_adapter

    rules = regraft.compile(TITAN)
    adapter = regraft_adapter(rules)(None, path)
    whole = regraft.open(path, framework="torch").apply(rules)
    model = empty({k: (t.dtype, tuple(t.shape)) for k, t in whole.items()}, "s0")
    hub = adapter.to_hf(model)
    dcp.load(hub, storage_reader=adapter.get_hf_storage_reader(path))
    return differing(adapter.from_hf(hub), whole)


def load_as_automodel(path, state):
    """As AutoModel's checkpointer does it, with our reader in place of its own."""
    import sys

    sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "examples"))
    from automodel_reader import read_by_regraft

    class Checkpointer:
        def _get_storage_reader(self, model_path, key_mapping, is_init_step=False, **given):
            return "its own"

        def load_base_model(self, state_dict, path):
            reader = self._get_storage_reader(path, None, is_init_step=True, is_safetensors=True)
            dcp.load(state_dict, storage_reader=reader)

    checkpointer, expected = Checkpointer(), torch.load(state)
    read_by_regraft(checkpointer)
    model = empty({k: (t.dtype, tuple(t.shape)) for k, t in expected.items()}, "s0")
    checkpointer.load_base_model(model, path)
    assert checkpointer._get_storage_reader(path, None) == "its own"
    return differing(model, expected)


def through_memory(path, state, out, like):
    """What can't be read into or written from where it is goes through memory, bit by bit: another
    dtype stands for another device."""
    from regraft.torch import _reader, _writer
    from regraft.torch.distributed import Writer

    _reader._STAGED = _writer._STAGED = 3000
    expected = torch.load(state)
    model = {key: torch.zeros_like(tensor, dtype=torch.float64) for key, tensor in expected.items()}
    dcp.load(model, storage_reader=Reader(path))
    wrong = [key for key, tensor in model.items() if not torch.equal(tensor.float(), expected[key])]
    # Elements that lie in one place can't be addressed as a box.
    for key in ("model.norm.weight", "model.layers.0.mlp.experts.down_proj"):
        one = torch.full((1,) * expected[key].dim(), 0.5)
        expected[key] = one.expand(expected[key].shape)
    expected["model.embed_tokens.weight"] = expected["model.embed_tokens.weight"][:1].expand(64, 32)
    dcp.save(expected, storage_writer=Writer(out, like=like))
    made = regraft.open(out, framework="torch").apply(to="model")
    return wrong + [key for key in made if not torch.equal(made[key], expected[key])]

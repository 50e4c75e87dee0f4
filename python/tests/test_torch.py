"""Rules over torch tensors: what can be a view is one, on any device; what can't be is made once,
and right."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.filterwarnings("ignore::regraft.RegraftWarning")

torch = pytest.importorskip("torch", reason="torch is not installed")

import regraft  # noqa: E402

LAYERS, EXPERTS, HIDDEN, INNER = 2, 3, 8, 6


def storage(tensor):
    """Which storage a tensor is a view of; a meta tensor has no address, but its storage is an
    object all the same."""
    return tensor.untyped_storage().data_ptr() or tensor.untyped_storage()._cdata


def moe(device="cpu"):
    made = {}

    def add(key, *shape):
        made[key] = torch.randn(shape).to(device)

    for layer in range(LAYERS):
        block = f"model.layers.{layer}.block_sparse_moe"
        add(f"{block}.gate.weight", EXPERTS, HIDDEN)
        for expert in range(EXPERTS):
            add(f"{block}.experts.{expert}.w1.weight", INNER, HIDDEN)
            add(f"{block}.experts.{expert}.w3.weight", INNER, HIDDEN)
            add(f"{block}.experts.{expert}.w2.weight", HIDDEN, INNER)
    add("model.embed_tokens.weight", 10, HIDDEN)
    return made


@pytest.fixture(params=["cpu", "meta"])
def device(request):
    return request.param


def test_renames_are_the_same_objects(device):
    x = torch.randn(3, 4).to(device)
    out = regraft.compile('rename "a.{name*}" <-> "b.{name*}"').apply({"a.x": x, "other": x})
    assert out == {"b.x": x, "other": x}
    assert out["b.x"] is x and out["other"] is x


def test_packing_makes_what_a_loop_makes():
    given = moe()
    out = regraft.load("mixtral").apply(given, to="model")
    for layer in range(LAYERS):
        old, new = f"model.layers.{layer}.block_sparse_moe", f"model.layers.{layer}.mlp"
        gate_up = [
            torch.cat([given[f"{old}.experts.{e}.{w}.weight"] for w in ("w1", "w3")])
            for e in range(EXPERTS)
        ]
        assert torch.equal(out.pop(f"{new}.experts.gate_up_proj"), torch.stack(gate_up))
        down = [given[f"{old}.experts.{e}.w2.weight"] for e in range(EXPERTS)]
        assert torch.equal(out.pop(f"{new}.experts.down_proj"), torch.stack(down))
        assert out.pop(f"{new}.gate.weight") is given[f"{old}.gate.weight"]
    assert list(out) == ["model.embed_tokens.weight"]


def test_unstacking_and_splitting_are_views(device):
    packed = regraft.load("mixtral").apply(moe(device), to="model")
    out = regraft.load("mixtral").apply(packed, to="hub")
    assert set(out) == set(moe())
    for key, tensor in out.items():
        if ".experts." not in key:
            continue
        assert tensor.device.type == device
        layer = key.split(".")[2]
        which = "down_proj" if ".w2." in key else "gate_up_proj"
        assert storage(tensor) == storage(packed[f"model.layers.{layer}.mlp.experts.{which}"]), key


def test_what_unstacking_gives_is_right():
    given = moe()
    rules = regraft.load("mixtral")
    out = rules.apply(rules.apply(given, to="model"), to="hub")
    assert set(out) == set(given)
    for key in given:
        assert torch.equal(out[key], given[key]), key


@pytest.mark.parametrize(
    ("rule", "shape", "expected"),
    [
        ('"a" <-> "b" via transpose(0, 1)', (3, 4), lambda x: {"b": x.T}),
        ('"a" <-> "b" via permute(2, 0, 1)', (2, 3, 4), lambda x: {"b": x.permute(2, 0, 1)}),
        ('"a" <-> "b", "c" via split(0)', (6, 4), lambda x: {"b": x[:3], "c": x[3:]}),
        ('"a" <-> "b", "c" via split(1, 1, 2)', (2, 6), lambda x: {"b": x[:, :2], "c": x[:, 2:]}),
        ('"a" -> "b" via slice(0, 1..3)', (6, 4), lambda x: {"b": x[1:3]}),
        ('"a" <-> "b.{e}" via unstack(e)', (3, 4), lambda x: {f"b.{i}": x[i] for i in range(3)}),
    ],
)
def test_index_maps_of_one_tensor_are_views(rule, shape, expected, device):
    x = torch.randn(shape)
    wanted = expected(x)
    given = {"a": x.to(device)}
    out = regraft.compile(f"map {rule}").apply(given)
    assert set(out) == set(wanted)
    for key, tensor in out.items():
        assert tensor.shape == wanted[key].shape
        assert storage(tensor) == storage(given["a"]), key
        if device == "cpu":
            assert torch.equal(tensor, wanted[key]), key
            assert tensor.data_ptr() == wanted[key].data_ptr(), key


def test_ties_are_one_tensor(device):
    embed = torch.randn(5, 4).to(device)
    rules = regraft.load("tied_lm_head")
    out = rules.apply({"model.embed_tokens.weight": embed}, tied=True)
    assert out["lm_head.weight"] is embed
    # Saving drops what really is the same tensor, and nothing else.
    assert set(rules.apply(out, tied=True, reverse=True)) == {"model.embed_tokens.weight"}
    trained = {"model.embed_tokens.weight": embed, "lm_head.weight": torch.randn(5, 4).to(device)}
    assert set(rules.apply(trained, tied=True, reverse=True)) == set(trained)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int8])
def test_tied_means_equal_bytes(dtype):
    head = torch.tensor([0.0, 1.0, 2.0]).to(dtype)
    rules = regraft.load("tied_lm_head")

    def saved(head, embed):
        return len(
            rules.apply(
                {"lm_head.weight": head, "model.embed_tokens.weight": embed},
                tied=True,
                reverse=True,
            )
        )

    assert saved(head, head) == 1
    assert saved(head, head[:]) == 1
    assert saved(head, head.clone()) == 1
    different = head.clone()
    different[0] = 5
    assert saved(head, different) == 2
    if dtype.is_floating_point:
        negative = head.clone()
        negative[0] = -0.0
        assert torch.equal(head, negative)
        assert saved(head, negative) == 2, "-0.0 is not 0.0"


def test_equal_ties_with_nan():
    from regraft._arrays import torch_ops

    differing = torch_ops().differing_bytes
    nan = torch.tensor([float("nan"), 1.0])
    assert differing(nan, nan.clone()) == 0
    assert differing(torch.tensor([0.0]), torch.tensor([-0.0])) == 1
    assert differing(torch.tensor([0, 256]), torch.tensor([0, 1])) == 2
    assert differing(torch.zeros(2), torch.zeros(3)) is None
    assert differing(torch.zeros(2), torch.zeros(2, dtype=torch.int32)) is None
    assert differing(torch.zeros(2, device="meta"), torch.zeros(2, device="meta")) is None
    shared = torch.zeros(4, device="meta")
    assert differing(shared[:2], shared[:2]) == 0
    assert differing(shared[:2], shared[2:]) is None
    assert differing(torch.tensor(True), torch.tensor(False)) == 1
    assert differing(torch.tensor([1 + 2j]), torch.tensor([1 + 2j])) == 0


def test_inplace_edits_the_dict_and_lets_go_of_what_is_used():
    import weakref

    given = moe()
    expected = regraft.load("mixtral").apply(dict(given), to="model")
    used = weakref.ref(given["model.layers.0.block_sparse_moe.experts.0.w1.weight"])
    out = regraft.load("mixtral").apply(given, to="model", inplace=True)
    assert out is given
    assert set(given) == set(expected)
    assert all(torch.equal(given[key], expected[key]) for key in expected)
    assert used() is None


PEAK = """
import sys, torch, regraft

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))

key = "model.layers.{}.block_sparse_moe.experts.{}.{}.weight"
experts = [(l, e, w) for l in range(8) for e in range(4) for w in ("w1", "w2", "w3")]
made = {key.format(*expert): torch.ones(1024, 1024) for expert in experts}
regraft.load("mixtral").plan(made)
# The peak so far is forgotten.
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
before = peak()
out = regraft.load("mixtral").apply(made, to="model", inplace=sys.argv[1] == "inplace")
assert len(out) == 16
print((peak() - before) >> 10)
"""


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="memory is measured as Linux tells it"
)
def test_packing_in_place_takes_memory_for_little_more_than_one_tensor():
    added = {}
    for how in ("inplace", "apart"):
        done = subprocess.run([sys.executable, "-c", PEAK, how], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        added[how] = int(done.stdout)
    # 384 MiB of experts; the largest packed tensor has 32.
    assert added["apart"] > 350
    assert added["inplace"] < 64


def test_rules_that_do_not_fit_leave_the_dict_alone():
    given = moe()
    del given["model.layers.1.block_sparse_moe.experts.1.w1.weight"]
    before = dict(given)
    with pytest.raises(regraft.PlanError) as caught:
        regraft.load("mixtral").apply(given, to="model", inplace=True)
    assert "experts.1.w1" in str(caught.value)
    assert given == before


def test_values_that_are_no_tensors_keep_their_place():
    given = {"a.x": torch.zeros(2), "a._extra_state": {"scale": 1}, "a.none": None}
    out = regraft.compile('rename "a.**" <-> "b.**"').apply(given)
    assert out["b._extra_state"] is given["a._extra_state"]
    assert out["b.none"] is None
    with pytest.raises(TypeError, match="a.none"):
        regraft.compile('map "a.none" -> "b" via reshape([1, 0])').apply({"a.none": None})


@pytest.mark.parametrize(
    "make", [lambda: torch.zeros(2, 2, dtype=torch.complex128), lambda: torch.eye(2).to_sparse()]
)
def test_tensors_that_no_header_can_tell_of_are_renamed_and_nothing_else(make):
    given = {"a": make()}
    assert regraft.compile('rename "a" <-> "b"').apply(given)["b"] is given["a"]
    with pytest.raises(TypeError, match="rename or drop"):
        regraft.compile('map "a" -> "b" via cast(F32)').apply(given)
    with pytest.raises(TypeError, match="rename or drop"):
        regraft.compile('map "a", "c" <-> "b" via concat(0)').apply(
            {**given, "c": torch.zeros(0, dtype=torch.uint8)}
        )


def test_parameters_stay_parameters_and_nothing_is_tracked():
    weight = torch.nn.Parameter(torch.randn(4, 2))
    rules = regraft.compile('map "a" <-> "b" via transpose(0, 1)')
    out = rules.apply({"a": weight, "c": weight})
    assert out["c"] is weight
    assert out["b"].grad_fn is None and not out["b"].requires_grad
    assert out["b"].data_ptr() == weight.data_ptr()


VALUE_RULES = [
    ('map "a" -> "b" via cast(BF16)', torch.float32),
    ('map "a" -> "b" via cast(F16)', torch.float32),
    ('map "a" -> "b" via cast(F8_E4M3)', torch.float32),
    ('map "a" -> "b" via cast(F32)', torch.bfloat16),
    ('map "a" -> "b" via cast(BF16)', torch.float64),
    ('map "a" -> "b" via add(1)', torch.bfloat16),
    ('map "a" -> "b" via mul(3)', torch.float16),
    ('map "a" -> "b" via neg', torch.float32),
    ('map "a" -> "b" via add(1.5)', torch.float64),
    ('map "a" -> "b" via cast(I32)', torch.float32),
    ('map "a" -> "b" via reshape([20, 30]) | transpose(0, 1)', torch.float32),
]


@pytest.mark.parametrize(("rule", "dtype"), VALUE_RULES)
def test_memory_and_files_agree_bit_for_bit(rule, dtype, tmp_path):
    from safetensors.torch import load_file, save_file

    torch.manual_seed(1)
    x = (torch.randn(600) * 100).to(dtype)
    save_file({"a": x}, tmp_path / "in.safetensors")
    rules = regraft.compile(rule)
    regraft.convert(tmp_path / "in.safetensors", tmp_path / "out.safetensors", rules=rules)
    written = load_file(tmp_path / "out.safetensors")["b"]
    here = rules.apply({"a": x})["b"].contiguous()
    assert here.dtype == written.dtype and here.shape == written.shape
    assert torch.equal(here.view(-1).view(torch.uint8), written.view(-1).view(torch.uint8))


@pytest.mark.parametrize(
    "made",
    ["zeros([2, 3], BF16)", "ones([4], I32)", "sinusoids([40, 6], F32)", "sinusoids([9, 8], BF16)"],
)
def test_made_tensors_agree_with_files(made, device, tmp_path):
    from safetensors.torch import load_file, save_file

    given = {"a": torch.zeros(1)}
    save_file(given, tmp_path / "in.safetensors")
    rules = regraft.compile(f'create "b" = {made}')
    regraft.convert(tmp_path / "in.safetensors", tmp_path / "out.safetensors", rules=rules)
    written = load_file(tmp_path / "out.safetensors")["b"]
    here = rules.apply({"a": given["a"].to(device)})["b"]
    assert (
        here.device.type == device and here.dtype == written.dtype and here.shape == written.shape
    )
    if device == "cpu":
        assert torch.equal(here, written)
        assert (made.startswith("zeros") and not here.any()) or here.any()


def test_exp_and_log():
    x = torch.rand(50) + 0.5
    out = regraft.compile('map "a" -> "e" via exp\nmap "b" -> "l" via log').apply({"a": x, "b": x})
    # Libraries differ in the last place of these.
    torch.testing.assert_close(out["e"], x.exp())
    torch.testing.assert_close(out["l"], x.log())


def test_block_scales_agree_with_files(tmp_path):
    from safetensors.torch import load_file, save_file

    torch.manual_seed(2)
    weight = torch.randn(130, 70).to(torch.float8_e4m3fn)
    scale = torch.rand(2, 1)
    save_file({"a": weight, "s": scale}, tmp_path / "in.safetensors")
    rules = regraft.compile('map "a", "s" -> "b" via dequant_fp8(128)')
    rules.plan({"a": weight, "s": scale})
    regraft.convert(tmp_path / "in.safetensors", tmp_path / "out.safetensors", rules=rules)
    written = load_file(tmp_path / "out.safetensors")["b"]
    here = rules.apply({"a": weight, "s": scale})["b"]
    assert here.dtype == written.dtype
    assert torch.equal(here, written)
    expected = weight.float()
    expected[:128] *= scale[0, 0]
    expected[128:] *= scale[1, 0]
    assert torch.equal(here, expected.to(here.dtype))


def test_findings_are_warnings():
    rules = regraft.compile('rename "a" <-> "b"\nrename "never" <-> "there"')
    with pytest.warns(regraft.RegraftWarning, match="RG3"):
        rules.apply({"a": torch.zeros(1)})


def test_target_prunes_and_reports():
    given = moe()
    model = torch.nn.Module()
    model.lm_head = torch.nn.Linear(2, 3, bias=False)
    rules = regraft.compile('rename "head" <-> "lm_head.weight"')
    out = rules.apply({"head": torch.zeros(3, 2)}, target=model)
    assert list(out) == ["lm_head.weight"]
    with pytest.raises(regraft.PlanError) as caught:
        rules.apply({"head": torch.zeros(3, 3)}, target=model)
    assert caught.value.keys == ("lm_head.weight",)
    packed = regraft.load("mixtral").plan(
        given, target=["model.layers.0.mlp.gate.weight", "gone"], strict=False
    )
    assert packed.report.missing == ("gone",)
    assert packed.keys() == ["model.layers.0.mlp.gate.weight"]
    assert "model.embed_tokens.weight" in packed.report.unexpected


def test_a_plan_is_only_for_what_it_was_made_for():
    rules = regraft.compile('map "a" <-> "b" via transpose(0, 1)')
    plan = rules.plan({"a": torch.zeros(2, 3)})
    assert plan.apply({"a": torch.ones(2, 3)})["b"].shape == (3, 2)
    for other in (
        {"a": torch.zeros(3, 2)},
        {"b": torch.zeros(2, 3)},
        {"a": torch.zeros(2, 3, dtype=torch.int8)},
    ):
        with pytest.raises(regraft.PlanError):
            plan.apply(other)


def test_distributed_tensors_stay_distributed(tmp_path):
    if not torch.distributed.is_available():
        pytest.skip("this torch has no torch.distributed")
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Shard, distribute_tensor

    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1
    )
    try:
        mesh = init_device_mesh("cpu", (1,))
        whole = torch.randn(4, 6)
        given = {
            "a": distribute_tensor(whole, mesh, [Shard(0)]),
            "e.0": distribute_tensor(whole, mesh, [Shard(1)]),
        }
        given["e.1"] = distribute_tensor(whole + 1, mesh, [Shard(1)])
        out = regraft.compile(
            'map "a" <-> "b" via transpose(0, 1)\nmap "e.{i}" <-> "e" via stack(i)'
        ).apply(given)
        assert isinstance(out["b"], DTensor) and isinstance(out["e"], DTensor)
        assert torch.equal(out["b"].full_tensor(), whole.T)
        assert torch.equal(out["e"].full_tensor(), torch.stack([whole, whole + 1]))
        assert (
            out["b"].to_local().untyped_storage().data_ptr()
            == given["a"].to_local().untyped_storage().data_ptr()
        )
    finally:
        torch.distributed.destroy_process_group()

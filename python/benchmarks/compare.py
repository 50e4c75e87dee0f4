"""regraft beside what one would use otherwise: planning the keys of a large checkpoint, and packing
the experts of one of about 3 GiB.

    python benchmarks/compare.py [--work DIRECTORY] [--layers 18]

Each measurement runs in a process of its own. Its time is that of the work alone, without imports
and the making of inputs; its memory is its peak, with what was added after the imports beside it.
Files are read once beforehand, so that all find them in the page cache. The packed checkpoints are
compared with each other, byte for byte.

Needs torch, safetensors and transformers 5.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DEEPSEEK = {"model_type": "deepseek_v3", "architectures": ["DeepseekV3ForCausalLM"]}
MIXTRAL = {
    "hidden_size": 1024,
    "intermediate_size": 3584,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "num_local_experts": 8,
    "vocab_size": 32000,
    "tie_word_embeddings": False,
}


def deepseek_keys(scales):
    """Key -> dtype and shape of DeepSeek-V3 as it is published, in fp8 with its scales or in bf16;
    without its multi-token layer."""
    hidden, heads, q_rank, kv_rank, rope = 7168, 128, 1536, 512, 64
    made = {
        "model.embed_tokens.weight": ("BF16", (129280, hidden)),
        "model.norm.weight": ("BF16", (hidden,)),
    }
    made["lm_head.weight"] = ("BF16", (129280, hidden))

    def linear(name, rows, columns):
        made[f"{name}.weight"] = ("F8_E4M3" if scales else "BF16", (rows, columns))
        if scales:
            made[f"{name}.weight_scale_inv"] = ("F32", (-(-rows // 128), -(-columns // 128)))

    def mlp(name, inner):
        linear(f"{name}.gate_proj", inner, hidden)
        linear(f"{name}.up_proj", inner, hidden)
        linear(f"{name}.down_proj", hidden, inner)

    for layer in range(61):
        name = f"model.layers.{layer}"
        for norm, size in (("input_layernorm", hidden), ("post_attention_layernorm", hidden)):
            made[f"{name}.{norm}.weight"] = ("BF16", (size,))
        for norm, size in (("q_a_layernorm", q_rank), ("kv_a_layernorm", kv_rank)):
            made[f"{name}.self_attn.{norm}.weight"] = ("BF16", (size,))
        linear(f"{name}.self_attn.q_a_proj", q_rank, hidden)
        linear(f"{name}.self_attn.q_b_proj", heads * 192, q_rank)
        linear(f"{name}.self_attn.kv_a_proj_with_mqa", kv_rank + rope, hidden)
        linear(f"{name}.self_attn.kv_b_proj", heads * 256, kv_rank)
        linear(f"{name}.self_attn.o_proj", hidden, heads * 128)
        if layer < 3:
            mlp(f"{name}.mlp", 18432)
            continue
        made[f"{name}.mlp.gate.weight"] = ("BF16", (256, hidden))
        made[f"{name}.mlp.gate.e_score_correction_bias"] = ("F32", (256,))
        mlp(f"{name}.mlp.shared_experts", 2048)
        for expert in range(256):
            mlp(f"{name}.mlp.experts.{expert}", 2048)
    return made


# Each of these runs in a process of its own and gives its seconds and what it did.


def plan_regraft(scales):
    import regraft
    import torch
    from regraft._arrays import torch_ops

    dtypes = torch_ops().dtypes
    state_dict = {
        key: torch.empty(shape, dtype=dtypes[dtype], device="meta")
        for key, (dtype, shape) in deepseek_keys(scales).items()
    }
    start = time.perf_counter()
    keys = regraft.plan(state_dict, config=DEEPSEEK, to="model").keys()
    return time.perf_counter() - start, f"{len(state_dict):,} keys -> {len(keys):,}"


def plan_transformers(scales):
    import torch
    import transformers
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import (
        WeightConverter,
        WeightRenaming,
        dot_natural_key,
        rename_source_key,
    )

    # The published numbers are the class's defaults, but for the fp8 that isn't about names.
    with torch.device("meta"):
        model = transformers.DeepseekV3ForCausalLM(transformers.DeepseekV3Config())
    mapping = get_model_conversion_mapping(model)
    renamings = [entry for entry in mapping if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in mapping if isinstance(entry, WeightConverter)]
    wanted = model.state_dict()
    keys = list(deepseek_keys(scales))
    start = time.perf_counter()
    # As `convert_and_load_state_dict_in_model` does it, without the tensors.
    keys = sorted(keys, key=dot_natural_key)
    renamed = {
        rename_source_key(key, renamings, converters, model.base_model_prefix, wanted)[0]
        for key in keys
    }
    return time.perf_counter() - start, f"{len(keys):,} keys -> {len(renamed):,}"


def pack_regraft(source, out):
    import regraft

    start = time.perf_counter()
    done = regraft.convert(source, out, to="model")
    return time.perf_counter() - start, f"{done.bytes_written:,} bytes"


def pack_script(source, out):
    import torch
    from safetensors.torch import load_file, save_file

    start = time.perf_counter()
    state_dict = {}
    for file in sorted(source.glob("*.safetensors")):
        state_dict.update(load_file(file))
    layers = sum(key.endswith("block_sparse_moe.gate.weight") for key in state_dict)
    for layer in range(layers):
        old, new = f"model.layers.{layer}.block_sparse_moe", f"model.layers.{layer}.mlp"
        experts = range(MIXTRAL["num_local_experts"])

        def take(name, old=old, experts=experts):
            return torch.stack(
                [state_dict.pop(f"{old}.experts.{expert}.{name}.weight") for expert in experts]
            )

        state_dict[f"{new}.gate.weight"] = state_dict.pop(f"{old}.gate.weight")
        state_dict[f"{new}.experts.gate_up_proj"] = torch.cat((take("w1"), take("w3")), 1)
        state_dict[f"{new}.experts.down_proj"] = take("w2")
    out.mkdir()
    save_file(state_dict, out / "model.safetensors", metadata={"format": "pt"})
    return time.perf_counter() - start, "one file"


def pack_transformers(source, out):
    import torch
    import transformers

    start = time.perf_counter()
    model = transformers.MixtralForCausalLM.from_pretrained(source, dtype=torch.bfloat16)
    model.save_pretrained(out, save_original_format=False)
    return time.perf_counter() - start, "load and save"


def make_mixtral(folder, layers):
    """A checkpoint in the layout that is published, of random numbers, a file for each four
    layers."""
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    width, inner = MIXTRAL["hidden_size"], MIXTRAL["intermediate_size"]
    kv = width // MIXTRAL["num_attention_heads"] * MIXTRAL["num_key_value_heads"]

    def random(*shape):
        return (
            torch.randint(-(2**15), 2**15, shape, dtype=torch.int16)
            .clamp_(-0x4000, 0x3FFF)
            .view(torch.bfloat16)
        )

    files, where = -(-layers // 4), {}
    for number in range(files):
        made = {}
        if number == 0:
            vocabulary = MIXTRAL["vocab_size"]
            made = {
                "model.embed_tokens.weight": random(vocabulary, width),
                "lm_head.weight": random(vocabulary, width),
            }
            made["model.norm.weight"] = random(width)
        for layer in range(4 * number, min(4 * number + 4, layers)):
            name = f"model.layers.{layer}"
            for norm in ("input_layernorm", "post_attention_layernorm"):
                made[f"{name}.{norm}.weight"] = random(width)
            for projection, rows, columns in (
                ("q", width, width),
                ("k", kv, width),
                ("v", kv, width),
                ("o", width, width),
            ):
                made[f"{name}.self_attn.{projection}_proj.weight"] = random(rows, columns)
            made[f"{name}.block_sparse_moe.gate.weight"] = random(
                MIXTRAL["num_local_experts"], width
            )
            for expert in range(MIXTRAL["num_local_experts"]):
                for which, rows, columns in (
                    ("w1", inner, width),
                    ("w2", width, inner),
                    ("w3", inner, width),
                ):
                    made[f"{name}.block_sparse_moe.experts.{expert}.{which}.weight"] = random(
                        rows, columns
                    )
        file = f"model-{number + 1:05}-of-{files:05}.safetensors"
        save_file(made, folder / file, metadata={"format": "pt"})
        where.update(dict.fromkeys(made, file))
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": size}, "weight_map": where})
    )
    config = dict(
        MIXTRAL,
        num_hidden_layers=layers,
        model_type="mixtral",
        architectures=["MixtralForCausalLM"],
        dtype="bfloat16",
    )
    (folder / "config.json").write_text(json.dumps(config))
    return size


def make(folder, layers):
    make_mixtral(folder, int(layers))
    return 0.0, "made"


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


IMPORTS = {
    "regraft": ["regraft", "torch"],
    "transformers": ["torch", "transformers"],
    "script": ["torch", "safetensors.torch"],
}


def child(name, arguments):
    import importlib

    # Imports are nobody's work.
    for module in (
        IMPORTS.get(name.rpartition("_")[2], []) if name != "pack_regraft" else ["regraft"]
    ):
        importlib.import_module(module)
    if name == "plan_transformers" or name == "pack_transformers":
        import transformers

        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
    before = peak()
    seconds, what = globals()[name](*arguments)
    print(json.dumps({"seconds": seconds, "what": what, "peak": peak(), "added": peak() - before}))


def measure(name, *arguments):
    command = [sys.executable, str(Path(__file__).resolve()), "--child", name, *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=dict(os.environ, HF_HUB_OFFLINE="1")
    )
    if done.returncode != 0:
        raise SystemExit(f"{name} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def read_once(folder):
    for file in Path(folder).glob("*.safetensors"):
        with open(file, "rb") as opened:
            while opened.read(1 << 24):
                pass


def same(left, right):
    """Whether two checkpoints hold the same bytes under the same keys."""
    import regraft
    import torch

    left, right = regraft.open(left), regraft.open(right)
    return set(left) == set(right) and all(
        left.shapes[key] == right.shapes[key]
        and torch.equal(left[key].view(torch.int16), right[key].view(torch.int16))
        for key in left
    )


def row(task, by, measured):
    mib = 1 << 20
    line = (
        f"{task:<32} {by:<24} {measured['seconds']:>9.3f} s {measured['peak'] / mib:>9,.0f} "
        f"{measured['added'] / mib:>9,.0f}"
    )
    print(f"{line}   {measured['what']}", flush=True)


def main():
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument(
        "--work",
        type=Path,
        help="where the checkpoints are made, 13 GB in all; a temporary directory by default",
    )
    options.add_argument(
        "--layers", type=int, default=18, help="of the Mixtral-like checkpoint; 18 are about 3 GiB"
    )
    options.add_argument("--child", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.child:
        name, *arguments = given.child
        if name.startswith("plan"):
            return child(name, [arguments[0] == "fp8"])
        return child(
            name,
            [
                Path(arguments[0]),
                *(Path(argument) if name != "make" else argument for argument in arguments[1:]),
            ],
        )

    import regraft

    print(f"regraft {regraft.__version__}, {os.cpu_count()} processors\n")
    print(f"{'task':<32} {'by':<24} {'time':>11} {'peak MiB':>9} {'added':>9}")
    for kind, count in (("bf16", "45,395"), ("fp8", "90,427")):
        row(f"plan {count} keys", "regraft", measure("plan_regraft", kind))
        row("", "transformers' renaming", measure("plan_transformers", kind))
    with tempfile.TemporaryDirectory(dir=given.work) as work:
        source = Path(work) / "hub"
        source.mkdir()
        measure("make", source, given.layers)
        size = sum(file.stat().st_size for file in source.glob("*.safetensors"))
        task = f"pack experts, {size / 2**30:.2f} GiB"
        made = []
        for name, by in (
            ("pack_regraft", "regraft"),
            ("pack_script", "torch + safetensors"),
            ("pack_transformers", "transformers load + save"),
        ):
            read_once(source)
            out = Path(work) / name
            made.append((by, measure(name, source, out), out))
        for _, _, out in made[1:]:
            if not same(made[0][2], out):
                raise SystemExit(f"{out.name} packed something else")
            shutil.rmtree(out)
        for at, (by, measured, _) in enumerate(made):
            row(task if at == 0 else "", by, measured)
        print("\nthe three packed checkpoints hold the same bytes")


if __name__ == "__main__":
    main()

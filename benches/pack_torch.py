"""Packs the experts of a Mixtral-like checkpoint as scripts do: every shard is loaded, experts are
stacked and joined, each layer is saved.

usage: pack_torch.py DIRECTORY MIB. A checkpoint of about so many MiB is made in
DIRECTORY/torch-source if it isn't there.
"""

import pathlib
import sys

import torch
from safetensors.torch import load_file, save_file

place, mib = pathlib.Path(sys.argv[1]), int(sys.argv[2])
source, out = place / "torch-source", place / "torch-out"
out.mkdir(exist_ok=True)
if not source.exists():
    source.mkdir()
    inner = max(8, (mib << 20) // 4 // (8 * 3 * 2048 * 2) // 8 * 8)
    for layer in range(4):
        tensors = {}
        for expert in range(8):
            prefix = f"model.layers.{layer}.block_sparse_moe.experts.{expert}"
            tensors[f"{prefix}.w1.weight"] = torch.randn(inner, 2048).bfloat16()
            tensors[f"{prefix}.w2.weight"] = torch.randn(2048, inner).bfloat16()
            tensors[f"{prefix}.w3.weight"] = torch.randn(inner, 2048).bfloat16()
        save_file(
            tensors,
            source / f"model-{layer + 1:05}-of-00004.safetensors",
            metadata={"format": "pt"},
        )

for shard in sorted(source.glob("*.safetensors")):
    tensors = load_file(shard)
    prefix = next(iter(tensors)).split(".experts.")[0]
    each = {
        name: torch.stack(
            [tensors[f"{prefix}.experts.{expert}.{name}.weight"] for expert in range(8)]
        )
        for name in ("w1", "w2", "w3")
    }
    packed = {
        prefix.replace("block_sparse_moe", "mlp") + ".experts.gate_up_proj": torch.cat(
            [each["w1"], each["w3"]], dim=1
        ),
        prefix.replace("block_sparse_moe", "mlp") + ".experts.down_proj": each["w2"],
    }
    save_file(packed, out / shard.name, metadata={"format": "pt"})

"""A converter for a pipeline stage, with regraft inside: it loads just the tensors that the stage
has, under the names that it has.

Run as `python pipeline_stage.py CHECKPOINT FIRST LAST`; without arguments it makes a small Mixtral
checkpoint and loads each of two stages.
"""

import json
import sys
import tempfile
from pathlib import Path

import regraft
import torch


def stage_keys(config, first, last):
    """The keys of the stage with layers `first..last`, and of what comes before and after them."""
    keys = []
    for layer in range(first, last):
        prefix = f"model.layers.{layer}"
        keys += [f"{prefix}.input_layernorm.weight", f"{prefix}.mlp.gate.weight"]
        keys += [f"{prefix}.mlp.experts.gate_up_proj", f"{prefix}.mlp.experts.down_proj"]
    if first == 0:
        keys.append("model.embed_tokens.weight")
    if last == config["num_hidden_layers"]:
        keys.append("lm_head.weight")
    return keys


def load_stage(checkpoint, first, last):
    """The state dict of a stage. Of the checkpoint, only this stage's bytes are read.

    Experts are packed by the rules that config.json asks for. The last stage of a tied model gets
    its head from the embedding, which it doesn't have.
    """
    opened = regraft.open(checkpoint)
    config = json.loads((Path(checkpoint) / "config.json").read_text())
    # A part: what the other stages have is left out. A key that this one lacks is an error that
    # names it.
    return opened.apply(to="model", target=stage_keys(config, first, last), part=True)


def make_checkpoint(folder, layers=4, experts=2, width=8, tied=True):
    """A small checkpoint in the layout that is published."""
    from safetensors.torch import save_file

    tensors = {"model.embed_tokens.weight": torch.randn(16, width)}
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        tensors[f"{prefix}.input_layernorm.weight"] = torch.ones(width)
        tensors[f"{prefix}.block_sparse_moe.gate.weight"] = torch.randn(experts, width)
        for expert in range(experts):
            for name in ("w1", "w2", "w3"):
                tensors[f"{prefix}.block_sparse_moe.experts.{expert}.{name}.weight"] = torch.randn(
                    width, width
                )
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {"model_type": "mixtral", "num_hidden_layers": layers, "tie_word_embeddings": tied}
    (folder / "config.json").write_text(json.dumps(config))


def show(stage):
    for key, tensor in stage.items():
        print(f"  {key}  {tuple(tensor.shape)}")


def main():
    if len(sys.argv) == 4:
        show(load_stage(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
        return
    with tempfile.TemporaryDirectory() as folder:
        make_checkpoint(Path(folder))
        for first, last in ((0, 2), (2, 4)):
            print(f"stage with layers {first}..{last}")
            show(load_stage(folder, first, last))


if __name__ == "__main__":
    main()

"""The README's blocks run, in order; the examples run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("safetensors", reason="safetensors is not installed")

HERE = Path(__file__).resolve().parent.parent


def run(arguments, folder):
    environment = dict(os.environ, HF_HUB_OFFLINE="1")
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=folder, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_readme(tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```", (HERE / "README.md").read_text(), re.S | re.M)
    assert len(blocks) >= 7
    (tmp_path / "tour.py").write_text("\n".join(blocks))
    out = run(["tour.py"], tmp_path)
    assert "RG201" in out and "becomes blocks.0.qkv.weight" in out


def test_the_example_of_a_pipeline_stage(tmp_path):
    out = run([str(HERE / "examples" / "pipeline_stage.py")], tmp_path)
    first, last = out.split("stage with layers 2..4")
    assert "model.embed_tokens.weight" in first and "lm_head" not in first
    assert "lm_head.weight" in last and "embed_tokens" not in last
    assert "model.layers.3.mlp.experts.gate_up_proj  (2, 16, 8)" in last


def test_the_example_that_replaces_transformers(tmp_path):
    pytest.importorskip("transformers", "5.0", reason="transformers 5 is not installed")
    out = run([str(HERE / "examples" / "replace_transformers_mixtral.py")], tmp_path)
    assert "the same as from_pretrained gives" in out and "the same as save_pretrained wrote" in out


def test_every_public_name_has_a_docstring():
    import regraft
    import regraft.checkpoint_utils
    import regraft.torch
    import regraft.torch.distributed

    modules = (regraft, regraft.checkpoint_utils, regraft.torch, regraft.torch.distributed)
    for module in modules:
        for name in module.__all__:
            value = getattr(module, name)
            assert isinstance(value, str) or (value.__doc__ or "").strip(), (
                f"{module.__name__}.{name}"
            )


def test_the_stubs_name_what_the_extension_has():
    import regraft._regraft as extension

    stub = (HERE / "regraft" / "_regraft.pyi").read_text()
    named = set(re.findall(r"^(?:def |class |(?=[A-Z_]+:))(\w+)", stub, re.M))
    assert named == {name for name in dir(extension) if not name.startswith("_")}
    for class_name, body in re.findall(r"^class (\w+):\n((?:    .*\n|\n)+)", stub, re.M):
        methods = {
            name for name in re.findall(r"^    def (\w+)", body, re.M) if not name.startswith("__")
        }
        assert methods == {
            name for name in dir(getattr(extension, class_name)) if not name.startswith("_")
        }, class_name

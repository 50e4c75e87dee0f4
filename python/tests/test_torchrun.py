"""Training under torchrun that is started again after a rank died, with other numbers of ranks.

torchrun's own restarts aren't used: with gloo on CPU they hang in one of a few runs, without any
checkpoint too (torch 2.15)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", "5.0", reason="transformers 5 is not installed")

from test_dcp_writer import assert_equal, tensors_of  # noqa: E402
from test_transformers import mixtral  # noqa: E402

SCRIPT = Path(__file__).parent / "torchrun_training.py"


def torchrun(size, hub, out, *arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={size}", SCRIPT, hub, out, *arguments]
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=200,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def test_training_goes_on_after_a_rank_died_with_other_numbers_of_ranks(gloo, hub, tmp_path):
    path, _ = hub(mixtral)
    assert torchrun(2, path, tmp_path, "2", "die").returncode != 0
    assert [name for name in os.listdir(tmp_path) if not name.startswith(".")] == ["step-1"]
    for size, done in [(3, 1), (1, 2)]:
        ran = torchrun(size, path, tmp_path, str(done + 1))
        assert ran.returncode == 0, ran.stderr
        for rank in range(size):
            assert f"rank {rank} of {size} began after step {done}" in ran.stdout
    assert sorted(os.listdir(tmp_path)) == ["step-1", "step-2", "step-3"]
    first = tensors_of(path)
    for step in (1, 2, 3):
        expected = {key: tensor * 2**step for key, tensor in first.items()}
        assert_equal(tensors_of(tmp_path / f"step-{step}"), expected)

"""What the benchmark feeds on is what it says; and its smallest form runs."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", "5.0", reason="transformers 5 is not installed")

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "compare.py"


def test_the_keys_are_those_of_deepseek_v3():
    spec = importlib.util.spec_from_file_location("compare", SCRIPT)
    compare = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(compare)
    # Counted in the published index of each form, without the layer for multi-token prediction.
    assert len(compare.deepseek_keys(False)) == 45_395
    assert len(compare.deepseek_keys(True)) == 90_427


def test_packing_in_every_way_gives_the_same(tmp_path):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--layers", "1", "--work", str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "the three packed checkpoints hold the same bytes" in done.stdout
    assert len(done.stdout.splitlines()) >= 10

"""The package as a whole: what is loaded when, and what it leaves as it was."""

import gc
import subprocess
import sys

import pytest
import regraft
from regraft._many import many

np = pytest.importorskip("numpy", reason="numpy is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")

ALONE = """
import sys
import regraft
assert [name for name in sys.modules if name.startswith("regraft")] == ["regraft"]
assert set(regraft.__all__) <= set(dir(regraft))
regraft.load
assert "regraft._rules" in sys.modules and "torch" not in sys.modules
from regraft import *
missing = [name for name in regraft.__all__ if name not in globals()]
assert not missing, missing
"""


def test_a_part_is_loaded_when_a_name_of_it_is_asked_for():
    subprocess.run([sys.executable, "-c", ALONE], check=True)


def test_every_public_name_is_that_of_its_part():
    assert set(regraft._PART_OF) == set(regraft.__all__)
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        getattr(regraft, "lode")  # noqa: B009


def test_garbage_is_collected_again_whatever_happens():
    assert gc.isenabled()
    with pytest.raises(KeyError), many():
        assert not gc.isenabled()
        raise KeyError
    assert gc.isenabled()
    gc.disable()
    try:
        with many():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize("make", [torch.tensor, np.array])
@pytest.mark.parametrize("dim", [0, 1, 2])
def test_stacks_along_every_dimension(make, dim):
    rank = max(dim, 1)
    values = np.arange(3 * 2**rank, dtype=np.float32).reshape(3, *[2] * rank)
    rules = f'map "w.{{e}}" <-> "w" via stack(e, {dim})'
    made = regraft.compile(rules).apply({f"w.{at}": make(values[at]) for at in range(3)})
    assert np.array_equal(np.asarray(made["w"]), np.stack(values, dim))


@pytest.mark.parametrize("make", [torch.tensor, np.array])
def test_stacks_tensors_without_dimensions(make):
    given = {f"w.{at}": make(float(at)) for at in range(3)}
    made = regraft.compile('map "w.{e}" <-> "w" via stack(e)').apply(given)
    assert made["w"].tolist() == [0.0, 1.0, 2.0]

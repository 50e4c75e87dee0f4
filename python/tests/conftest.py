import pytest


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="torch is not installed")


@pytest.fixture
def numpy():
    return pytest.importorskip("numpy", reason="numpy is not installed")

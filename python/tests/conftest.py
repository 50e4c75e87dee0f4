import pytest


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="torch is not installed")


@pytest.fixture
def numpy():
    return pytest.importorskip("numpy", reason="numpy is not installed")


@pytest.fixture(scope="session")
def ranks():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("this torch has no gloo")
    from ranks import Ranks

    ranks = Ranks(4)
    yield ranks
    ranks.close()

import pytest


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="torch is not installed")


@pytest.fixture
def numpy():
    return pytest.importorskip("numpy", reason="numpy is not installed")


@pytest.fixture(scope="session")
def gloo():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("this torch has no gloo")


@pytest.fixture(scope="session")
def ranks(gloo):
    from ranks import Ranks

    ranks = Ranks(4)
    yield ranks
    ranks.close()


@pytest.fixture(scope="session")
def hub(tmp_path_factory):
    """Checkpoints in the hub's layout, by the function that makes the model, and where the model's
    own state dict is."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    made = {}

    def get(make):
        if make not in made:
            path = tmp_path_factory.mktemp(make.__name__)
            torch.manual_seed(3)
            model = make()
            model.save_pretrained(path)
            expected = {key: value.clone() for key, value in model.state_dict().items()}
            beside = tmp_path_factory.mktemp("expected") / "state.pt"
            torch.save(expected, beside)
            made[make] = str(path), str(beside)
        return made[make]

    return get

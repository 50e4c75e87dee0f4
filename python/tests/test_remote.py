"""Checkpoints that are elsewhere: on a hub, and in private buckets of an object store."""

import json
import pickle
import re
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import regraft
from safetensors.numpy import save_file
from served import Handler, serving

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def tensors():
    random = np.random.default_rng(0)
    keys = [f"model.layers.{layer}.{name}.weight" for layer in range(3) for name in "qkv"]
    # So large that the first bytes of a file, read for its header, hold none of them whole.
    return {key: random.standard_normal((256, 32)).astype(np.float32) for key in keys}


@pytest.fixture
def folder(tmp_path):
    """A checkpoint in three files, with a config."""
    folder = tmp_path / "hub" / "org" / "m"
    folder.mkdir(parents=True)
    rows = list(tensors().items())
    for part in range(3):
        name = f"model-{part + 1:05}-of-00003.safetensors"
        save_file(dict(rows[part * 3 : part * 3 + 3]), folder / name, {"format": "pt"})
    (folder / "config.json").write_text('{"model_type": "x", "num_hidden_layers": 3}')
    return folder


@pytest.fixture
def hub(folder, monkeypatch, tmp_path):
    """A hub that serves it; its list of requests."""
    seen = []
    wait = threading.Event()

    class Hub(Handler):
        def do_GET(self):
            seen.append(self.path)
            if re.fullmatch(r"/api/models/org/m/revision/\w+", self.path):
                files = [{"rfilename": path.name} for path in folder.iterdir()]
                return self.say(200, json.dumps({"sha": COMMIT, "siblings": files}).encode())
            name = self.path.split("/")[-1]
            content = (folder / name).read_bytes()
            first, last = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"]).groups()
            first, last = int(first), min(int(last), len(content) - 1)
            if wait.is_set() and first > 0:
                time.sleep(30)
            where = {"Content-Range": f"bytes {first}-{last}/{len(content)}", "ETag": f'"{name}"'}
            return self.say(206, content[first : last + 1], where)

    here(monkeypatch, tmp_path)
    with serving(Hub) as endpoint:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        yield seen, wait


def here(monkeypatch, tmp_path):
    """An environment without what belongs to whoever runs the tests."""
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN", "HF_HUB_CACHE", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("REGRAFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def same(opened):
    expected = tensors()
    assert set(opened) == set(expected)
    for key, value in expected.items():
        assert np.array_equal(np.asarray(opened[key]), value), key


def test_tensors_of_a_hub_are_read_when_they_are_asked_for(hub):
    opened = regraft.open("hf://org/m", framework="numpy")
    assert opened.directory == f"hf://org/m@{COMMIT}"
    requests = len(hub[0])
    same(opened)
    assert len(hub[0]) == requests + len(opened), "a request for each tensor"
    again = pickle.loads(pickle.dumps(opened))
    assert again.paths == opened.paths
    same(again)


def weights(hub):
    """How many requests for weights there were."""
    return sum(path.endswith(".safetensors") for path in hub[0])


def test_what_a_plan_needs_comes_by_few_requests(hub):
    rules = regraft.compile('rename "**.q.weight" <-> "**.query.weight"')
    opened = regraft.open("hf://org/m", framework="numpy")
    asked = weights(hub)
    made = opened.apply(rules=rules)
    assert weights(hub) - asked == 3, "one for each file, as a conversion into files asks"
    expected = {key.replace(".q.", ".query."): value for key, value in tensors().items()}
    assert set(made) == set(expected)
    for key, value in expected.items():
        assert np.array_equal(made[key], value), key
    # What is held already isn't fetched again.
    asked = len(hub[0])
    assert np.shares_memory(opened["model.layers.1.k.weight"], made["model.layers.1.k.weight"])
    assert len(hub[0]) == asked


def test_no_more_is_read_ahead_than_is_held(hub, monkeypatch):
    one = 256 * 32 * 4
    monkeypatch.setattr("regraft._files._AHEAD", 4 * one)
    rules = regraft.compile('drop "**.v.weight"')
    opened = regraft.open("hf://org/m", framework="numpy")
    asked = weights(hub)
    made = opened.apply(rules=rules)
    assert set(made) == {key for key in tensors() if ".v." not in key}
    for key, value in made.items():
        assert np.array_equal(value, tensors()[key]), key
    # Four tensors of two files, then two of the third.
    assert weights(hub) - asked == 3


def test_a_hub_is_converted_and_planned_as_a_disk_is(hub, folder, tmp_path):
    rules = regraft.compile('rename "**.q.weight" <-> "**.query.weight"')
    far = regraft.convert("hf://org/m", tmp_path / "far", rules=rules)
    near = regraft.convert(folder, tmp_path / "near", rules=rules)
    assert far.files == near.files and far.bytes_read == near.bytes_read
    for path in (tmp_path / "near").iterdir():
        assert path.read_bytes() == (tmp_path / "far" / path.name).read_bytes(), path.name
    # A target of an address: its own keys, and not those after the rules.
    regraft.plan("hf://org/m", target="hf://org/m")
    with pytest.raises(regraft.PlanError):
        regraft.plan("hf://org/m", rules=rules, target="hf://org/m")


def test_what_is_wrong_is_said_by_kind(hub):
    with pytest.raises(regraft.CheckpointError) as caught:
        regraft.open("hf://org/m/nothing.safetensors")
    assert caught.value.kind == "not_found"
    assert caught.value.file == f"hf://org/m@{COMMIT}/nothing.safetensors"


def test_a_signal_ends_a_wait_for_a_server(hub):
    opened = regraft.open("hf://org/m", framework="numpy")
    hub[1].set()
    rules = regraft.compile('rename "**.q.weight" <-> "**.query.weight"')
    for read in (lambda: opened["model.layers.2.v.weight"], lambda: opened.apply(rules=rules)):
        began = time.monotonic()
        timer = threading.Timer(0.3, signal.raise_signal, [signal.SIGINT])
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            read()
        assert time.monotonic() - began < 5
    hub[1].clear()
    same(opened)


@pytest.fixture(scope="module")
def store():
    """An object store with a private bucket."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def test_a_private_bucket_is_read_with_keys_and_profiles(store, folder, monkeypatch, tmp_path):
    boto3 = pytest.importorskip("boto3")
    keys = {"aws_access_key_id": "AKID", "aws_secret_access_key": "sEcReT"}
    client = boto3.client("s3", endpoint_url=store, region_name="us-east-1", **keys)
    client.create_bucket(Bucket="models")
    for path in folder.iterdir():
        client.upload_file(str(path), "models", f"a b/m/{path.name}")
    here(monkeypatch, tmp_path)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", store)
    with pytest.raises(regraft.CheckpointError) as caught:
        regraft.open("s3://models/a b/m/model-00001-of-00003.safetensors")
    assert caught.value.kind == "denied" and "AWS_ACCESS_KEY_ID" in str(caught.value)
    (tmp_path / "credentials").write_text(
        "[other]\naws_access_key_id = AKID\naws_secret_access_key = sEcReT\n"
    )
    monkeypatch.setenv("AWS_PROFILE", "other")
    same(regraft.open("s3://models/a b/m", framework="numpy"))
    monkeypatch.delenv("AWS_PROFILE")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "sEcReT")
    regraft.convert("s3://models/a b/m", tmp_path / "far")
    regraft.convert(folder, tmp_path / "near")
    for path in (tmp_path / "near").iterdir():
        assert path.read_bytes() == (tmp_path / "far" / path.name).read_bytes(), path.name
    for kept in Path(tmp_path / "cache").rglob("*"):
        assert kept.is_dir() or b"sEcReT" not in kept.read_bytes()
    for source in ("s3://nothing/m", "s3://models/nothing", "s3://models/a b/m/no.safetensors"):
        with pytest.raises(regraft.CheckpointError) as caught:
            regraft.open(source)
        assert caught.value.kind == "not_found", source

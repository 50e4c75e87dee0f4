"""Google Cloud Storage and Azure Blob Storage: servers that check by Python's means who asks."""

import base64
import contextlib
import hashlib
import hmac
import json
import urllib.parse

import numpy as np
import pytest
import regraft
from safetensors.numpy import save_file
from served import Handler, serving

FILES = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


@pytest.fixture
def content():
    """The objects of a bucket, and the tensors that they hold."""
    random = np.random.default_rng(0)
    tensors = {f"layers.{at}.w": random.standard_normal((32, 16)).astype("f4") for at in range(4)}
    rows = list(tensors.items())
    return tensors, {FILES[at]: dict(rows[at * 2 : at * 2 + 2]) for at in range(2)}


@pytest.fixture
def serve(content, tmp_path, monkeypatch):
    """A server of these objects in the folder `a b` of the bucket `box`; it answers whom `may`
    lets in. Gives its endpoint, and what was refused."""
    tensors, files = content
    objects = {}
    for name, part in files.items():
        save_file(part, tmp_path / name, {"format": "pt"})
        objects[f"a b/{name}"] = (tmp_path / name).read_bytes()
    monkeypatch.setenv("REGRAFT_CACHE", "")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def start(may, listing, post=None):
        refused = []

        class Store(Handler):
            def do_POST(self):
                text = self.rfile.read(int(self.headers["Content-Length"])).decode()
                self.say(200, json.dumps(post(dict(urllib.parse.parse_qsl(text)))).encode())

            def do_GET(self):
                path, _, query = self.path.partition("?")
                query = dict(urllib.parse.parse_qsl(query))
                if not may(self.headers, path, query):
                    refused.append(self.path)
                    return self.say(403, b"")
                key = urllib.parse.unquote(path).split("/box/")[-1] if "/box/" in path else ""
                if not key:
                    found = [name for name in objects if name.startswith(query["prefix"])]
                    return self.say(200, listing(found, query).encode())
                if key not in objects:
                    return self.say(404, b"")
                first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
                body, size = objects[key][first : last + 1], len(objects[key])
                where = f"bytes {first}-{first + len(body) - 1}/{size}"
                return self.say(206, body, {"Content-Range": where, "ETag": '"x"'})

        return servers.enter_context(serving(Store)), refused

    with contextlib.ExitStack() as servers:
        yield start


def same(opened, tensors):
    assert set(opened) == set(tensors)
    for key, value in tensors.items():
        assert np.array_equal(np.asarray(opened[key]), value), key


def of_base64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def test_a_service_account_gets_a_token_of_google(serve, content, monkeypatch, tmp_path):
    asymmetric = pytest.importorskip("cryptography.hazmat.primitives.asymmetric")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    assert asymmetric
    key = rsa.generate_private_key(65537, 2048)
    asked = []

    def post(form):
        head, claims, signature = form["assertion"].split(".")
        text = f"{head}.{claims}".encode()
        key.public_key().verify(of_base64(signature), text, padding.PKCS1v15(), hashes.SHA256())
        claims = json.loads(of_base64(claims))
        assert claims["iss"] == "me@x" and claims["exp"] - claims["iat"] == 3600
        asked.append(form["grant_type"])
        return {"access_token": "tOkEn", "expires_in": 3600}

    def may(headers, path, query):
        return headers["Authorization"] == "Bearer tOkEn"

    def listing(names, query):
        assert query["list-type"] == "2" and query["delimiter"] == "/"
        return "".join(f"<Contents><Key>{name}</Key></Contents>" for name in names)

    endpoint, refused = serve(may, listing, post)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
    account = {
        "type": "service_account",
        "client_email": "me@x",
        "private_key": private,
        "token_uri": f"{endpoint}/token",
    }
    (tmp_path / "account.json").write_text(json.dumps(account))
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", endpoint)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "account.json"))
    same(regraft.open("gs://box/a b", framework="numpy"), content[0])
    assert not refused and len(asked) == 1, "a token is good for an hour"
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "nothing.json"))
    with pytest.raises(regraft.CheckpointError, match="credentials"):
        regraft.open("gs://box/a b")


def test_a_key_of_an_azure_account_signs_each_request(serve, content, monkeypatch):
    secret = b"sEcReT"

    def may(headers, path, query):
        own = sorted(name.lower() for name in headers if name.lower().startswith("x-ms-"))
        own = "".join(f"{name}:{headers[name]}\n" for name in own)
        fields = "".join(f"\n{name}:{query[name]}" for name in sorted(query))
        range_ = headers.get("Range", "")
        text = f"GET\n\n\n\n\n\n\n\n\n\n\n{range_}\n{own}/acc{path}{fields}"
        signature = hmac.new(secret, text.encode(), hashlib.sha256).digest()
        return headers["Authorization"] == f"SharedKey acc:{base64.b64encode(signature).decode()}"

    def listing(names, query):
        assert query["comp"] == "list" and query["restype"] == "container"
        at = int(query.get("marker", 0))
        names = names[at : at + 1]
        more = f"<NextMarker>{at + 1}</NextMarker>" if at == 0 and names else "<NextMarker/>"
        return "".join(f"<Blob><Name>{name}</Name></Blob>" for name in names) + more

    endpoint, refused = serve(may, listing)
    monkeypatch.setenv("AZURE_STORAGE_BLOB_ENDPOINT", endpoint)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "acc")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", base64.b64encode(secret).decode())
    same(regraft.open("az://box/a b", framework="numpy"), content[0])
    assert not refused
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", base64.b64encode(b"other").decode())
    with pytest.raises(regraft.CheckpointError) as caught:
        regraft.open("az://box/a b")
    assert caught.value.kind == "denied" and "AZURE_STORAGE_ACCOUNT_KEY" in str(caught.value)

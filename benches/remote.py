#!/usr/bin/env python3
"""The marks that checkpoints of a hub have to reach, from one run on one machine, against a hub of
its own. Needs a release build and Python 3.9; works in $DIR (default: that for temporary files),
which should have three times MIB free.

  plan   a checkpoint of DeepSeek-V3's size (163 sparse files, 90,427 keys): bytes against those of
         its headers, and time over a server that adds 50 ms to each answer
  stage  bytes of an `apply` of one pipeline stage against those of the stage
  apply  time of an `apply` in 64 MiB against the same from the disk, with and without waiting for
         the disk (--no-sync); before it, how fast a plain client gets the same files into memory by
         1, 2 and 4 connections, which is the server's ceiling, and into files that are synced

usage: benches/remote.py [MIB] [RUNS] [--server COMMAND]

--server  another hub for `apply`: a command that takes the folder with the repositories and prints
          where it listens; each is asked in one run
"""

import argparse
import json
import os
import re
import shlex
import shutil
import socketserver
import statistics
import struct
import subprocess
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SIZES = {"F8_E4M3": 1, "BF16": 2, "F32": 4}


class Hub(socketserver.ThreadingMixIn, HTTPServer):
    """Serves the folders of a folder as repositories `org/NAME`; counts bytes of weights."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, root):
        super().__init__(("127.0.0.1", 0), Handler)
        self.root, self.delay, self.sent, self.asked = root, 0.0, 0, 0
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def count(self, sent):
        with self.lock:
            self.sent, self.asked = self.sent + sent, self.asked + 1

    def measure(self, command):
        """Runs a command; gives its seconds, bytes and requests."""
        self.sent = self.asked = 0
        seconds = timed(command, f"http://127.0.0.1:{self.server_address[1]}")
        return seconds, self.sent, self.asked


def timed(command, endpoint):
    """Runs a command that asks a hub; gives its seconds."""
    away = {
        name for name in os.environ if name.startswith("HF_") or name.lower().endswith("_proxy")
    }
    environment = {name: value for name, value in os.environ.items() if name not in away}
    environment |= {"HF_ENDPOINT": endpoint, "REGRAFT_CACHE": ""}
    began = time.monotonic()
    subprocess.run(
        command,
        check=True,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return time.monotonic() - began


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # One write for head and body, as servers do that aren't for tests.
    wbufsize = 1 << 20

    def log_message(self, *_):
        pass

    def do_GET(self):
        time.sleep(self.server.delay)
        path = self.path.split("?")[0]
        listing = re.fullmatch(r"/api/models/org/([^/]+)/revision/[^/]+", path)
        if listing:
            files = [{"rfilename": name} for name in os.listdir(self.server.root / listing[1])]
            return self.say(200, {}, json.dumps({"sha": COMMIT, "siblings": files}).encode())
        where, repository, name = re.fullmatch(
            r"/(storage/)?org/([^/]+)/(?:resolve/[^/]+/)?([^/]+)", path
        ).groups()
        if not where and name.endswith(".safetensors"):
            return self.say(302, {"Location": f"/storage/org/{repository}/{name}?signature=x"}, b"")
        with open(self.server.root / repository / name, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            first, last = map(
                int, re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"]).groups()
            )
            last = min(last, size - 1)
            self.send_response(206)
            self.send_header("ETag", f'"{name}"')
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
            self.send_header("Content-Length", str(last - first + 1))
            self.end_headers()
            self.wfile.flush()
            at = first
            while at <= last:
                at += os.sendfile(self.connection.fileno(), file.fileno(), at, last + 1 - at)
            self.server.count(last - first + 1)

    def say(self, status, headers, body):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.server.count(len(body))


def deepseek_v3():
    """Keys, dtypes and shapes, in order."""

    def matrix(key, rows, columns):
        yield f"{key}.weight", "F8_E4M3", [rows, columns]
        yield f"{key}.weight_scale_inv", "F32", [-(-rows // 128), -(-columns // 128)]

    yield "model.embed_tokens.weight", "BF16", [129280, 7168]
    for layer in range(61):
        at = f"model.layers.{layer}"
        for norm, size in (
            ("input_layernorm", 7168),
            ("post_attention_layernorm", 7168),
            ("self_attn.q_a_layernorm", 1536),
            ("self_attn.kv_a_layernorm", 512),
        ):
            yield f"{at}.{norm}.weight", "BF16", [size]
        for name, rows, columns in (
            ("q_a_proj", 1536, 7168),
            ("q_b_proj", 24576, 1536),
            ("kv_a_proj_with_mqa", 576, 7168),
            ("kv_b_proj", 32768, 512),
            ("o_proj", 7168, 16384),
        ):
            yield from matrix(f"{at}.self_attn.{name}", rows, columns)
        experts = ["shared_experts", *(f"experts.{expert}" for expert in range(256))]
        for expert in [None] if layer < 3 else experts:
            width = 18432 if expert is None else 2048
            below = f"{at}.mlp" if expert is None else f"{at}.mlp.{expert}"
            for name, rows, columns in (
                ("gate_proj", width, 7168),
                ("up_proj", width, 7168),
                ("down_proj", 7168, width),
            ):
                yield from matrix(f"{below}.{name}", rows, columns)
        if layer >= 3:
            yield f"{at}.mlp.gate.weight", "BF16", [256, 7168]
            yield f"{at}.mlp.gate.e_score_correction_bias", "F32", [256]
    yield "model.norm.weight", "BF16", [7168]
    yield "lm_head.weight", "BF16", [129280, 7168]


def save(folder, tensors, count, config, fill):
    """Writes tensors into so many files, sparse unless they are to be filled; gives the bytes of
    headers."""
    folder.mkdir()
    rows = list(tensors)
    per, headers, files = -(-len(rows) // count), 0, {}
    for number in range(count):
        name, header, end = f"model-{number + 1:05}-of-{count:05}.safetensors", {}, 0
        for key, dtype, shape in rows[number * per : (number + 1) * per]:
            size = SIZES[dtype]
            for length in shape:
                size *= length
            header[key] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
            end, files[key] = end + size, name
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        headers += 8 + len(text)
        with open(folder / name, "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            if fill:
                block = os.urandom(1 << 20)
                for at in range(0, end, 1 << 20):
                    file.write(block[: min(1 << 20, end - at)])
            else:
                file.truncate(8 + len(text) + end)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    (folder / "config.json").write_text(json.dumps(config))
    return headers


def main():
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("mib", type=int, nargs="?", default=1024)
    arguments.add_argument("runs", type=int, nargs="?", default=3)
    arguments.add_argument("--server")
    asked = arguments.parse_args()
    regraft = str(Path(__file__).resolve().parent.parent / "target/release/regraft")
    with tempfile.TemporaryDirectory(dir=os.environ.get("DIR")) as folder:
        run(regraft, Path(folder), asked.mib, asked.runs, asked.server)


def run(regraft, folder, mib, runs, server):
    root = folder / "hub/org"
    root.mkdir(parents=True)
    hub = Hub(root)
    config = {
        "architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "deepseek_v3",
        "num_hidden_layers": 61,
        "n_routed_experts": 256,
    }
    rows = list(deepseek_v3())
    headers = save(root / "v3", rows, 163, config, fill=False)
    hub.delay = 0.05
    plans = [
        hub.measure([regraft, "plan", "hf://org/v3", "--rules", "deepseek_v3"]) for _ in range(runs)
    ]
    seconds, sent, asked = sorted(plans)[runs // 2]
    print(
        f"plan   {len(rows)} keys: {sent / headers:.2f} of the headers' {headers} bytes, "
        f"{asked} requests, {seconds:.2f} s"
    )
    hub.delay = 0

    layers = 32
    square = max(64, int((mib * (1 << 20) / layers / 8 / 2) ** 0.5))
    names = [
        f"model.layers.{layer}.{name}.weight" for layer in range(layers) for name in "abcdefgh"
    ]
    small = [(f"model.layers.{layer}.norm.weight", "BF16", [square]) for layer in range(layers)]
    model = sorted([(name, "BF16", [square, square]) for name in names] + small)
    save(root / "m", model, 4, {"model_type": "x"}, fill=True)
    stage = [row for row in model if row[0].split(".")[2] in ("8", "9", "10", "11")]
    (folder / "stage.txt").write_text("\n".join(key for key, *_ in stage))
    needed = sum(2 * shape[0] * (shape[1] if len(shape) > 1 else 1) for _, _, shape in stage)
    out = str(folder / "out")
    plan = hub.measure([regraft, "plan", "hf://org/m"])[1]
    stage = ["--stage", "--target", str(folder / "stage.txt")]
    _, sent, _ = hub.measure([regraft, "apply", "hf://org/m", "-o", out, *stage])
    shutil.rmtree(out)
    print(f"stage  {(sent - plan) / needed:.3f} of the stage's {needed} bytes")

    own = f"http://127.0.0.1:{hub.server_address[1]}"
    compare(regraft, root, own, runs, "this server", mib)
    if server:
        with subprocess.Popen(
            [*shlex.split(server), str(root.parent)], stdout=subprocess.PIPE, text=True
        ) as other:
            try:
                compare(regraft, root, other.stdout.readline().strip(), runs, "that server", mib)
            finally:
                other.terminate()


def compare(regraft, root, endpoint, runs, name, mib):
    """Prints how fast a plain client is, and `apply` from a hub and from the disk, in turns."""
    out = str(root.parent.parent / "out")
    for where, to in (("memory", None), ("synced files", Path(out))):
        ceilings = []
        for count in (1, 2, 4):
            seconds = statistics.median(plain(root / "m", endpoint, count, to) for _ in range(runs))
            ceilings.append(f"{count}: {seconds:.2f} s")
        print(
            f"plain  {name}, {mib} MiB into {where} by so many connections: {', '.join(ceilings)}"
        )
    for waits, options in (("synced", []), ("not synced", ["--no-sync"])):
        times = {"hf://org/m": [], str(root / "m"): []}
        for _ in range(runs):
            for source, seconds in times.items():
                command = [regraft, "apply", source, "-o", out, "--memory", "64M", *options]
                os.sync()
                seconds.append(timed(command, endpoint))
                shutil.rmtree(out)
        far, near = map(statistics.median, times.values())
        print(
            f"apply  {name}, {mib} MiB, {waits}: {far:.2f} s from the hub, {near:.2f} s from the "
            f"disk: {near / far:.2f} of its speed"
        )


def plain(folder, endpoint, count, to):
    """Seconds in which so many connections bring the files of a repository into memory, or into
    files of a folder, synced."""
    files = sorted(folder.glob("*.safetensors"))
    step, lock = 32 << 20, threading.Lock()
    ranges = [(file, at) for file in files for at in range(0, file.stat().st_size, step)]
    left = iter(ranges)
    os.sync()
    began = time.monotonic()
    made = {}
    if to:
        to.mkdir()
        flags = os.O_CREAT | os.O_WRONLY
        made = {file: os.open(to / file.name, flags) for file in files}

    def bring():
        connection = HTTPConnection(endpoint.split("://")[1])
        buffer = bytearray(1 << 20)
        while True:
            with lock:
                file, at = next(left, (None, 0))
            if file is None:
                return
            path = f"/storage/org/m/{file.name}"
            last = min(at + step, file.stat().st_size) - 1
            connection.request("GET", path, headers={"Range": f"bytes={at}-{last}"})
            answer, came = connection.getresponse(), 0
            while part := answer.readinto(buffer):
                if to:
                    os.pwrite(made[file], memoryview(buffer)[:part], at + came)
                came += part
            assert came == last + 1 - at, path

    with ThreadPoolExecutor(count) as pool:
        for done in [pool.submit(bring) for _ in range(count)]:
            done.result()
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(os.fsync, made.values()))
    seconds = time.monotonic() - began
    for file in made.values():
        os.close(file)
    if to:
        shutil.rmtree(to)
    return seconds


main()

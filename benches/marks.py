"""The marks that regraft has to reach, each beside its peer, from one run on one machine.

    python3 benches/marks.py [--bin target/release/regraft] [--before OLD] [--python PYTHON]
                             [--python-before PYTHON] [--build] [--work DIRECTORY] [--mib 3072]
                             [--runs 5] [--only WORD]

Prints Markdown. What is compared runs in turn within each round, so that what else the machine does
falls on all alike; figures are medians. `--before` is another binary, measured in the same rounds.
PYTHON is an interpreter that has regraft and torch; without one, nothing is measured in Python.
`--build` builds a clone from nothing. Needs Linux, and 20 GiB of disk; as root, the page cache is
dropped for the cold runs.
"""

import argparse
import datetime
import json
import os
import platform
import random
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from scale import RENAME, checkpoint, manifest, once, write_shards

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "python" / "benchmarks"

MIXTRAL = 'rename "model.**" <-> "renamed.**"\n'
PACK = """rename "**.block_sparse_moe.**" <-> "**.mlp.**"
map "**.experts.{e}.w1.weight", "**.experts.{e}.w3.weight" <-> "**.experts.gate_up_proj"
    via stack(e) | concat(1)
map "**.experts.{e}.w2.weight" <-> "**.experts.down_proj" via stack(e)
"""
TURN = 'map "{a**}.weight" <-> "{a**}.weight_t" via transpose(0, 1)\n'
EXPERTS, HIDDEN, SHARDS = 8, 2048, 4


def filled(data):
    """Writes tensors of bytes that `data` gives: so many of a dtype."""

    def fill(file, tensors):
        for _, dtype, _, left in tensors:
            while left > 0:
                left -= file.write(data(dtype, min(left, 1 << 24)))

    return fill


def mixtral(directory, size):
    """Four layers of eight experts in bf16, one layer in each shard, of about so many bytes."""
    inner = size // SHARDS // (EXPERTS * 3 * HIDDEN * 2) // 8 * 8
    shards = []
    for layer in range(SHARDS):
        shapes = {f"self_attn.{one}": [HIDDEN, HIDDEN] for one in ("q_proj", "o_proj")}
        for expert in range(EXPERTS):
            name = f"block_sparse_moe.experts.{expert}"
            shapes |= {f"{name}.w{one}": [inner, HIDDEN] for one in (1, 3)}
            shapes[f"{name}.w2"] = [HIDDEN, inner]
        shards.append(
            [
                (f"model.layers.{layer}.{key}.weight", "BF16", shape, 2 * shape[0] * shape[1])
                for key, shape in shapes.items()
            ]
        )
    write_shards(directory, shards, filled(lambda dtype, size: os.urandom(size)))


def fp8(directory, size):
    """Matrices in fp8 with a scale for each block of 128 x 128, of about so many bytes in bf16."""
    count = size // SHARDS // (4096 * 4096 * 2)
    shards = [
        [
            one
            for at in range(count)
            for one in (
                (f"model.layers.{layer}.{at}.weight", "F8_E4M3", [4096, 4096], 4096 * 4096),
                (f"model.layers.{layer}.{at}.weight_scale_inv", "F32", [32, 32], 32 * 32 * 4),
            )
        ]
        for layer in range(SHARDS)
    ]
    # Finite numbers alone: two of the 256 are NaN.
    finite = bytes(byte & 0xFE if byte & 0x7F == 0x7F else byte for byte in range(256))

    def data(dtype, size):
        if dtype == "F32":
            return struct.pack(
                f"<{size // 4}f", *(random.uniform(0.001, 1) for _ in range(size // 4))
            )
        return os.urandom(size).translate(finite)

    write_shards(directory, shards, filled(data))


def deepseek(directory):
    """The keys of DeepSeek-V3 in fp8 as a manifest, and what its config says of the model."""
    sys.path.insert(0, str(BENCHMARKS))
    from compare import DEEPSEEK, deepseek_keys

    directory.mkdir()
    keys = {key: {"dtype": d, "shape": s} for key, (d, s) in deepseek_keys(True).items()}
    assert len(keys) == 90_427
    (directory / "config.json").write_text(json.dumps(DEEPSEEK))
    (directory / "keys.json").write_text(json.dumps(keys))


def apart(make, *given):
    """Makes files in a process of its own: others count what their parent held when they began."""
    child = os.fork()
    if child == 0:
        try:
            make(*given)
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    if status != 0:
        sys.exit("the files to measure with could not be made")


def run(command):
    """Seconds by the wall, and the most memory in MiB."""
    seconds, _, memory = once(command)
    return seconds, memory


def timed_inside(command):
    """Seconds that a script prints of its own work, and the most memory in MiB."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{command} failed with {process.returncode}")
    return float(said), usage.ru_maxrss / 1024


class Table:
    """Rows, each printed when it is known."""

    def __init__(self, runs, only):
        self.runs = runs
        self.only = only
        print("| work | ratio | mark | seconds | MiB | peer | before |")
        print("|---|---|---|---|---|---|---|", flush=True)

    def wants(self, what):
        return self.only is None or self.only in what

    def row(self, what, mark, now, peer=None, before=None, memory=None, by_peer=True):
        """What is called in turn, `runs` times: each gives seconds and memory. The mark is the
        most seconds, or with a peer, and `by_peer`, the largest ratio; `memory`, the most MiB."""
        if not self.wants(what):
            return
        given = {"now": now, "peer": peer and peer[1], "before": before}
        taken = {name: [] for name, call in given.items() if call}
        names = list(taken)
        for round in range(self.runs):
            # Who comes first finds another machine than who comes last: each does in its turn.
            for at in range(len(names)):
                name = names[(round + at) % len(names)]
                taken[name].append(given[name]())
        seconds = {name: statistics.median(t for t, _ in one) for name, one in taken.items()}
        held = {name: max(m for _, m in one) for name, one in taken.items()}
        ratio = seconds["now"] / seconds["peer"] if peer else None
        by_peer = by_peer and peer is not None
        reached = mark is None or (ratio if by_peer else seconds["now"]) <= mark
        reached = reached and (memory is None or held["now"] <= memory)
        asked = [] if mark is None else [f"{mark:g}" if by_peer else f"{mark:g} s"]
        asked += [] if memory is None else [f"{memory} MiB"]
        quick = {name: min(t for t, _ in one) for name, one in taken.items()}
        best = quick["now"]
        cells = [
            what,
            f"{ratio:.2f} ({best / quick['peer']:.2f})" if peer else "",
            f"{', '.join(asked)}: {'met' if reached else '**missed**'}" if asked else "",
            f"{seconds['now']:.4f} ({best:.4f})"
            if best < 0.1
            else f"{seconds['now']:.2f} ({best:.2f})",
            f"{held['now']:.0f}",
            f"{peer[0]}: {seconds['peer']:.2f} ({quick['peer']:.2f})" if peer else "",
            f"{seconds['before']:.3g}, {held['before']:.0f} MiB" if before else "",
        ]
        print(f"| {' | '.join(cells)} |", flush=True)


def conversions(table, work, regraft, before, mib):
    source, packed, out = work / "mixtral", work / "packed", work / "out"
    rules = {}
    for name, text in (("rename", MIXTRAL), ("pack", PACK), ("turn", TURN)):
        rules[name] = work / f"{name}.graft"
        rules[name].write_text(text)

    def clean():
        shutil.rmtree(out, ignore_errors=True)
        os.sync()

    def warm(directory):
        for path in directory.iterdir():
            with open(path, "rb", buffering=0) as file:
                while file.read(1 << 24):
                    pass

    def convert(binary, directory, *how):
        def call():
            clean()
            warm(directory)
            return run(
                [binary, "apply", directory, *how, "-o", out, "--quiet", "--max-shard-size", "1GiB"]
            )

        return binary and call

    def copy(directory, *, synced):
        def call():
            clean()
            warm(directory)
            start = time.perf_counter()
            _, held = run(["cp", "-r", directory, out])
            if synced:
                subprocess.run(["sync", "-f", out], check=True)
            return time.perf_counter() - start, held

        return ("`cp -r; sync`" if synced else "`cp -r`", call)

    if any(table.wants(what) for what in ("rename", "pack", "unpack", "transpose")):
        apart(mixtral, source, mib << 20)
        convert(regraft, source, "--rules", rules["pack"])()
        out.rename(packed)
    works = {
        "rename": (source, "--rules", rules["rename"]),
        "pack": (source, "--rules", rules["pack"]),
        "unpack": (packed, "--rules", rules["pack"], "--reverse"),
        "transpose": (source, "--rules", rules["turn"]),
    }
    for synced, unsynced in ((True, ()), (False, ("--no-sync",))):
        for name, (directory, *how) in works.items():
            mark = 0.8 if name != "transpose" else None if synced else 1.3
            what = f"{name} {mib} MiB" + ("" if synced else ", `--no-sync`")
            now, old = (convert(one, directory, *how, *unsynced) for one in (regraft, before))
            table.row(what, mark, now, copy(directory, synced=synced), old)

    def cold(call):
        def dropped():
            clean()
            Path("/proc/sys/vm/drop_caches").write_text("3\n")
            return call()

        return call and dropped

    def straight(binary):
        return lambda: run(
            [binary, "apply", source, "--rules", rules["rename"], "-o", out, "--quiet", "--no-sync"]
        )

    if os.geteuid() == 0:
        table.row(
            f"rename {mib} MiB from a cold cache, `--no-sync`",
            1.05,
            cold(straight(regraft)),
            ("cold `cp -r`", cold(lambda: run(["cp", "-r", source, out]))),
            before and cold(straight(before)),
        )
    for directory in (source, packed):
        shutil.rmtree(directory, ignore_errors=True)
    what = f"dequantize fp8 blocks to {mib} MiB of bf16, `--no-sync`"
    if table.wants(what):
        apart(fp8, source, mib << 20)
        wide = work / "wide"
        convert(regraft, source, "--rules", "dequant_fp8")()
        out.rename(wide)
        how = (source, "--rules", "dequant_fp8", "--no-sync")
        now, old = (convert(one, *how) for one in (regraft, before))
        table.row(what, 1.3, now, ("`cp -r` of the bf16", copy(wide, synced=False)[1]), old)
        shutil.rmtree(wide)
        shutil.rmtree(source)
    clean()


def small_work(table, work, regraft, before):
    out, rules = work / "out", work / "layers.graft"
    rules.write_text(RENAME)

    def both(*how):
        def call(binary):
            def fresh():
                shutil.rmtree(out, ignore_errors=True)
                os.sync()
                return run([binary, *how])

            return binary and fresh

        return call(regraft), call(before)

    small = work / "small"
    if table.wants("small tensors"):
        apart(checkpoint, small, 99_840, 512)
        now, old = both("apply", small, "--rules", rules, "-o", out)
        table.row("apply 99,840 small tensors", 0.25, now, None, old, memory=64)
    apart(deepseek, work / "deepseek")
    now, old = both("plan", work / "deepseek" / "keys.json", "--rules", "deepseek_v3")
    table.row("plan 90,427 keys", 0.12, now, None, old)
    million, one = work / "million.json", work / "one.json"
    manifest(one, 1)
    if table.wants("plan 1,000,000 keys"):
        apart(manifest, million, 1_000_000)
    now, old = both("plan", million, "--rules", rules)
    table.row("plan 1,000,000 keys", 1.0, now, None, old, memory=300)
    now, old = both("rules")
    table.row("`regraft rules`", 0.015, now, None, old)
    now, old = both("plan", one, "--rules", rules)
    table.row("plan one key", 0.002, now, None, old)


OPEN_AND_APPLY = """
import time, torch, regraft
regraft.load({rules!r})
start = time.perf_counter()
made = regraft.open({source!r}).apply(rules={rules!r})
print(time.perf_counter() - start)
assert len(made) == 99840 and all(key.startswith("h.") for key in made)
"""
LOAD_AND_LOOP = """
import time, glob, torch
from safetensors import safe_open
start = time.perf_counter()
made = {{}}
for name in sorted(glob.glob({source!r} + "/*.safetensors")):
    with safe_open(name, framework="pt") as file:
        for key in file.keys():
            made["h." + key.removeprefix("model.layers.")] = file.get_tensor(key)
print(time.perf_counter() - start)
"""
META = """
import sys, time, torch, regraft
sys.path.insert(0, {benchmarks!r})
from compare import DEEPSEEK, deepseek_keys
from regraft._arrays import torch_ops
dtypes = torch_ops().dtypes
given = {{
    key: torch.empty(shape, dtype=dtypes[dtype], device="meta")
    for key, (dtype, shape) in deepseek_keys(True).items()
}}
start = time.perf_counter()
made = regraft.{verb}(given, config=DEEPSEEK, to="model")
print(time.perf_counter() - start)
"""


def in_python(table, work, python, before):
    names = {
        "source": str(work / "small"),
        "rules": str(work / "layers.graft"),
        "benchmarks": str(BENCHMARKS),
    }

    def script(text, interpreter, **more):
        command = [interpreter, "-c", text.format(**names, **more)]
        return interpreter and (lambda: timed_inside(command))

    def whole(text, interpreter):
        return interpreter and (lambda: run([interpreter, "-c", text]))

    what = "Python: open and apply 99,840 small tensors"
    if table.wants(what) and not (work / "small").exists():
        apart(checkpoint, work / "small", 99_840, 512)
    table.row(
        what,
        0.6,
        script(OPEN_AND_APPLY, python),
        ("safetensors and a loop", script(LOAD_AND_LOOP, python)),
        script(OPEN_AND_APPLY, before),
        by_peer=False,
    )
    table.row(
        "Python: `import regraft`",
        0.020,
        whole("import regraft", python),
        None,
        whole("import regraft", before),
    )
    table.row("Python: bare interpreter", None, whole("pass", python))
    for verb, mark in (("plan", 0.2), ("apply", 0.4)):
        now, old = (script(META, one, verb=verb) for one in (python, before))
        table.row(f"Python: {verb}, 90,427 meta tensors", mark, now, None, old)


def build(table, work):
    """A clone, and README's first command in it."""
    command = next(
        line
        for line in (ROOT / "README.md").read_text().splitlines()
        if line.startswith("cargo run ")
    )

    def built():
        clone = work / "clone"
        shutil.rmtree(clone, ignore_errors=True)
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        start = time.perf_counter()
        subprocess.run(command, cwd=clone, shell=True, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start, 0

    table.row("build a clone to README's first result", 35, built)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", default=ROOT / "target/release/regraft", type=Path)
    parser.add_argument("--before", type=Path, help="an older binary, measured in the same rounds")
    parser.add_argument("--python", help="an interpreter with regraft and torch")
    parser.add_argument("--python-before", help="one with an older regraft")
    parser.add_argument("--build", action="store_true", help="build a clone too, once")
    parser.add_argument("--work", type=Path, help="where files are made; default: the system's")
    parser.add_argument("--mib", type=int, default=3072)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", help="rows that have this in their name")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.work, prefix="regraft-marks-") as name:
        work = Path(name)
        kind = subprocess.check_output(["df", "--output=fstype", work], text=True).split()[-1]
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30)
        print(
            f"{platform.system()} {platform.release()}, {os.cpu_count()} cores, {memory:.0f} GiB, "
            f"{kind}, {datetime.date.today()}; load {os.getloadavg()[0]:.1f}; "
            f"{given.runs} rounds; medians (and of the quickest)\n"
        )
        table = Table(given.runs, given.only)
        conversions(table, work, given.bin, given.before, given.mib)
        small_work(table, work, given.bin, given.before)
        if given.python:
            in_python(table, work, given.python, given.python_before)
        if given.build:
            table.runs = 1
            build(table, work)


if __name__ == "__main__":
    main()

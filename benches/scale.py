"""What small work costs, and how costs grow: whole commands, each in a process of its own.

    python3 benches/scale.py [--bin target/release/regraft] [--work DIRECTORY] [--runs 5]

Needs nothing but Python. Prints Markdown: medians of wall time and of the processor's time, and the
most memory of any run. Files are read once beforehand, so that all find them in the page cache.
Where the package `regraft` can be imported, it is measured too.
"""

import argparse
import importlib.util
import json
import os
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RENAME = 'rename "model.layers.{l}.**" <-> "h.{l}.**"\n'
EXPERTS, PARTS = 640, ("gate", "up", "down")


def keys(count):
    """So many names as experts have them, in the order of the layers."""
    for at in range(count):
        layer, rest = divmod(at, EXPERTS * len(PARTS))
        expert, part = divmod(rest, len(PARTS))
        yield f"model.layers.{layer}.mlp.experts.{expert}.{PARTS[part]}_proj.weight"


def manifest(path, count):
    """Written piece by piece: a process counts what its parent held when it began."""
    with open(path, "w") as file:
        for at, key in enumerate(keys(count)):
            file.write(("," if at else "{") + f'"{key}":{{"dtype":"BF16","shape":[16,16]}}')
        file.write("}")


def checkpoint(directory, count, size, files=4):
    """Tensors of `size` bytes, a multiple of four, in so many files; the bytes are random for each
    file's first MiB and repeat."""
    directory.mkdir()
    names = list(keys(count))
    each = -(-count // files)
    where = {}
    for number in range(files):
        own = names[number * each : (number + 1) * each]
        header = {
            key: {
                "dtype": "BF16",
                "shape": [2, size // 4],
                "data_offsets": [at * size, (at + 1) * size],
            }
            for at, key in enumerate(own)
        }
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        name = f"model-{number + 1:05}-of-{files:05}.safetensors"
        where.update(dict.fromkeys(own, name))
        with open(directory / name, "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            left, block = len(own) * size, os.urandom(1 << 20)
            while left > 0:
                left -= file.write(block[: min(left, len(block))])
    index = {"metadata": {}, "weight_map": where}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


def measured(command, runs, prepare=lambda: None):
    """Medians of the seconds that a command takes, by the wall and of the processor, and the most
    memory, in MiB."""
    wall, busy, memory = [], [], 0
    for _ in range(runs):
        prepare()
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        wall.append(time.perf_counter() - start)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in (0, 1):
            sys.exit(f"{command} failed with {process.returncode}")
        busy.append(usage.ru_utime + usage.ru_stime)
        memory = max(memory, usage.ru_maxrss / 1024)
    return statistics.median(wall), statistics.median(busy), memory


def row(what, result):
    wall, busy, memory = result
    print(f"| {what} | {wall:.3f} | {busy:.3f} | {memory:.0f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", default="target/release/regraft")
    parser.add_argument("--work", type=Path, help="where files are made; default: the system's")
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    runs, regraft = arguments.runs, arguments.bin
    with tempfile.TemporaryDirectory(dir=arguments.work, prefix="regraft-scale-") as name:
        work = Path(name)
        rules = work / "rename.graft"
        rules.write_text(RENAME)
        out = work / "out"

        def clean():
            shutil.rmtree(out, ignore_errors=True)
            os.sync()

        print("| work | seconds | processor | MiB |\n|---|---|---|---|")
        row("`regraft rules`", measured([regraft, "rules"], runs))
        for count in (1, 1_000, 10_000, 100_000, 1_000_000):
            source = work / f"{count}.json"
            manifest(source, count)
            command = [regraft, "plan", source, "--rules", rules]
            row(f"plan {count:,} keys", measured(command, runs))
            source.unlink()
        many = work / "many.graft"
        for count in (1, 10, 100, 1_000):
            others = (
                f'rename "other{at}.{{l}}.**" <-> "o{at}.{{l}}.**" optional\n'
                for at in range(count - 1)
            )
            many.write_text("".join(others) + RENAME)
            source = work / "keys.json"
            manifest(source, 10_000)
            command = [regraft, "plan", source, "--rules", many]
            row(f"plan 10,000 keys by {count:,} rules", measured(command, runs))
        small = work / "small"
        checkpoint(small, 99_840, 512)
        command = [regraft, "apply", small, "--rules", rules, "-o", out]
        row("apply 99,840 tensors of 512 B", measured(command, runs, clean))
        row("the same, `--no-sync`", measured([*command, "--no-sync"], runs, clean))
        row("`cp -r` of them", measured(["cp", "-r", small, out], runs, clean))
        for mib in (100, 1_000):
            large = work / f"{mib}"
            checkpoint(large, 100, mib * 10_485_760 // 1000 // 4 * 4)
            command = [regraft, "apply", large, "--rules", rules, "-o", out, "--no-sync"]
            row(f"apply 100 tensors, {mib} MiB, `--no-sync`", measured(command, runs, clean))
            row(f"`cp -r` of {mib} MiB", measured(["cp", "-r", large, out], runs, clean))
            clean()
            shutil.rmtree(large)
        if importlib.util.find_spec("regraft"):
            python = [sys.executable, "-c"]
            row("Python: nothing", measured([*python, "pass"], runs))
            row("Python: `import regraft`", measured([*python, "import regraft"], runs))
            opened = (
                "import regraft\nfrom pathlib import Path\n"
                f"regraft.open({str(small)!r}).apply(rules=Path({str(rules)!r}))"
            )
            row("Python: open and apply 99,840 tensors", measured([*python, opened], runs))


if __name__ == "__main__":
    main()

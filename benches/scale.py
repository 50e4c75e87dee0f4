"""How costs grow with keys, rules, bytes and ranks: whole commands, each in a process of its own.

    python3 benches/scale.py [--bin target/release/regraft] [--work DIRECTORY] [--runs 3]
                             [--chart docs/scale.svg]

Needs nothing but Python, and 70 GiB of disk for the largest file. Prints Markdown: medians of wall
time and of the processor's time, and the most memory of any run; and draws a chart of it. Nothing
is synced, but by ranks. Source files are sparse: what is read of them is zeros, but what is written
is written. benches/marks.py says what of all that has to be reached.
"""

import argparse
import json
import math
import os
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from xml.sax.saxutils import escape

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


def write_shards(directory, shards, fill):
    """safetensors files of (key, dtype, shape, bytes) each, and their index; `fill` is given each
    open file behind its header, and its tensors."""
    directory.mkdir()
    where = {}
    for number, tensors in enumerate(shards):
        header, end = {}, 0
        for key, dtype, shape, size in tensors:
            header[key] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
            end += size
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        name = f"model-{number + 1:05}-of-{len(shards):05}.safetensors"
        where.update(dict.fromkeys(header, name))
        with open(directory / name, "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            fill(file, tensors)
    index = {"metadata": {}, "weight_map": where}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


def sparse(directory, size, files=1):
    """A hundred tensors of about so many bytes in all, none of which is on the disk."""
    each = size // 100 // 4 * 4
    all_of_them = [(f"model.layers.{at}.weight", "BF16", [2, each // 4], each) for at in range(100)]

    def fill(file, tensors):
        file.truncate(file.tell() + len(tensors) * each)

    write_shards(directory, [all_of_them[own::files] for own in range(files)], fill)


def checkpoint(directory, count, size, files=4):
    """Tensors of `size` bytes, a multiple of four, in so many files; the bytes are random for each
    file's first MiB and repeat."""
    tensors = [(key, "BF16", [2, size // 4], size) for key in keys(count)]
    each = -(-count // files)

    def fill(file, tensors):
        left, block = len(tensors) * size, os.urandom(1 << 20)
        while left > 0:
            left -= file.write(block[: min(left, len(block))])

    write_shards(directory, [tensors[at : at + each] for at in range(0, count, each)], fill)


def once(*commands):
    """Seconds that commands take at the same time, by the wall and of the processor, and the most
    memory of any, in MiB."""
    busy, memory = 0.0, 0.0
    start = time.perf_counter()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    processes = [subprocess.Popen(command, **quiet) for command in commands]
    for process in processes:
        said = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in (0, 1):
            sys.exit(f"{process.args} failed with {process.returncode}: {said.decode()}")
        busy += usage.ru_utime + usage.ru_stime
        memory = max(memory, usage.ru_maxrss / 1024)
    return time.perf_counter() - start, busy, memory


def measured(commands, runs, prepare=lambda: None):
    """Medians of what `once` gives, but for the memory, which is the most of any run."""
    taken = []
    for _ in range(runs):
        prepare()
        taken.append(once(*commands))
    wall, busy, memory = zip(*taken)
    return statistics.median(wall), statistics.median(busy), max(memory)


class Series:
    """One line of a chart: points of how much there was, and seconds."""

    def __init__(self, name):
        self.name = name
        self.points = []

    def add(self, at, what, result):
        wall, busy, memory = result
        print(f"| {what} | {wall:.3f} | {busy:.3f} | {memory:.0f} |", flush=True)
        self.points.append((at, wall))


def by_keys(work, regraft, runs, rules):
    series = Series("plan")
    for count in (1_000, 10_000, 100_000, 1_000_000):
        source = work / f"{count}.json"
        manifest(source, count)
        command = [regraft, "plan", source, "--rules", rules]
        series.add(count, f"plan {count:,} keys", measured([command], runs))
        source.unlink()
    return [series]


def by_rules(work, regraft, runs):
    source = work / "keys.json"
    manifest(source, 10_000)
    found = []
    for name, form in (("one by one", "{}"), ("in one block", "rename {{\n{}}}\n")):
        series = Series(name)
        for count in (1, 10, 100, 1_000):
            others = [
                f'"other{at}.{{l}}.**" <-> "o{at}.{{l}}.**" optional\n' for at in range(count - 1)
            ]
            own = RENAME.removeprefix("rename ")
            word = "rename " if form == "{}" else ""
            rules = work / "many.graft"
            rules.write_text(form.format("".join(word + rule for rule in [*others, own])))
            command = [regraft, "plan", source, "--rules", rules]
            what = f"plan 10,000 keys by {count:,} rules, {name}"
            series.add(count, what, measured([command], runs))
        found.append(series)
    source.unlink()
    return found


def by_bytes(work, regraft, runs, rules, clean):
    ours, theirs = Series("rename"), Series("cp -r")
    out = work / "out"
    for size in (100_000_000, 1_000_000_000, 10_000_000_000, 30_000_000_000):
        source = work / "source"
        sparse(source, size)
        what = f"{size // 1_000_000:,} MB"
        often = runs if size < 10**10 else 1
        command = [regraft, "apply", source, "--rules", rules, "-o", out, "--no-sync"]
        ours.add(size, f"rename {what}", measured([command], often, clean))
        command = ["cp", "-r", "--sparse=never", source, out]
        theirs.add(size, f"`cp -r` of {what}", measured([command], often, clean))
        clean()
        shutil.rmtree(source)
    return [ours, theirs]


def by_ranks(work, regraft, runs, rules, clean):
    series = Series("rename 2 GB")
    source, out = work / "source", work / "out"
    sparse(source, 2_000_000_000, files=16)
    command = [regraft, "apply", source, "--rules", rules, "-o", out, "--max-shard-size", "125MB"]
    for ranks in (1, 2, 4, 8):
        shares = [("--rank", str(rank), "--world-size", str(ranks)) for rank in range(ranks)]
        each = [[*command, *share] for share in shares] if ranks > 1 else [command]
        series.add(ranks, f"rename 2 GB by {ranks} ranks", measured(each, runs, clean))
    clean()
    shutil.rmtree(source)
    return [series]


WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 360, 250, 56, 34, 14, 40
COLOURS = ("#2563a8", "#c2571a")


def ticks(least, most):
    """Powers of ten around values."""
    low, high = math.floor(math.log10(least)), math.ceil(math.log10(most))
    return [10.0**power for power in range(low, max(high, low + 1) + 1)]


def shown(value):
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:g}{unit}"
    return f"{value:g}"


def panel(title, unit, several, steps=None):
    """A chart with both axes by powers of ten; `steps` are the marks below it, if others."""
    points = [point for series in several for point in series.points]
    across = steps or ticks(min(x for x, _ in points), max(x for x, _ in points))
    up = ticks(min(y for _, y in points), max(y for _, y in points))

    def x(value):
        part = math.log(value / across[0]) / math.log(across[-1] / across[0])
        return LEFT + part * (WIDTH - LEFT - RIGHT)

    def y(value):
        part = math.log(value / up[0]) / math.log(up[-1] / up[0])
        return HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)

    out = [f'<text x="{LEFT}" y="18" class="title">{escape(title)}</text>']
    for value in across:
        at = f"{x(value):.1f}"
        out.append(f'<path class="grid" d="M{at} {TOP}V{HEIGHT - BOTTOM}"/>')
        out.append(f'<text x="{at}" y="{HEIGHT - BOTTOM + 15}" class="x">{shown(value)}</text>')
    for value in up:
        at = y(value)
        out.append(f'<path class="grid" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/>')
        out.append(f'<text x="{LEFT - 5}" y="{at + 4:.1f}" class="y">{shown(value)} s</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    out.append(f'<text x="{middle}" y="{HEIGHT - 8}" class="x">{escape(unit)}</text>')
    for number, (series, colour) in enumerate(zip(several, COLOURS)):
        line = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in series.points)
        out.append(f'<polyline points="{line}" stroke="{colour}"/>')
        for a, b in series.points:
            out.append(f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="3" fill="{colour}"/>')
        at = TOP + 14 + 15 * number
        out.append(f'<text x="{LEFT + 10}" y="{at}" fill="{colour}">{escape(series.name)}</text>')
    return "\n".join(out)


def chart(panels):
    style = (
        "text{font:12px sans-serif}.title{font-weight:bold}.x{text-anchor:middle}"
        ".y{text-anchor:end}.x,.y,.title{fill:#333}.grid{stroke:#ddd;fill:none}"
        "polyline{fill:none;stroke-width:2}"
    )
    placed = [
        f'<g transform="translate({at % 2 * WIDTH},{at // 2 * HEIGHT})">\n{one}\n</g>'
        for at, one in enumerate(panels)
    ]
    rows = -(-len(panels) // 2)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * WIDTH} {rows * HEIGHT}" '
        f'role="img" aria-label="Seconds by keys, rules, bytes and ranks">\n'
        f"<style>{style}</style>\n"
        '<rect width="100%" height="100%" fill="#fff"/>\n' + "\n".join(placed) + "\n</svg>\n"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", default="target/release/regraft")
    parser.add_argument("--work", type=Path, help="where files are made; default: the system's")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--chart", type=Path, help="an SVG file to draw the costs in")
    arguments = parser.parse_args()
    runs, regraft = arguments.runs, arguments.bin
    with tempfile.TemporaryDirectory(dir=arguments.work, prefix="regraft-scale-") as name:
        work = Path(name)
        rules = work / "rename.graft"
        rules.write_text(RENAME)

        def clean():
            shutil.rmtree(work / "out", ignore_errors=True)
            os.sync()

        print("| work | seconds | processor | MiB |\n|---|---|---|---|")
        panels = [
            panel("Keys of a plan", "keys", by_keys(work, regraft, runs, rules)),
            panel("Rules, over 10,000 keys", "rules", by_rules(work, regraft, runs)),
            panel("Bytes, nothing synced", "bytes", by_bytes(work, regraft, runs, rules, clean)),
            panel(
                "Processes that share the work, synced",
                f"ranks, on {os.cpu_count()} cores",
                by_ranks(work, regraft, runs, rules, clean),
                steps=[1, 2, 4, 8],
            ),
        ]
    if arguments.chart:
        arguments.chart.write_text(chart(panels))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Write a small checkpoint from a case: every tensor's data follows from its key
(tests/fixtures/cases/README.md).

Usage: scripts/make_example.py tests/fixtures/cases/mixtral.json examples/mixtral

Needs only the standard library. The output is the same on every machine; examples/mixtral in this
repository is what it wrote.
"""

import json
import math
import os
import struct
import sys

MASK = (1 << 64) - 1
INTEGERS = {
    "I64": "q",
    "I32": "i",
    "I16": "h",
    "I8": "b",
    "U64": "Q",
    "U32": "I",
    "U16": "H",
    "U8": "B",
}
FLOATS = {"F64": "d", "F32": "f", "F16": "e"}


def numbers(key, count):
    """The pseudo-random numbers of a key: splitmix64, seeded with its FNV-1a hash."""
    seed = 0xCBF29CE484222325
    for byte in key.encode():
        seed = ((seed ^ byte) * 0x100000001B3) & MASK
    for at in range(1, count + 1):
        z = (seed + at * 0x9E3779B97F4A7C15) & MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        yield z ^ (z >> 31)


def bfloat16(value):
    """The upper half of a float32, rounded to nearest even, as an integer."""
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    return (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16


def data(key, dtype, shape):
    """The bytes of a tensor."""
    drawn = numbers(key, math.prod(shape))
    if dtype == "BOOL":
        return bytes(z & 1 for z in drawn)
    if dtype in INTEGERS:
        return b"".join(struct.pack("<" + INTEGERS[dtype], z % 100) for z in drawn)
    floats = ((z >> 40) / 2**23 - 1.0 for z in drawn)
    if dtype == "BF16":
        return b"".join(struct.pack("<H", bfloat16(value)) for value in floats)
    return b"".join(struct.pack("<" + FLOATS[dtype], value) for value in floats)


def main():
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    case, folder = sys.argv[1:]
    with open(case, encoding="utf-8") as file:
        facts = json.load(file)
    header, blobs, offset = {"__metadata__": {"format": "pt"}}, [], 0
    for key, (dtype, shape) in facts["checkpoint"].items():
        blob = data(key, dtype, shape)
        header[key] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(blob)]}
        offset += len(blob)
        blobs.append(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
        json.dump(facts["config"], file, indent=2)
        file.write("\n")
    with open(os.path.join(folder, "model.safetensors"), "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text + b"".join(blobs))
    print(f"{folder}: {len(blobs)} tensors, {offset} bytes")


if __name__ == "__main__":
    main()

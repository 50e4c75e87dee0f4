"""numpy's files: `.npy` and `.npz`."""

import io
import os
import zipfile

import numpy as np
import torch

from .expect import OWNED


class Owns:
    """Makes a file when it is unpickled."""

    def __reduce__(self):
        return os.system, (f"touch {OWNED}",)


def tensors(arrays):
    """As torch sees them: in the machine's byte order, a scalar without dimensions."""
    out = {}
    for key, array in arrays.items():
        native = np.array(array, dtype=array.dtype.newbyteorder("="), order="C")
        out[key] = torch.from_numpy(native)
    return out


def make(cases):
    random = np.random.default_rng(5)
    arrays = {
        "w": random.standard_normal((3, 4)).astype("f4"),
        "turned": np.asfortranarray(random.standard_normal((3, 4))),
        "half": random.standard_normal(5).astype("f2"),
        "big": random.standard_normal((2, 3)).astype(">f4"),
        "big_int": np.arange(4, dtype=">i8"),
        "scalar": np.array(3, dtype="i4"),
        "empty": np.zeros((0, 3), "f4"),
        "block/0/w": np.arange(3, dtype="u2"),
        "flags": np.array([True, False]),
        "pair": np.array([1 + 2j], "c8"),
        "u64": np.array([2**64 - 1], "u8"),
    }
    for case, save in {"npz_stored": np.savez, "npz_deflated": np.savez_compressed}.items():
        folder = cases.folder(case)
        save(folder / "a.npz", **arrays)
        with np.load(folder / "a.npz") as found:
            assert set(found.files) == set(arrays)
        cases.readable(case, "a.npz", tensors(arrays), ties=[])

    def one(case, array, **fields):
        np.save(cases.folder(case) / "a.npy", array, allow_pickle=True)
        return fields

    def maybe(case, array, **fields):
        # What key the only array of a file has is the reader's to say.
        one(case, array)
        cases.expect(case, "a.npy", root="", only=_entry(array), **fields)

    maybe("npy_plain", arrays["w"])
    maybe("npy_fortran", arrays["turned"])
    maybe("npy_big_endian", arrays["big"])
    maybe("npy_scalar", arrays["scalar"])
    maybe("npy_empty", arrays["empty"])
    rows = np.zeros(3, [("a", "f4"), ("b", "i4")])
    one("refused_npy_structured", rows)
    cases.refused("refused_npy_structured", "a.npy", "dtype", rest={})
    one("refused_npy_text", np.array(["a", "bc"]))
    cases.refused("refused_npy_text", "a.npy", "dtype", rest={})
    one("refused_npy_time", np.array(["2026-01-02"], "M8[D]"))
    cases.refused("refused_npy_time", "a.npy", "dtype", rest={})
    one("refused_npy_long_double", np.zeros(2, "g"))
    cases.refused("refused_npy_long_double", "a.npy", "dtype", rest={})
    one("hostile_npy_object", np.array([Owns()], dtype=object))
    cases.refused("hostile_npy_object", "a.npy", "code", rest={})
    folder = cases.folder("refused_npz_some")
    np.savez(folder / "a.npz", w=arrays["w"], strange=rows)
    cases.refused("refused_npz_some", "a.npz", "dtype", ["strange"], tensors({"w": arrays["w"]}))
    headers(cases)
    members(cases)


def _entry(array):
    from .expect import entry

    return entry(tensors({"": array})[""])


def file(header, data=bytes(24), version=1):
    text = header.encode()
    length = len(text).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + data


def headers(cases):
    """Headers that lie, or are code: numpy reads them as a Python literal."""
    for case, data in {
        "short": file("{'descr': '<f4', 'fortran_order': False, 'shape': (60,), }\n"),
        "long": file("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n"),
        "overflow": file(
            "{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }\n"
        ),
        "negative": file("{'descr': '<f4', 'fortran_order': False, 'shape': (-6,), }\n"),
        "no_shape": file("{'descr': '<f4', 'fortran_order': False}\n"),
        "call": file(f"__import__('os').system('touch {OWNED}')\n"),
        "beyond": b"\x93NUMPY\1\0\xff\xff{}",
        "version": file("{'descr': '<f4', 'fortran_order': False, 'shape': (6,), }\n", version=9),
        "width": file("{'descr': '<f3', 'fortran_order': False, 'shape': (8,), }\n"),
        "magic_only": b"\x93NUMPY",
    }.items():
        folder = cases.folder(f"hostile_npy_{case}")
        (folder / "a.npy").write_bytes(data)
        cases.refused(f"hostile_npy_{case}", "a.npy", "corrupt", rest={})
    folder = cases.folder("npy_version_2")
    data = file("{'descr': '<f4', 'fortran_order': False, 'shape': (6,), }\n", version=2)
    (folder / "a.npy").write_bytes(data)
    cases.expect("npy_version_2", "a.npy", root="", only=_entry(np.load(io.BytesIO(data))))


def members(cases):
    good = io.BytesIO()
    np.save(good, np.arange(3, dtype="f4"))

    def archived(case, **named):
        folder = cases.folder(case)
        with zipfile.ZipFile(folder / "a.npz", "w", zipfile.ZIP_DEFLATED) as out:
            for path, data in named.items():
                out.writestr(path, data)

    archived(
        "hostile_npz_bomb",
        **{
            "lone.npy": file(
                "{'descr': '<f4', 'fortran_order': False, 'shape': (6,), }\n", bytes(2 << 20)
            )
        },
    )
    cases.refused("hostile_npz_bomb", "a.npz", "corrupt", ["lone"], {}, {"lone": torch.zeros(6)})
    archived("hostile_npz_parent", **{"../w.npy": good.getvalue()})
    cases.refused(
        "hostile_npz_parent",
        "a.npz",
        "corrupt",
        *([], {}, {"../w": torch.arange(3.0)}),
        note="a key, and no place: nothing is unpacked",
    )
    folder = cases.folder("hostile_npz_twice")
    from .pickles import Member, archive

    same = [
        Member("lone.npy", good.getvalue()),
        Member("lone.npy", good.getvalue()[:-4] + bytes(4)),
    ]
    (folder / "a.npz").write_bytes(archive(same))
    cases.refused("hostile_npz_twice", "a.npz", "corrupt", ["lone"])
    archived("npz_other_members", **{"w.npy": good.getvalue(), "readme.txt": b"hello"})
    cases.refused("npz_other_members", "a.npz", "member", ["readme.txt"], {"w": torch.arange(3.0)})

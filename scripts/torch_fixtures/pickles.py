"""Pickles and zip archives byte by byte, for what no library writes."""

import struct
import zlib

STOP = b"."


class Raw(bytes):
    """Opcodes that stand for a value."""


def text(value):
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value):
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def name(module, item):
    return f"c{module}\n{item}\n".encode()


def value(of):
    """The opcodes of a plain value, or those given."""
    if isinstance(of, Raw):
        return bytes(of)
    if isinstance(of, bool):
        return b"\x88" if of else b"\x89"
    if isinstance(of, int):
        return number(of)
    if isinstance(of, str):
        return text(of)
    if of is None:
        return b"N"
    if isinstance(of, tuple):
        return b"(" + b"".join(map(value, of)) + b"t"
    if isinstance(of, dict):
        return b"}(" + b"".join(value(key) + value(inner) for key, inner in of.items()) + b"u"
    raise TypeError(of)


def call(module, item, *arguments):
    """REDUCE."""
    return Raw(name(module, item) + value(tuple(arguments)) + b"R")


def storage(key="0", numel=6, kind="FloatStorage", location="cpu", module="torch"):
    named = Raw(name(module, kind))
    return Raw(value(("storage", named, key, location, numel)) + b"Q")


def tensor(shape=(2, 3), stride=(3, 1), offset=0, of=None):
    """`_rebuild_tensor_v2` over a storage."""
    hooks = Raw(name("collections", "OrderedDict") + b")R")
    of = storage() if of is None else of
    return call("torch._utils", "_rebuild_tensor_v2", of, offset, shape, stride, False, hooks)


def document(of, protocol=2):
    return b"\x80" + bytes([protocol]) + value(of) + STOP


class Member:
    """A member of an archive. What its headers say can differ from what it is, and from each
    other."""

    def __init__(self, path, data, **lies):
        self.path, self.data = path, data
        self.method = lies.pop("method", 0)
        self.stored = zlib.compress(data, 9)[2:-4] if self.method == 8 else data
        self.local_path = lies.pop("local_path", path)
        self.size = lies.pop("size", len(data))
        self.packed = lies.pop("packed", len(self.stored))
        self.local_size = lies.pop("local_size", self.size)
        self.crc = lies.pop("crc", zlib.crc32(data))
        self.at = lies.pop("at", None)
        self.zip64 = lies.pop("zip64", False)
        self.flags = lies.pop("flags", 0x800)
        assert not lies, lies

    def local(self):
        path = self.local_path.encode()
        head = struct.pack(
            "<IHHHHHIIIHH",
            *(0x04034B50, 45, self.flags, self.method, 0, 0x21, self.crc),
            *(min(self.packed, 2**32 - 1), min(self.local_size, 2**32 - 1), len(path), 0),
        )
        return head + path + self.stored

    def central(self, start):
        path = self.path.encode()
        start = start if self.at is None else self.at
        size, packed, extra = self.size, self.packed, b""
        if self.zip64 or max(size, packed, start) >= 2**32 - 1:
            extra = struct.pack("<HHQQQ", 1, 24, size, packed, start)
            size = packed = start = 2**32 - 1
        head = struct.pack(
            "<IHHHHHHIIIHHHHHII",
            *(0x02014B50, 45, 45, self.flags, self.method, 0, 0x21, self.crc),
            *(packed, size, len(path), len(extra), 0, 0, 0, 0, start),
        )
        return head + path + extra


def archive(members, comment=b"", zip64=False, before=b"", count=None):
    """A zip archive of members, in order."""
    out, central = bytearray(before), b""
    for member in members:
        central += member.central(len(out))
        out += member.local()
    start, count = len(out), len(members) if count is None else count
    out += central
    said = (count, count, len(central), start)
    if zip64:
        at = len(out)
        out += struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 45, 45, 0, 0, *said)
        out += struct.pack("<IIQI", 0x07064B50, 0, at, 1)
        said = (0xFFFF, 0xFFFF, 2**32 - 1, 2**32 - 1)
    out += struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, *said, len(comment)) + comment
    return bytes(out)


FLOATS = struct.pack("<6f", 1, 2, 3, 4, 5, 6)


def saved(of, storages=None, extra=(), protocol=2, **options):
    """What `torch.save` would write of a pickle and storages."""
    pickle = of if isinstance(of, bytes) and not isinstance(of, Raw) else document(of, protocol)
    members = [Member("archive/data.pkl", pickle), Member("archive/byteorder", b"little")]
    for key, data in ({"0": FLOATS} if storages is None else storages).items():
        members.append(Member(f"archive/data/{key}", data))
    return archive([*members, Member("archive/version", b"3\n"), *extra], **options)

"""Files that mean harm or are broken. None of them is ever loaded by torch here."""

import io
import pickle
import struct

import torch

from .expect import OWNED
from .pickles import (
    FLOATS,
    STOP,
    Member,
    Raw,
    archive,
    call,
    document,
    name,
    number,
    saved,
    storage,
    tensor,
    text,
    value,
)

COMMAND = f"touch {OWNED}"
KEY = "lone.weight"
GOOD = {KEY: torch.tensor([[1.0, 2, 3], [4, 5, 6]])}


def code(cases):
    """Calls by every opcode that makes one."""
    run = value((COMMAND,))
    calls = {
        "reduce": call("os", "system", COMMAND),
        "reduce_protocol_4": Raw(text("os") + text("system") + b"\x93" + run + b"R"),
        "inst": Raw(b"(" + text(COMMAND) + b"ios\nsystem\n"),
        "obj": Raw(b"(" + name("os", "system") + text(COMMAND) + b"o"),
        "newobj": Raw(name("subprocess", "Popen") + run + b"\x81"),
        "newobj_ex": Raw(name("subprocess", "Popen") + run + b"}\x92"),
        "build": Raw(
            name("subprocess", "Popen")
            + b")\x81"
            + value({"__class__": "x", "args": COMMAND})
            + b"b"
        ),
        "ext1": Raw(b"\x82\x01" + run + b"R"),
        "ext4": Raw(b"\x84" + struct.pack("<i", 70000) + run + b"R"),
        "getattr": call("builtins", "eval", f"__import__('os').system({COMMAND!r})"),
        "in_a_list": Raw(b"](" + call("os", "system", COMMAND) + b"e"),
        "nested": call("builtins", "getattr", call("builtins", "__import__", "os"), "system"),
    }
    says = {
        "newobj": "subprocess.Popen",
        "newobj_ex": "subprocess.Popen",
        "build": "subprocess.Popen",
        "getattr": "builtins.eval",
        "nested": "builtins.getattr",
    }
    for kind, made in calls.items():
        case = f"hostile_code_{kind}"
        # A code of an extension has no name in the file; its key has.
        said = ["odd.value" if kind.startswith("ext") else says.get(kind, "os.system")]
        folder = cases.folder(case)
        (folder / "checkpoint.pt").write_bytes(
            saved({KEY: tensor(), "odd.value": made}, protocol=4)
        )
        cases.refused(case, "checkpoint.pt", "code", said, rest=GOOD)
    # The callable of a tensor's own hooks, and a state that is set on one.
    hooked = call(
        "torch._utils",
        "_rebuild_tensor_v2",
        *(storage(), 0, (2, 3), (3, 1), False, call("os", "system", COMMAND)),
    )
    folder = cases.folder("hostile_code_in_hooks")
    (folder / "checkpoint.pt").write_bytes(saved({KEY: hooked}))
    cases.refused(
        "hostile_code_in_hooks", "checkpoint.pt", "code", ["os.system"], rest={}, maybe=GOOD
    )
    folder = cases.folder("hostile_code_as_a_key")
    made = Raw(b"}(" + text(KEY) + tensor() + call("os", "system", COMMAND) + text("v") + b"u")
    (folder / "checkpoint.pt").write_bytes(saved(made))
    cases.refused("hostile_code_as_a_key", "checkpoint.pt", "code", ["os.system"], rest=GOOD)
    folder = cases.folder("hostile_code_after_stop")
    (folder / "checkpoint.pt").write_bytes(
        saved(document({KEY: tensor()}) + document(call("os", "system", COMMAND)))
    )
    cases.readable("hostile_code_after_stop", "checkpoint.pt", GOOD, note="nobody reads on")
    folder = cases.folder("hostile_stream")
    (folder / "checkpoint.pt").write_bytes(
        document(Raw(b"\x8a\x0a" + 0x1950A86A20F9469CFC6C.to_bytes(10, "little")))
        + document(1001)
        + document(call("os", "system", COMMAND))
        + document({"w": 1})
        + document(Raw(b"]"))
    )
    cases.refused("hostile_stream", "checkpoint.pt", "code")


def archives(cases):
    """Archives whose parts don't agree, or whose members lead elsewhere."""
    good = document({KEY: tensor()})

    def broken(case, data, why="corrupt", **fields):
        folder = cases.folder(case)
        (folder / "checkpoint.pt").write_bytes(data)
        cases.refused(case, "checkpoint.pt", why, **fields)

    def made(*members, pickle_data=good, **options):
        first = Member("archive/data.pkl", pickle_data)
        return archive([first, *members, Member("archive/version", b"3\n")], **options)

    for case, path in {
        "parent": "archive/data/../../../x",
        "absolute": "/etc/passwd",
        "backslash": "archive\\data\\..\\x",
    }.items():
        extra = Member(path, b"harm")
        folder = cases.folder(f"hostile_member_{case}")
        (folder / "checkpoint.pt").write_bytes(made(Member("archive/data/0", FLOATS), extra))
        cases.refused(
            f"hostile_member_{case}",
            "checkpoint.pt",
            "corrupt",
            rest=GOOD,
            note="a member that nothing asks for is of no concern, and none is ever unpacked",
        )
    out = document({KEY: tensor(of=storage("../../../../etc/hostname"))})
    broken("hostile_storage_name_parent", made(pickle_data=out))
    out = document({KEY: tensor(of=storage("/etc/hostname"))})
    broken("hostile_storage_name_absolute", made(pickle_data=out))
    broken(
        "hostile_storage_twice",
        made(Member("archive/data/0", FLOATS), Member("archive/data/0", FLOATS[::-1])),
        note="readers differ in which one they take",
    )
    broken(
        "hostile_pickle_twice",
        made(
            Member("archive/data.pkl", document({"v": tensor()})),
            Member("archive/data/0", FLOATS),
        ),
    )
    broken(
        "hostile_two_roots",
        made(
            Member("archive/data/0", FLOATS),
            Member("brchive/data.pkl", document({"v": tensor()})),
            Member("brchive/data/0", FLOATS),
        ),
        note="two archives in one: a scanner and a loader could take different ones",
    )
    for case, lies in {
        "central_larger": {"size": 240, "packed": 240, "local_size": 24},
        "central_smaller": {"size": 12, "packed": 12, "local_size": 24},
        "beyond_the_end": {"size": 1 << 20, "packed": 1 << 20},
        "huge": {"size": 1 << 62, "packed": 1 << 62},
        "at_the_end": {"at": 1 << 30},
        "at_overflow": {"at": 2**64 - 8, "zip64": True},
        "in_the_directory": {"at": 40},
        "other_local_name": {"local_path": "archive/data/1"},
        "encrypted": {"flags": 0x801},
        "unknown_method": {"method": 12},
    }.items():
        # Where what is needed is there, it may be given.
        harmless = {"rest": GOOD} if case in ("central_larger", "other_local_name") else {}
        broken(f"hostile_sizes_{case}", made(Member("archive/data/0", FLOATS, **lies)), **harmless)
    broken("hostile_count", made(Member("archive/data/0", FLOATS), count=60000))
    packed = archive(
        [
            Member("archive/data.pkl", good, method=8, size=len(good) + 1000),
            Member("archive/data/0", FLOATS),
        ]
    )
    broken("hostile_deflate_short", packed)
    bomb = document(Raw(text("a" * (4 << 20))))
    packed = archive([Member("archive/data.pkl", bomb, method=8), Member("archive/data/0", FLOATS)])
    broken("hostile_deflate_pickle_bomb", packed, "nothing")
    packed = made(Member("archive/data/0", bytes(1 << 20), method=8, size=24))
    broken("hostile_deflate_more_than_said", packed)
    broken("hostile_prefix", made(Member("archive/data/0", FLOATS), before=b"\x7fELF" + bytes(60)))
    broken("hostile_empty_file", b"")
    broken("hostile_end_record_only", b"PK\5\6" + bytes(18))


def tensors(cases):
    """Tensors that leave their storage, or whose numbers overflow."""
    long = 1 << 62
    for case, of in {
        "offset_beyond": tensor(offset=1),
        "offset_negative": tensor(offset=-1),
        "offset_huge": tensor(offset=2**64 + 3),
        "stride_beyond": tensor(stride=(4, 1)),
        "stride_negative": tensor(offset=5, stride=(-3, -1)),
        "stride_overflow": tensor(stride=(long, 1)),
        "stride_huge": tensor(shape=(2, 1), stride=(2**70, 1)),
        "shape_negative": tensor(shape=(2, -3)),
        "shape_overflow": tensor(shape=(1 << 32, 1 << 32), stride=(0, 0)),
        "shape_huge": tensor(shape=(2**63,), stride=(0,)),
        "shape_overflow_with_zero": tensor(shape=(long, long, 0), stride=(1, 1, 1)),
        "rank_differs": tensor(stride=(1,)),
        "shape_is_text": tensor(shape="ab"),
        "shape_is_true": tensor(shape=(True, 3)),
        "many_dimensions": tensor(shape=(1,) * 200, stride=(1,) * 200),
        "storage_longer_than_said": tensor(shape=(2, 2), stride=(2, 1), of=storage(numel=4)),
        "storage_shorter_than_said": tensor(shape=(60,), stride=(1,), of=storage(numel=60)),
        "storage_negative": tensor(of=storage(numel=-6)),
        "storage_huge": tensor(of=storage(numel=1 << 61)),
        "storage_missing": tensor(of=storage("7")),
        "storage_of_no_dtype": tensor(of=storage(kind="EvilStorage")),
        "storage_of_no_torch": tensor(of=storage(module="evil")),
        "storage_is_text": tensor(of=Raw(text("0"))),
    }.items():
        folder = cases.folder(f"hostile_tensor_{case}")
        (folder / "checkpoint.pt").write_bytes(saved({KEY: of}))
        maybe = {}
        if case == "storage_longer_than_said":
            maybe = {KEY: torch.tensor([[1.0, 2], [3, 4]])}
        # A warning that names the key is as good: nothing of it is given. An error may name the
        # storage instead.
        says = [] if case.startswith("storage") else [KEY]
        cases.refused(
            f"hostile_tensor_{case}", "checkpoint.pt", "corrupt", says, rest={}, maybe=maybe
        )
    expanded = tensor(shape=(1 << 40,), stride=(0,))
    folder = cases.folder("hostile_tensor_expanded_4_tib")
    (folder / "checkpoint.pt").write_bytes(saved({"w": expanded}))
    cases.expect(
        "hostile_tensor_expanded_4_tib",
        "checkpoint.pt",
        either=True,
        note="24 bytes that torch loads as a view of 4 TiB: opening costs nothing",
    )


def pickles(cases):
    """Pickles that are deep, cyclic, or long for their bytes."""

    def file(case, data, why="corrupt", **fields):
        folder = cases.folder(case)
        (folder / "checkpoint.pt").write_bytes(data if data[:2] == b"PK" else saved(data))
        if why == "readable":
            cases.readable(case, "checkpoint.pt", **fields)
        else:
            cases.refused(case, "checkpoint.pt", why, **fields)

    file("hostile_pickle_deep_tuples", b"\x80\2)" + b"\x85" * 5000 + STOP, "nothing")
    deep, inner = 1500, b"}h\0"
    key = text("a") + b"q\0" + b"0"
    folder = cases.folder("hostile_pickle_deep_tensor")
    under = saved(document(Raw(key + inner * deep + tensor() + b"s" * deep)))
    (folder / "checkpoint.pt").write_bytes(under)
    note = "a tensor under 1,500 dicts: read by its long key, or refused"
    cases.expect("hostile_pickle_deep_tensor", "checkpoint.pt", either=True, note=note)
    # d = {"w": tensor, "self": d}
    cycle = b"\x80\2}q\0(" + text(KEY) + tensor() + text("self") + b"h\0u" + STOP
    file("hostile_pickle_cycle", cycle, rest=GOOD)
    cycle = b"\x80\2]q\0h\0a" + STOP
    file("hostile_pickle_cycle_of_a_list", cycle, "nothing")
    # Lists of ten times the list before: 10^40 paths to a tensor.
    bomb = b"\x80\2]q\0" + tensor() + b"a"
    for level in range(40):
        bomb += b"0](" + (b"h" + bytes([level])) * 10 + b"e" + b"q" + bytes([level + 1])
    file("hostile_pickle_bomb_of_tensors", bomb + STOP, "limit")
    file("hostile_pickle_mark_missing", b"\x80\2}" + text("a") + b"u" + STOP)
    file("hostile_pickle_stack_empty", b"\x80\2s" + STOP)
    file("hostile_pickle_memo_missing", b"\x80\2h\7" + STOP)
    file("hostile_pickle_memo_huge", b"\x80\2}r" + struct.pack("<I", 2**32 - 1) + STOP, "nothing")
    file("hostile_pickle_no_stop", b"\x80\2}" + text("a") + tensor() + b"s")
    file("hostile_pickle_text_beyond", b"\x80\2X" + struct.pack("<I", 2**32 - 1) + b"a" + STOP)
    file("hostile_pickle_bytes_beyond", b"\x80\4\x8e" + struct.pack("<Q", 2**63) + STOP)
    file("hostile_pickle_long_beyond", b"\x80\2\x8b" + struct.pack("<i", 2**31 - 1) + STOP)
    file("hostile_pickle_long_negative", b"\x80\2\x8b" + struct.pack("<i", -1) + STOP)
    file(
        "hostile_pickle_frame_beyond",
        b"\x80\4\x95" + struct.pack("<Q", 2**63) + b"}" + STOP,
        "nothing",
    )
    file("hostile_pickle_unknown_opcode", b"\x80\2\xfe" + STOP)
    file("hostile_pickle_protocol_9", document({KEY: tensor()}, 9), rest=GOOD)
    file("hostile_pickle_bad_utf8", b"\x80\2}X\2\0\0\0\xff\xfe" + tensor() + b"s" + STOP)
    file("hostile_pickle_setitem_on_a_list", b"\x80\2]" + text("a") + tensor() + b"s" + STOP)
    file(
        "hostile_pickle_setitems_on_a_tensor",
        b"\x80\2" + tensor() + b"(" + text("a") + b"Nu" + STOP,
    )
    file("hostile_pickle_append_to_a_dict", b"\x80\2}" + tensor() + b"a" + STOP)
    file("hostile_pickle_odd_items", b"\x80\2}(" + text("a") + b"u" + STOP)
    odd = Raw(value(("storage",)) + b"Q")
    file("hostile_pickle_persistent_short", document({KEY: tensor(of=odd)}), says=[KEY], rest={})
    odd = Raw(value(("module", "os", "system")) + b"Q")
    file("hostile_pickle_persistent_module", document({KEY: tensor(of=odd)}), says=[KEY], rest={})
    file("hostile_pickle_empty", b"", "nothing")
    file("hostile_pickle_none", document(None), "nothing")
    file("hostile_pickle_number_lines", b"\x80\2I99999999999999999999999999\n" + STOP, "nothing")
    same = Raw(
        b"}(" + text(KEY) + tensor() + text(KEY) + tensor(offset=3, shape=(3,), stride=(1,)) + b"u"
    )
    file(
        "hostile_pickle_key_twice",
        document(same),
        "readable",
        tensors={KEY: torch.tensor([4.0, 5, 6])},
        note="a dict has the last, as in Python",
    )
    out = io.BytesIO()
    pickle.dump({"w": [1, 2, 3]}, out, 2)
    folder = cases.folder("hostile_bare_pickle")
    (folder / "checkpoint.pt").write_bytes(out.getvalue())
    cases.refused("hostile_bare_pickle", "checkpoint.pt", "nothing")


def streams(cases):
    """The stream before PyTorch 1.6, broken after its pickles."""
    view = Raw(value(("storage", Raw(name("torch", "FloatStorage")), "0", "cpu", 6, None)) + b"Q")
    magic = Raw(b"\x8a\x0a" + 0x1950A86A20F9469CFC6C.to_bytes(10, "little"))
    info = {"protocol_version": 1001, "little_endian": True}

    one = b"](" + text("0") + b"e"

    def made(body, keys=one):
        pickles = (magic, 1001, info, {KEY: tensor(of=view)})
        return b"".join(map(document, pickles)) + b"\x80\2" + keys + STOP + body

    def size(count):
        return struct.pack("<q", count)

    for case, data in {
        "length_beyond": made(size(1 << 40) + FLOATS),
        "length_huge": made(size(2**63 - 1) + FLOATS),
        "length_negative": made(size(-6) + FLOATS),
        "length_differs": made(size(5) + FLOATS),
        "cut": made(size(6) + FLOATS[:-1]),
        "cut_in_the_length": made(b"\6\0"),
        "key_missing": made(size(6) + FLOATS, keys=b"](" + text("1") + b"e"),
        "no_keys": made(size(6) + FLOATS, keys=b"]"),
        "keys_twice": made((size(6) + FLOATS) * 2, keys=b"](" + text("0") * 2 + b"e"),
        "keys_no_list": made(size(6) + FLOATS, keys=number(6)),
    }.items():
        folder = cases.folder(f"hostile_stream_{case}")
        (folder / "checkpoint.pt").write_bytes(data)
        # Where what is needed is there, it may be given.
        harmless = {"rest": GOOD} if case == "keys_twice" else {}
        cases.refused(f"hostile_stream_{case}", "checkpoint.pt", "corrupt", **harmless)
    folder = cases.folder("legacy_by_hand")
    (folder / "checkpoint.pt").write_bytes(made(size(6) + FLOATS))
    found = torch.load(folder / "checkpoint.pt", weights_only=True)
    assert torch.equal(found[KEY], GOOD[KEY])
    cases.readable("legacy_by_hand", "checkpoint.pt", GOOD, note="what the broken streams are of")


def make(cases):
    code(cases)
    archives(cases)
    tensors(cases)
    pickles(cases)
    streams(cases)

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bkrules.model import reapi

# Worked out from the wire format by hand: a key is `tag << 3 | wire type`, lengths and numbers are varints.
GOLDEN: list[tuple[str, reapi.Message, str]] = [
    ("Digest", {"hash": "ab", "size_bytes": 300}, "0a02 6162  10 ac02"),
    ("Digest", {"hash": "", "size_bytes": 0}, ""),
    ("Digest", {"size_bytes": 127}, "10 7f"),
    ("Digest", {"size_bytes": 128}, "10 8001"),
    ("Digest", {"size_bytes": (1 << 63) - 1}, "10 ffffffffffffffff7f"),
    (
        "Command",
        {
            "output_paths": ["x", ""],
            "working_directory": "w",
            "platform": {"properties": [{"name": "o"}]},
            "environment_variables": [{"name": "A", "value": "1"}],
            "arguments": ["go", "build"],
        },
        "0a02 676f  0a05 6275696c64  1206 0a0141 120131  2a05 0a03 0a016f  3201 77  3a01 78  3a00",
    ),
    (
        "FileNode",
        {"name": "ö", "digest": {"hash": "ab"}, "is_executable": True},
        "0a02 c3b6  1204 0a026162  20 01",
    ),
    ("FileNode", {"name": "f", "digest": {}, "is_executable": False}, "0a01 66  1200"),
    (
        "Action",
        {
            "command_digest": {"hash": "ab"},
            "input_root_digest": {"size_bytes": 1},
            "timeout": {"seconds": 5},
            "do_not_cache": True,
            "salt": b"bk/1",
            "platform": {"properties": [{"name": "o"}]},
        },
        "0a04 0a026162  1202 1001  3202 0805  38 01  4a04 626b2f31  5205 0a03 0a016f",
    ),
    (
        "OutputDirectory",
        {"path": "d", "tree_digest": {"size_bytes": 1}, "root_directory_digest": {"size_bytes": 2}},
        "0a01 64  1a02 1001  2a02 1002",
    ),
    (
        "ActionResult",
        {
            "output_files": [{"path": "f", "digest": {"size_bytes": 1}}],
            "exit_code": 1,
            "execution_metadata": {"worker": "w", "virtual_execution_duration": {"seconds": 1, "nanos": 500_000_000}},
        },
        "1207 0a0166 12021001  20 01  4a0d 0a0177 6208 0801 1080cab5ee01",
    ),
    (
        "CacheCapabilities",
        {"digest_functions": [1, 300], "max_batch_total_size_bytes": 5, "supported_compressors": []},
        "0a03 01 ac02  20 05",
    ),
    (
        "WriteRequest",
        {"resource_name": "r", "write_offset": 1, "finish_write": True, "data": b"x"},
        "0a0172 1001 1801 520178",
    ),
    ("ReadResponse", {"data": b"xy"}, "52027879"),
    (
        "Operation",
        {"name": "n", "metadata": {"type_url": "t", "value": b"\x08\x02"}, "done": True, "error": {"code": 5}},
        "0a016e 1207 0a0174 12020802 1801 22020805",
    ),
    (
        "ExecuteResponse",
        {"result": {"stdout_raw": b"o", "stderr_digest": {"size_bytes": 1}}, "cached_result": True, "message": "m"},
        "0a07 2a016f 42021001 1001 2a016d",
    ),
    ("ExecuteRequest", {"instance_name": "i", "skip_cache_lookup": True, "action_digest": {}}, "0a0169 1801 3200"),
    ("BatchRead", {"data": b"x", "status": {"code": 5}}, "120178 1a020805"),
    ("CreateBotSessionRequest", {"parent": "p", "bot_session": {"bot_id": "b"}}, "0a0170 1203 120162"),
    (
        "UpdateBotSessionRequest",
        {
            "name": "n",
            "bot_session": {
                "name": "n",
                "bot_id": "b",
                "status": 4,
                "worker": {
                    "devices": [{"handle": "h", "properties": [{"key": "k", "value": "v"}]}],
                    "configs": [{"key": "c", "value": "1"}],
                },
                "leases": [
                    {
                        "id": "i",
                        "state": 4,
                        "status": {"code": 14},
                        "result": {"type_url": "r"},
                        "payload": {"type_url": "p"},
                    }
                ],
                "version": "7",
            },
        },
        "0a016e 1237 0a016e 120162 1804 2215 0a0b 0a0168 1206 0a016b 120176 1a06 0a0163 120131"
        "2a13 1004 1a02 080e 3a0169 4203 0a0170 4a03 0a0172 3a0137",
    ),
]


def test_numbers_are_read_packed_or_not() -> None:
    for wire in ("0a03 01ac02", "0801 08ac02", "0a0101 08ac02"):
        assert reapi.decode("CacheCapabilities", bytes.fromhex(wire))["digest_functions"] == [1, 300]
    with pytest.raises(ValueError, match="too many numbers"):
        reapi.decode("CacheCapabilities", b"\x0a\x10" + bytes(16), most=10)
    with pytest.raises(ValueError, match="cut short"):
        reapi.decode("CacheCapabilities", bytes.fromhex("0a02 01ac"))


@pytest.mark.parametrize(("name", "message", "wire"), GOLDEN)
def test_golden_bytes(name: str, message: reapi.Message, wire: str) -> None:
    assert reapi.encode(name, message).hex() == wire.replace(" ", "")


def test_a_decoded_message_has_every_field() -> None:
    assert reapi.decode("Action", b"") == {
        "command_digest": None,
        "input_root_digest": None,
        "timeout": None,
        "do_not_cache": False,
        "salt": b"",
        "platform": None,
    }
    assert reapi.decode("Command", b"")["arguments"] == []


def of_kind(kind: str) -> st.SearchStrategy[Any]:
    if kind[0] == "*":
        return st.lists(of_kind(kind[1:]) if kind[1:] in reapi.SCALARS else messages(kind[1:]), max_size=3)
    scalars: dict[str, st.SearchStrategy[Any]] = {
        "s": st.text(max_size=200),
        "y": st.binary(max_size=200),
        "i": st.integers(0, (1 << 63) - 1),
        "b": st.booleans(),
    }
    return scalars[kind] if kind in scalars else st.none() | messages(kind)


def messages(name: str) -> st.SearchStrategy[reapi.Message]:
    return st.fixed_dictionaries({field: of_kind(kind) for field, kind in reapi.SCHEMA[name].values()})


@pytest.mark.parametrize("name", sorted(reapi.SCHEMA))
@settings(max_examples=30)
@given(data=st.data())
def test_every_message_survives_the_wire(name: str, data: st.DataObject) -> None:
    message = data.draw(messages(name))
    wire = reapi.encode(name, message)
    assert reapi.decode(name, wire) == message
    assert reapi.encode(name, dict(reversed(message.items()))) == wire


@given(name=st.text(), size=st.integers(0, (1 << 63) - 1))
def test_a_digest_has_the_bytes_of_its_message(name: str, size: int) -> None:
    assert reapi.encode_digest(name, size) == reapi.encode("Digest", {"hash": name, "size_bytes": size})


def test_a_negative_number_survives_the_wire() -> None:
    wire = reapi.encode("ActionResult", {"exit_code": -9})
    assert wire.hex() == "20f7ffffffffffffffff01"
    assert reapi.decode("ActionResult", wire)["exit_code"] == -9


def test_a_field_that_is_not_known_is_skipped() -> None:
    varint, fixed64, delimited, fixed32 = "7805", "7901020304050607 08", "7a0161", "7d01020304"
    wire = bytes.fromhex(varint + fixed64 + "0a02 6162" + delimited + fixed32)
    assert reapi.decode("Digest", wire) == {"hash": "ab", "size_bytes": 0}


def test_the_last_of_several_values_wins() -> None:
    assert reapi.decode("Digest", bytes.fromhex("1001 1002"))["size_bytes"] == 2


def test_a_field_that_a_message_lacks_cannot_be_encoded() -> None:
    with pytest.raises(KeyError, match="sizebytes"):
        reapi.encode("Digest", {"hash": "ab", "sizebytes": 1})


@pytest.mark.parametrize(
    "wire",
    [
        "0a",  # no length
        "0a03 6162",  # too short for its length
        "10 ff",  # a number without its end
        "10 ffffffffffffffffffff01",  # a number of more than 64 bits
        "0a ffffffffffffffff7f",  # a length of exabytes
        "80",  # a key without its end
        "09 01020304",  # half of a fixed64
        "08 01",  # a number where a string belongs
        "12 0161",  # a string where a number belongs
        "0d 01020304 05",  # four bytes, and a group's key after them
        "0b 0c",  # groups ended with protocol buffers 2
        "0e", "0f",  # wire types that nobody has defined
        "0a01 ff",  # not UTF-8
    ],
)  # fmt: skip
def test_what_is_not_a_digest_is_refused(wire: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        reapi.decode("Digest", bytes.fromhex(wire))


@pytest.mark.parametrize(("name", "wire"), [("FileNode", "1202 0a05"), ("ActionResult", "12 01 ff")])
def test_damage_deep_in_a_message_is_found(name: str, wire: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        reapi.decode(name, bytes.fromhex(wire))


@pytest.mark.parametrize("name", sorted(reapi.SCHEMA))
@settings(max_examples=30)
@given(data=st.data())
def test_garbage_raises_value_error_only(name: str, data: st.DataObject) -> None:
    wire = reapi.encode(name, data.draw(messages(name)))
    cut = data.draw(st.integers(0, len(wire)))
    garbage = wire[:cut] + data.draw(st.binary(max_size=20))
    with contextlib.suppress(ValueError):
        decoded = reapi.decode(name, garbage)
        assert decoded.keys() == {field for field, _ in reapi.SCHEMA[name].values()}

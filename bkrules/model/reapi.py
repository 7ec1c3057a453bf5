"""The Remote Execution API's messages on the wire, as far as bk needs them.

An action's digest is the digest of its encoded bytes, so the encoding is canonical: fields in the order of their
tags, defaults left out, repeated fields in the order given. Messages are dicts; a field's kind is `s` (string), `y` (bytes),
`i` (varint), `b` (bool) or a message's name, with `*` in front when it repeats; repeated numbers are packed. Source: the
protocol buffer definitions of build.bazel.remote.execution.v2, google.bytestream, google.longrunning and google.rpc.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bkrules.model.reapi_execution import EXECUTION
from bkrules.model.rwapi import BOTS

Message = dict[str, Any]
MOST_MESSAGES = 1 << 20

SCHEMA: dict[str, dict[int, tuple[str, str]]] = {
    **EXECUTION,
    **BOTS,
    "Digest": {1: ("hash", "s"), 2: ("size_bytes", "i")},
    "Duration": {1: ("seconds", "i"), 2: ("nanos", "i")},
    "Property": {1: ("name", "s"), 2: ("value", "s")},
    "Platform": {1: ("properties", "*Property")},
    "Command": {
        1: ("arguments", "*s"),
        2: ("environment_variables", "*Property"),
        5: ("platform", "Platform"),
        6: ("working_directory", "s"),
        7: ("output_paths", "*s"),
    },
    "Action": {
        1: ("command_digest", "Digest"),
        2: ("input_root_digest", "Digest"),
        6: ("timeout", "Duration"),
        7: ("do_not_cache", "b"),
        9: ("salt", "y"),
        10: ("platform", "Platform"),
    },
    "FileNode": {1: ("name", "s"), 2: ("digest", "Digest"), 4: ("is_executable", "b")},
    "DirectoryNode": {1: ("name", "s"), 2: ("digest", "Digest")},
    "Directory": {1: ("files", "*FileNode"), 2: ("directories", "*DirectoryNode")},
    "Tree": {1: ("root", "Directory"), 2: ("children", "*Directory")},
    "OutputFile": {1: ("path", "s"), 2: ("digest", "Digest"), 4: ("is_executable", "b")},
    "OutputDirectory": {1: ("path", "s"), 3: ("tree_digest", "Digest"), 5: ("root_directory_digest", "Digest")},
    "OutputSymlink": {1: ("path", "s"), 2: ("target", "s")},
    "ExecutedActionMetadata": {1: ("worker", "s"), 12: ("virtual_execution_duration", "Duration")},
    "ActionResult": {
        2: ("output_files", "*OutputFile"),
        3: ("output_directories", "*OutputDirectory"),
        4: ("exit_code", "i"),
        5: ("stdout_raw", "y"),
        6: ("stdout_digest", "Digest"),
        7: ("stderr_raw", "y"),
        8: ("stderr_digest", "Digest"),
        9: ("execution_metadata", "ExecutedActionMetadata"),
        10: ("output_file_symlinks", "*OutputSymlink"),
        11: ("output_directory_symlinks", "*OutputSymlink"),
        12: ("output_symlinks", "*OutputSymlink"),
    },
    "SemVer": {1: ("major", "i"), 2: ("minor", "i")},
    "GetCapabilitiesRequest": {1: ("instance_name", "s")},
    "ActionCacheUpdateCapabilities": {1: ("update_enabled", "b")},
    "CacheCapabilities": {
        1: ("digest_functions", "*i"),
        2: ("action_cache_update_capabilities", "ActionCacheUpdateCapabilities"),
        4: ("max_batch_total_size_bytes", "i"),
        6: ("supported_compressors", "*i"),
    },
    "ServerCapabilities": {
        1: ("cache_capabilities", "CacheCapabilities"),
        2: ("execution_capabilities", "ExecutionCapabilities"),
        4: ("low_api_version", "SemVer"),
        5: ("high_api_version", "SemVer"),
    },
    "GetActionResultRequest": {1: ("instance_name", "s"), 2: ("action_digest", "Digest")},
    "UpdateActionResultRequest": {
        1: ("instance_name", "s"),
        2: ("action_digest", "Digest"),
        3: ("action_result", "ActionResult"),
    },
    "FindMissingBlobsRequest": {1: ("instance_name", "s"), 2: ("blob_digests", "*Digest")},
    "FindMissingBlobsResponse": {2: ("missing_blob_digests", "*Digest")},
    "BatchUpdate": {1: ("digest", "Digest"), 2: ("data", "y")},
    "BatchUpdateBlobsRequest": {1: ("instance_name", "s"), 2: ("requests", "*BatchUpdate")},
    "BatchUpdated": {1: ("digest", "Digest"), 2: ("status", "Status")},
    "BatchUpdateBlobsResponse": {1: ("responses", "*BatchUpdated")},
    "BatchReadBlobsRequest": {1: ("instance_name", "s"), 2: ("digests", "*Digest")},
    "BatchRead": {1: ("digest", "Digest"), 2: ("data", "y"), 3: ("status", "Status"), 4: ("compressor", "i")},
    "BatchReadBlobsResponse": {1: ("responses", "*BatchRead")},
    "ReadRequest": {1: ("resource_name", "s"), 2: ("read_offset", "i")},
    "ReadResponse": {10: ("data", "y")},
    "WriteRequest": {
        1: ("resource_name", "s"),
        2: ("write_offset", "i"),
        3: ("finish_write", "b"),
        10: ("data", "y"),
    },
    "WriteResponse": {1: ("committed_size", "i")},
    "QueryWriteStatusRequest": {1: ("resource_name", "s")},
    "QueryWriteStatusResponse": {1: ("committed_size", "i"), 2: ("complete", "b")},
}


def encode(name: str, message: Message) -> bytes:
    """Return the canonical bytes of a message. Raises KeyError for an unknown field.

    A nested message may be given as its bytes, when those are known already.
    """
    known, fields = _FIELDS[name]
    if not message.keys() <= known:
        raise KeyError(f"{name} has no field {sorted(message.keys() - known)}")
    parts: list[bytes] = []
    for field, kind, repeats, start in fields:
        value = message.get(field)
        if value is None:
            continue
        if repeats and kind in "ib":
            if value:
                _add(parts, "y", start, b"".join(_varint(int(item)) for item in value))
        elif repeats:
            for item in value:
                _add(parts, kind, start, item)
        elif value or kind not in SCALARS:
            _add(parts, kind, start, value)
    return b"".join(parts)


def encode_digest(name: str, size: int) -> bytes:
    """Return the canonical bytes of a Digest, of which a key has many: the same as those of `encode`."""
    text = name.encode()
    start = b"\x0a" + _varint(len(text)) + text if text else b""
    return start + b"\x10" + _varint(size) if size else start


def decode(name: str, data: bytes, most: int = MOST_MESSAGES) -> Message:
    """Return the message in `data`, with every known field present. Raises ValueError when `data` is malformed.

    The message may contain at most `most` messages: an empty one takes two bytes on the wire and hundreds in memory.
    """
    return _decode(name, data, [most])


def _decode(name: str, data: bytes, left: list[int]) -> Message:
    left[0] -= 1
    if left[0] < 0:
        raise ValueError("it contains too many messages")
    schema = SCHEMA[name]
    message: Message = {field: _default(kind) for field, kind in schema.values()}
    for tag, value in _fields(data):
        if tag not in schema:
            continue
        field, kind = schema[tag]
        try:
            if kind == "*i" and isinstance(value, bytes):
                message[field] += _numbers(value, left)
            elif kind[0] == "*":
                message[field].append(_value(kind[1:], value, left))
            else:
                message[field] = _value(kind, value, left)
        except (TypeError, AttributeError, UnicodeDecodeError) as error:
            raise ValueError(f"{name}.{field} has the wrong wire type") from error
    return message


def _add(parts: list[bytes], kind: str, start: bytes, value: Any) -> None:
    """Add a field's tag and value."""
    if kind in "ib":
        parts += (start, _varint(int(value)))
        return
    body = (
        value.encode() if kind == "s" else bytes(value) if kind == "y" or type(value) is bytes else encode(kind, value)
    )
    parts += (start, _varint(len(body)), body)


def _varint(number: int) -> bytes:
    if 0 <= number < len(_SHORT):
        return _SHORT[number]
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


SCALARS = ("s", "y", "i", "b")
_SHORT = [bytes([number]) for number in range(128)]
_Field = tuple[str, str, bool, bytes]


def _compiled(schema: dict[int, tuple[str, str]]) -> tuple[set[str], list[_Field]]:
    """Return the names of a message's fields, and each with its kind, whether it repeats, and the bytes it starts with."""
    fields = []
    for tag, (field, kind) in sorted(schema.items()):
        plain = kind.removeprefix("*")
        fields.append((field, plain, kind != plain, _varint(tag << 3 | (0 if kind in "ib" else 2))))
    return {field for field, _ in schema.values()}, fields


_FIELDS = {name: _compiled(schema) for name, schema in SCHEMA.items()}


def _default(kind: str) -> Any:
    if kind[0] == "*":
        return []
    return {"s": "", "y": b"", "i": 0, "b": False}.get(kind)


def _value(kind: str, value: int | bytes, left: list[int]) -> Any:
    if kind in "ib":
        if not isinstance(value, int):
            raise TypeError
        return bool(value) if kind == "b" else value - (1 << 64) if value >> 63 else value
    if not isinstance(value, bytes):
        raise TypeError
    if kind in "sy":
        left[0] -= 1
        return value.decode() if kind == "s" else value
    return _decode(kind, value, left)


def _numbers(data: bytes, left: list[int]) -> list[int]:
    """Return packed numbers. Each counts as a message."""
    numbers, at = [], 0
    while at < len(data):
        left[0] -= 1
        if left[0] < 0:
            raise ValueError("it contains too many numbers")
        number, at = _read_varint(data, at)
        numbers.append(_value("i", number, left))
    return numbers


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        tag, wire = key >> 3, key & 7
        if not tag:
            raise ValueError("a field has the number 0")
        if wire == 0:
            number, at = _read_varint(data, at)
            yield tag, number
            continue
        if wire == 2:
            size, at = _read_varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire} is not one of protocol buffers 3")
        if at + size > len(data):
            raise ValueError("the message is cut short")
        yield tag, data[at : at + size]
        at += size


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("the message is cut short")
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number & (1 << 64) - 1, at
        shift += 7

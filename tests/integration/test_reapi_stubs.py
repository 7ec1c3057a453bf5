"""bk's codec is byte-equal with the stubs that the authors of the Remote Execution API publish, on any message."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bkrules.model import reapi
from bkrules.model.rwapi import BOTS

Official = Callable[[str, reapi.Message], bytes]
PACKAGE = "build.bazel.remote.execution.v2."
NAMES = {
    "Duration": "google.protobuf.Duration",
    "Property": f"{PACKAGE}Platform.Property",
    "SemVer": "build.bazel.semver.SemVer",
    "Any": "google.protobuf.Any",
    "Status": "google.rpc.Status",
    "Operation": "google.longrunning.Operation",
    "CancelOperationRequest": "google.longrunning.CancelOperationRequest",
    "BatchUpdate": f"{PACKAGE}BatchUpdateBlobsRequest.Request",
    "BatchUpdated": f"{PACKAGE}BatchUpdateBlobsResponse.Response",
    "BatchRead": f"{PACKAGE}BatchReadBlobsResponse.Response",
}
"""The full names of messages that are not simply in the package."""
BYTE_STREAM = {
    f"{method}{kind}" for method in ("Read", "Write", "QueryWriteStatus") for kind in ("Request", "Response")
}
"""Messages of another package, which a real server checks: `tests/integration/test_remote_cache.py`."""
ENUMS = ("compressor", "digest_function", "digest_functions", "stage", "supported_compressors")
SHORT = ("exit_code", "code", "major", "minor", *ENUMS)
"""Numbers of 32 bits."""
LONGEST = 315_576_000_000  # seconds of a Duration that JSON can say: 10,000 years


@pytest.fixture(scope="module")
def official(repository: Path) -> Iterator[Official]:
    """Encodes a message with the published stubs, in a command that bk builds from their Go module."""
    command = [sys.executable, "-I", "-m", "bkrules", "--nohome_rc", "build", "//tests/stubs:reapi"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    binary = repository / "bk-out/tests/stubs/reapi/reapi"
    with subprocess.Popen([binary], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        questions, answers = process.stdin, process.stdout

        def encode(name: str, message: reapi.Message) -> bytes:
            full = NAMES.get(name, PACKAGE + name)
            questions.write(f"{full} {json.dumps(as_json(name, message))}\n")
            questions.flush()
            return bytes.fromhex(answers.readline())

        yield encode
        questions.close()
    assert process.returncode == 0


def as_json(name: str, message: reapi.Message) -> Any:
    """A message in JSON's mapping of protocol buffers, which has its own ways for bytes and durations."""
    if name == "Duration":
        return f"{message.get('seconds', 0)}.{message.get('nanos', 0):09}s"
    if name == "Any":
        return {"@type": message["type_url"], "value": as_json("Duration", reapi.decode("Duration", message["value"]))}
    kinds = dict(reapi.SCHEMA[name].values())
    return {field: _value(kinds[field], value) for field, value in message.items()}


def _value(kind: str, value: Any) -> Any:
    if kind[0] == "*":
        return [_value(kind[1:], one) for one in value]
    if kind == "y":
        return base64.b64encode(value).decode()
    return value if kind in reapi.SCALARS else as_json(kind, value)


def messages(name: str) -> st.SearchStrategy[reapi.Message]:
    """Messages with any fields. JSON has the message inside of an Any, here always a Duration."""
    if name == "Any":
        values = messages("Duration").map(lambda value: reapi.encode("Duration", value))
        return st.fixed_dictionaries(
            {"type_url": st.just("type.googleapis.com/google.protobuf.Duration"), "value": values}
        )
    fields = {field: _of_kind(kind, field) for field, kind in reapi.SCHEMA[name].values()}
    if name == "Operation":  # it ends with an error or with a response
        return st.sampled_from(["error", "response"]).flatmap(
            lambda other: st.fixed_dictionaries({}, optional={key: fields[key] for key in fields if key != other})
        )
    return st.fixed_dictionaries({}, optional=fields)


def _of_kind(kind: str, field: str) -> st.SearchStrategy[Any]:
    if kind[0] == "*":
        return st.lists(_of_kind(kind[1:], field), max_size=3)
    short = (-(1 << 31), (1 << 31) - 1)
    numbers = {"seconds": (0, LONGEST), "nanos": (0, 10**9 - 1)}
    numbers |= dict.fromkeys(SHORT, short)
    scalars: dict[str, st.SearchStrategy[Any]] = {
        "s": st.text(max_size=200),
        "y": st.binary(max_size=200),
        "i": st.integers(*numbers.get(field, (-(1 << 63), (1 << 63) - 1))),
        "b": st.booleans(),
    }
    return scalars[kind] if kind in scalars else messages(kind)


@pytest.mark.parametrize("name", sorted(reapi.SCHEMA.keys() - BYTE_STREAM - BOTS.keys()))
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_any_message_has_the_bytes_of_the_published_stubs(name: str, data: st.DataObject, official: Official) -> None:
    message = data.draw(messages(name))

    wire = reapi.encode(name, message)

    assert wire == official(name, message)
    assert reapi.encode(name, reapi.decode(name, wire)) == wire

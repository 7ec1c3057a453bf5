"""An engine that attacks its clients: with results of another action, and with messages that no engine should send."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from grpc_servers import ABILITIES, GrpcServer, grpc_server
from spaces import Space

from bkrules.model import digest, reapi
from bkrules.model.action import to_message

WORKSPACE = """
from bkrules import genrule, host_binary, workspace
workspace(name = "test")
host_binary(name = "sh")
genrule(name = "one", outs = ["a/one"], tools = [":sh"], cmd = ["$(location :sh)", "-c", "echo 1 > $@"])
"""
DATA = b"what another action makes\n"
NOBODY = {"hash": "0" * 64, "size_bytes": 5}
TYPE = "type.googleapis.com/build.bazel.remote.execution.v2."


@pytest.fixture
def server() -> Iterator[GrpcServer]:
    with grpc_server() as found:
        found.abilities = {**ABILITIES, "execution_capabilities": {"exec_enabled": True}}
        yield found


def operation(value: bytes, **fields: object) -> bytes:
    response = {"type_url": f"{TYPE}ExecuteResponse", "value": value}
    return reapi.encode("Operation", {"name": "x", "done": True, "response": response, **fields})


def build(space: Space, server: GrpcServer, *messages: bytes) -> tuple[int, str]:
    """Build with an engine that answers with these operations. Return the exit code and the output."""

    def answer(method: str, _message: reapi.Message, _context: Any) -> Iterator[bytes] | None:
        return iter(messages) if method == "Execute" else None

    server.answer = answer
    space.write("WORKSPACE.py", WORKSPACE)
    done = space.bk("build", "//:one", f"--remote_executor={server.address}")
    said = done.stdout + done.stderr
    assert "Traceback" not in said
    assert "bug of bk" not in said
    assert "\x1b" not in said
    return done.returncode, said


def file(path: str, **fields: object) -> reapi.Message:
    return {"output_files": [{"path": path, "digest": to_message(digest.of_bytes(DATA))}], **fields}


FAILED = {"exit_code": 7}
RESULTS: dict[str, tuple[reapi.Message, int, str]] = {
    "nothing": ({}, 1, "it lacks the output out/a/one"),
    "another output": (file("out/other"), 1, "not the result of that action"),
    "an absolute path": (file("/etc/passwd"), 1, "not the result of that action"),
    "dots": (file("out/../out/a/one"), 1, "not the result of that action"),
    "a link": (file("out/a/one", output_symlinks=[{"path": "b", "target": "/"}]), 1, "is a symbolic link"),
    "the output twice": ({"output_files": file("out/a/one")["output_files"] * 2}, 1, "it has an output twice"),
    "an output without a digest": ({"output_files": [{"path": "out/a/one"}]}, 1, "a digest is missing"),
    "a blob that nobody has": (
        {"output_files": [{"path": "out/a/one", "digest": NOBODY}]},
        34,
        "lacks an output of it",
    ),
    "a failure": ({**FAILED, "stdout_raw": b"oh\x1b[2J"}, 1, "exit status 7"),
    "a failure that bk's runner tells": (
        {**FAILED, "stdout_raw": b"oh\x1b[2J\n", "stderr_raw": b"bk: the command \x1b]0;title\x07failed\n"},
        1,
        "//:one: the command ?]0;title?failed",
    ),
    "stderr that nobody has": ({**FAILED, "stderr_digest": NOBODY}, 1, "exit status 7"),
    "a huge stdout": ({**FAILED, "stdout_digest": {**NOBODY, "size_bytes": 1 << 50}}, 1, "(its stdout has"),
    "a stdout without a digest": ({**FAILED, "stdout_digest": {"hash": "../x", "size_bytes": 1}}, 34, "names no blob"),
    "a negative size": ({**FAILED, "stderr_digest": {**NOBODY, "size_bytes": -1}}, 34, "names no blob"),
}


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_that_is_none(space: Space, server: GrpcServer, name: str) -> None:
    result, code, text = RESULTS[name]
    server.held[digest.of_bytes(DATA).hash] = DATA
    found, said = build(space, server, operation(reapi.encode("ExecuteResponse", {"result": result})))
    assert (found, text in said) == (code, True), said
    assert not (space.root / "bk-out/one/a/one").exists()
    assert not list(space.cache.glob("ac/*/*"))


@pytest.mark.parametrize("data", [b"", DATA, DATA[:-1], DATA + b"!", bytes(len(DATA))])
def test_bytes_of_another_digest(space: Space, server: GrpcServer, data: bytes) -> None:
    server.held[digest.of_bytes(DATA).hash] = data
    found, said = build(space, server, operation(reapi.encode("ExecuteResponse", {"result": file("out/a/one")})))
    assert found == (0 if data == DATA else 34), said
    assert (space.root / "bk-out/one/a/one").exists() == (data == DATA)


MALFORMED = {
    "an operation": b"\x0a\xff",
    "a response": operation(b"\x0a\xff"),
    "a response that is a page": operation(b"<html>log in first</html>"),
    "a stage": operation(b"", metadata={"type_url": f"{TYPE}ExecuteOperationMetadata", "value": b"\x08"}),
    "a response with a million messages": operation(b"\x0a\x80\x80\xe8\x01" + b"\x12\x00" * 1_900_544),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_message_that_is_none(space: Space, server: GrpcServer, name: str) -> None:
    found, said = build(space, server, MALFORMED[name])
    assert found == 34, said
    assert f"remote executor {server.address}: it sends no valid " in said

"""The client of an engine, with an engine in this process that is silent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from grpc_servers import ABILITIES, grpc_server

from bkrules.cache import grpc_execute
from bkrules.cache.grpc_execute import Engine
from bkrules.cache.remote_options import ExecutorOptions, RemoteOptions
from bkrules.model import digest, reapi

SILENT = 4
"""The number of streams without a message; after three breaks, the client would execute the action once more."""


def test_silent_streams_are_no_breaks_of_an_engine_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """casd does not answer WaitExecution before the operation ends, and runs an action again that it is asked for again."""
    monkeypatch.setattr(grpc_execute, "SILENCE", 0.1)
    with grpc_server() as server:
        server.abilities = {**ABILITIES, "execution_capabilities": {"exec_enabled": True}}
        engine = Engine(ExecutorOptions(RemoteOptions(server.address), 1, 600.0))

        def silence(context: Any) -> Iterator[bytes]:
            while context.is_active() and not server.stopped.wait(0.05):
                continue
            yield from ()

        def begun(context: Any) -> Iterator[bytes]:
            engine.patience = 1.0  # of the next streams
            yield reapi.encode("Operation", {"name": "x"})
            yield from silence(context)

        def answer(method: str, _message: reapi.Message, context: Any) -> Iterator[bytes] | None:
            if method == "Execute":
                return begun(context)
            if method != "WaitExecution":
                return None
            if server.count("WaitExecution") <= SILENT:
                return silence(context)
            response = reapi.encode("ExecuteResponse", {"result": {"exit_code": 5}})
            return iter([reapi.encode("Operation", {"name": "x", "done": True, "response": {"value": response}})])

        server.answer = answer
        try:
            done = engine.execute(digest.of_bytes(b"an action"), 600.0, lambda _stage: None)
        finally:
            engine.close()
        assert done["result"]["exit_code"] == 5
        assert server.count("Execute") == 1

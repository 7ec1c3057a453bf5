"""A scheduler of the Remote Workers API in this process, which can be told to be wrong; and actions for its workers."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from bazel_remotes import Server
from grpc_servers import GrpcServer
from spaces import Space, wait_for

from bkrules.model import reapi, rwapi
from bkrules.model.digest import Digest

HELD = 1.0  # seconds for which the scheduler holds an answer back
_TYPES = "type.googleapis.com/build.bazel.remote.execution.v2."
_RULE = """
genrule(
    name = "{name}", srcs = ["one.txt"], outs = ["out"], tools = [":sh", ":sleep"], {more}
    cmd = ["$(location :sh)", "-c", {script!r}],
)
"""
WAITS = "echo begun; tools/sleep 8; echo waited > $@"
ENDLESS = "tools/sleep 100000"
_UNUSED = {"ledger", "root", "views"}
"""The folders that the folder of a run has from its begin."""
Answer = Callable[[str, reapi.Message, Any], bytes | None]


@dataclass
class Scheduler:
    """The leases that a worker is to have, by their ids, those that it has completed, and its requests so far.

    `answer` may answer a request itself; None leaves it to the scheduler.
    """

    address: str = ""
    leases: dict[str, reapi.Message] = field(default_factory=dict)
    completed: dict[str, reapi.Message] = field(default_factory=dict)
    sessions: list[reapi.Message] = field(default_factory=list)
    requests: list[tuple[str, reapi.Message]] = field(default_factory=list)
    metadata: list[dict[str, str]] = field(default_factory=list)
    closed: set[str] = field(default_factory=set)
    answer: Answer = lambda _method, _message, _context: None
    changed: threading.Condition = field(default_factory=threading.Condition)

    def lease(self, name: str, payload: reapi.Message) -> None:
        """Give a lease to the worker."""
        with self.changed:
            self.leases[name] = payload
            self.changed.notify_all()

    def cancel(self, name: str) -> None:
        """Take a lease from the worker."""
        with self.changed:
            del self.leases[name]
            self.changed.notify_all()

    def close(self) -> None:
        """Close the session of the worker."""
        with self.changed:
            self.closed.add(f"/{len(self.sessions)}")
            self.changed.notify_all()

    def outcome(self, name: str) -> reapi.Message:
        """Wait for a lease to be completed; return it."""
        wait_for(lambda: name in self.completed)
        return self.completed[name]

    def result(self, name: str) -> reapi.Message:
        """Wait for the result of a lease; return it."""
        lease = self.outcome(name)
        assert not lease["status"], lease
        assert lease["result"]["type_url"] == f"{_TYPES}ActionResult"
        return reapi.decode("ActionResult", lease["result"]["value"])

    def on_create(self, session: reapi.Message) -> reapi.Message:
        self.sessions.append(session)
        return {**session, "name": f"/{len(self.sessions)}", "version": "1"}

    def on_update(self, session: reapi.Message, context: Any) -> reapi.Message:
        told = {lease["id"]: lease for lease in session["leases"]}
        done = {name: lease for name, lease in told.items() if lease["state"] == rwapi.COMPLETED}
        with self.changed:
            self.completed |= done
            for name in done:
                self.leases.pop(name, None)

            def is_news() -> bool:
                return bool(done) or self.leases.keys() != told.keys() or session["name"] in self.closed

            self.changed.wait_for(is_news, HELD)
            if session["name"] in self.closed:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no such session")
            version = int(session["version"]) + 1
            leases = [{"id": name, "state": rwapi.ACTIVE, "payload": found} for name, found in self.leases.items()]
        return {**session, "leases": leases, "version": str(version)}

    def unary(self, method: str, data: bytes, context: Any) -> bytes:
        """The answer to a request."""
        message = reapi.decode(f"{method}Request", data)
        self.requests.append((method, message))
        self.metadata.append(dict(context.invocation_metadata()))
        found = self.answer(method, message, context)
        if found is not None:
            return found
        session = message["bot_session"]
        answer = self.on_create(session) if method == "CreateBotSession" else self.on_update(session, context)
        return reapi.encode("BotSession", answer)


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[misc] # grpcio has no types
    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def service(self, details: Any) -> Any:
        """The handler of a method, as grpcio asks for it."""
        method = details.method.removeprefix(rwapi.SERVICE)
        if method not in ("CreateBotSession", "UpdateBotSession"):
            return None
        return grpc.unary_unary_rpc_method_handler(lambda data, context: self._scheduler.unary(method, data, context))


@contextmanager
def served(scheduler: Scheduler, credentials: Any = None, port: int = 0) -> Iterator[Scheduler]:
    """Serve the scheduler on a port of the loopback, by default a free one."""
    server = grpc.server(ThreadPoolExecutor(16), (_Handlers(scheduler),), options=[("grpc.so_reuseport", 0)])
    if credentials is None:
        scheduler.address = f"grpc://127.0.0.1:{server.add_insecure_port(f'127.0.0.1:{port}')}"
    else:
        scheduler.address = f"grpcs://127.0.0.1:{server.add_secure_port(f'127.0.0.1:{port}', credentials)}"
    server.start()
    try:
        yield scheduler
    finally:
        server.stop(0).wait()


def write(space: Space, scripts: Mapping[str, str], more: str = "") -> None:
    """Give the workspace a genrule for each script. A script has sh and sleep, the file src/one.txt, and makes `$@`."""
    space.write("one.txt", "one\n")
    rules = "".join(_RULE.format(name=name, script=script, more=more) for name, script in scripts.items())
    tools = "\n".join(f'host_binary(name = "{name}")' for name in ("sh", "sleep"))
    space.write(
        "WORKSPACE.py",
        f"from bkrules import genrule, host_binary, workspace\nworkspace(name = 'test')\n{tools}\n{rules}",
    )


def send(space: Space, server: Server | GrpcServer) -> dict[str, Digest]:
    """Send the actions of the workspace to the cache. Return their digests by the names of their targets."""
    words = ["--json", f"--remote_cache={server.url}", f"--disk_cache={space.cache}"]
    done = space.bk("cache", "push", "//:all", "--actions", *words)
    assert done.returncode == 0, done.stderr
    found = {}
    for action in json.loads(done.stdout)["actions"]:
        name, _, size = action["digest"].partition("/")
        found[action["label"].removeprefix("//:")] = Digest(name, int(size))
    return found


def payload(action: Digest) -> reapi.Message:
    """The payload of a lease that names its action."""
    value = reapi.encode("Digest", {"hash": action.hash, "size_bytes": action.size})
    return {"type_url": f"{_TYPES}Digest", "value": value}


def whole(action: bytes) -> reapi.Message:
    """The payload of a lease that contains its action."""
    return {"type_url": f"{_TYPES}Action", "value": action}


@dataclass
class Worker:
    """A `bk worker`, with its disk cache and its output."""

    process: subprocess.Popen[bytes]
    space: Space
    log: Path

    def says(self, text: str) -> bool:
        """Whether it has printed that."""
        return text in self.log.read_text()

    def runs(self, count: int = 1) -> bool:
        """Whether that many commands have begun."""
        logs = list(self.space.cache.glob("run/*/action-*/log"))
        return len(logs) == count

    def is_idle(self) -> bool:
        """Whether it runs nothing, and has a spare, as after a cell."""
        runs = self.space.cache.glob("run/*")
        return [set(next(os.walk(run), ("", [], []))[1]) for run in runs] == [_UNUSED]  # a run may end meanwhile

    def stop(self, number: int) -> int:
        """Send a signal; return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(300)


@contextmanager
def worker(
    folder: Path, words: Sequence[str], scheduler: str, cache: str, name: str = "worker", prefix: Sequence[str] = ()
) -> Iterator[Worker]:
    """A `bk worker` on an empty machine; `prefix` begins its command. It is killed at the end of the context, if it still runs."""
    root = folder / name
    root.mkdir()
    space = Space(root, root / "cache")
    addresses = [f"--scheduler={scheduler}", f"--remote_cache={cache}", f"--disk_cache={space.cache}", f"--name={name}"]
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        command = [*prefix, *space.command("worker", *addresses, *words)]
        process = subprocess.Popen(command, cwd=root, stdout=output, stderr=output)
    try:
        yield Worker(process, space, log)
    finally:
        process.kill()
        process.wait()

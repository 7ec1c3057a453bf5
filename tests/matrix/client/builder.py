"""Builds of a Dockerfile, and the images that they export: what the tests of this package share."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bkrules.testing.sandbox import Sandbox

BUSYBOX = "FROM docker.io/library/busybox:latest\n"
UNIQUE = "RUN cat /proc/sys/kernel/random/uuid > /unique\n"


@dataclass(frozen=True)
class Builder:
    """Builds Dockerfiles with one sandbox. Each output goes to a file or folder below `folder`."""

    sandbox: Sandbox
    folder: Path

    def __call__(
        self, dockerfile: str, *options: str, files: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Build; `files` are those of the context. Its progress is in `stderr`. Raises CommandFailed."""
        context = self.folder / "context"
        for path, text in {"Dockerfile": dockerfile, **(files or {})}.items():
            (context / path).parent.mkdir(parents=True, exist_ok=True)
            (context / path).write_text(text)
        local = [f"--local=context={context}", f"--local=dockerfile={context}"]
        return self.sandbox.run(["build", "--progress=plain", "--frontend=dockerfile.v0", *local, *options])

    def files(self, dockerfile: str, *options: str, files: Mapping[str, str] | None = None) -> Path:
        """Build, and the folder with what the image has."""
        out = self.folder / "out"
        self(dockerfile, *options, f"--output=type=local,dest={out}", files=files)
        return out

    def layout(self, dockerfile: str, *options: str, attributes: str = "", kind: str = "oci") -> Layout:
        """Build, and what was exported as an OCI layout; an archive of the kind `docker` is one too."""
        archive = self.folder / "image.tar"
        self(dockerfile, *options, f"--output=type={kind},dest={archive}{attributes}")
        return Layout.read(archive)


@dataclass(frozen=True)
class Layout:
    """An OCI layout: its index, and its blobs by digest."""

    index: Mapping[str, Any]
    blobs: Mapping[str, bytes]

    @classmethod
    def read(cls, archive: Path) -> Layout:
        """The layout in an archive."""
        with tarfile.open(archive) as tar:
            found = {member.name: read(tar, member.name) for member in tar if member.isfile()}
        blobs = {f"sha256:{name.rpartition('/')[2]}": data for name, data in found.items() if name.startswith("blobs/")}
        return cls(json.loads(found["index.json"]), blobs)

    def document(self, digest: str) -> dict[str, Any]:
        """A blob that is JSON."""
        document: dict[str, Any] = json.loads(self.blobs[digest])
        return document

    def manifest(self) -> dict[str, Any]:
        """The manifest of the image, which may be in an index with its attestations."""
        document = self.document(self.index["manifests"][0]["digest"])
        return document if "layers" in document else self.document(document["manifests"][0]["digest"])

    def config(self) -> dict[str, Any]:
        """The configuration of the image."""
        return self.document(self.manifest()["config"]["digest"])

    def layer(self, number: int) -> tarfile.TarFile:
        """A layer, opened."""
        digest = self.manifest()["layers"][number]["digest"]
        return tarfile.open(fileobj=io.BytesIO(self.blobs[digest]))


def exported(build: Builder, cache: str) -> str:
    """Build with this cache to fill, and forget it all; what a step wrote that writes something else whenever it runs."""
    written = (build.files(BUSYBOX + UNIQUE, f"--export-cache={cache},mode=max") / "unique").read_text()
    build.sandbox.run("prune --all")
    return written


def imported(build: Builder, cache: str) -> tuple[str, str]:
    """Build with this cache to read from; what the step wrote, and what buildctl said. All is forgotten afterwards."""
    out = build.folder / "out"
    said = build(BUSYBOX + UNIQUE, f"--import-cache={cache}", f"--output=type=local,dest={out}").stderr
    build.sandbox.run("prune --all")
    return (out / "unique").read_text(), said


def read(tar: tarfile.TarFile, name: str) -> bytes:
    """A file of an archive."""
    member = tar.extractfile(name)
    assert member is not None, name
    return member.read()

"""Exporters, as in BuildKit's client_test.go: testExportLocal, testOCIExporter, testBuildExportWithUncompressed and others."""

from __future__ import annotations

import hashlib
import json
import stat
import tarfile
from pathlib import Path

import pytest
from builder import BUSYBOX, Builder, Layout, read

from bkrules.testing.sandbox import Sandbox

HELLO = f"{BUSYBOX}RUN echo hello > /hello.txt\n"
ONLY_HELLO = f"""{BUSYBOX}RUN mkdir /out && echo hello > /out/hello.txt && chmod 0640 /out/hello.txt
FROM scratch
COPY --from=0 /out /
"""


def test_local_has_the_files(build: Builder) -> None:
    out = build.files(ONLY_HELLO)
    assert [path.name for path in out.iterdir()] == ["hello.txt"]
    assert (out / "hello.txt").read_text() == "hello\n"
    assert stat.S_IMODE((out / "hello.txt").stat().st_mode) == 0o640


def test_tar_has_the_files(build: Builder, tmp_path: Path) -> None:
    build(ONLY_HELLO, f"--output=type=tar,dest={tmp_path}/out.tar")
    with tarfile.open(tmp_path / "out.tar") as tar:
        assert tar.getnames() == ["hello.txt"]
        assert read(tar, "hello.txt") == b"hello\n"


@pytest.mark.requires("oci_exporter")
def test_oci_is_a_layout_whose_digests_are_right(build: Builder) -> None:
    layout = build.layout(HELLO)
    for digest, data in layout.blobs.items():
        assert f"sha256:{hashlib.sha256(data).hexdigest()}" == digest
    manifest = layout.manifest()
    assert manifest["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert layout.config()["os"] == "linux"
    assert len(manifest["layers"]) == len(layout.config()["rootfs"]["diff_ids"])
    with layout.layer(-1) as tar:
        assert read(tar, "hello.txt") == b"hello\n"


@pytest.mark.requires("oci_exporter")
def test_docker_is_an_archive_with_its_name(build: Builder, tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    build(HELLO, f"--output=type=docker,dest={archive},name=example.com/hello:1")
    with tarfile.open(archive) as tar:
        (image,) = json.loads(read(tar, "manifest.json"))
        assert image["RepoTags"] == ["example.com/hello:1"]
        assert json.loads(read(tar, image["Config"]))["architecture"]
        assert all(name in tar.getnames() for name in image["Layers"])


@pytest.mark.requires("oci_exporter")
def test_layers_are_compressed_as_asked(build: Builder) -> None:
    for kind, magic in {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd"}.items():
        layout = build.layout(HELLO, attributes=f",compression={kind},force-compression=true,oci-mediatypes=true")
        for layer in layout.manifest()["layers"]:
            assert layer["mediaType"] == f"application/vnd.oci.image.layer.v1.tar+{kind}"
            assert layout.blobs[layer["digest"]].startswith(magic)
    layout = build.layout(HELLO, attributes=",compression=uncompressed,force-compression=true")
    digests = [layer["digest"] for layer in layout.manifest()["layers"]]
    assert digests == layout.config()["rootfs"]["diff_ids"]


@pytest.mark.requires("oci_exporter")
def test_several_exports_of_one_build(build: Builder, tmp_path: Path) -> None:
    local, archive = tmp_path / "out", tmp_path / "image.tar"
    build(HELLO, f"--output=type=local,dest={local}", f"--output=type=oci,dest={archive}")
    assert (local / "hello.txt").read_text() == "hello\n"
    assert Layout.read(archive).manifest()["layers"]


@pytest.mark.requires("direct_push")
def test_what_was_pushed_can_be_built_upon(build: Builder, sandbox: Sandbox) -> None:
    name = f"{sandbox.new_registry()}/hello:1"
    build(HELLO, f"--output=type=image,name={name},push=true,registry.insecure=true")
    sandbox.run("prune --all")
    out = build.files(f"FROM {name}\nRUN cat /hello.txt > /again.txt\n")
    assert (out / "again.txt").read_text() == "hello\n"

"""Debian packages, fetched by the real apt from a source in a folder."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from debs import FORMAT, ar, deb, source, tar
from spaces import Space

pytestmark = pytest.mark.skipif(shutil.which("apt-get") is None, reason="there is no apt-get")

HELLO = b"#!/bin/sh\necho hello from a package > $1\n"
FILES = {"usr/bin/hello": HELLO, "etc/hello.conf": b"a = 1\n"}
OLD, NEW = deb(FILES), deb({"usr/bin/hello": b"another\n"})
HEAD = 'from bkrules import debian_package, genrule, host_binary, workspace\nworkspace(name = "test")\n'


@pytest.fixture
def apt(space: Space, tmp_path: Path) -> Space:
    """A workspace on a machine whose apt has two versions of `hello`, and whose lists are empty."""
    variables = source(tmp_path, {("hello", "1:1.0-1"): OLD, ("hello", "1:2.0-1"): NEW})
    return dataclasses.replace(space, environment=variables)


def rule(data: bytes = OLD, version: str = "1:1.0-1", files: Iterable[str] = ("usr/bin/hello",), more: str = "") -> str:
    pin = hashlib.sha256(data).hexdigest()
    pins = {f"linux-{machine}": pin for machine in ("x86_64", "aarch64")}
    return (
        f'{HEAD}debian_package(name = "hello", version = "{version}", sha256 = {pins}, files = {list(files)}, {more})\n'
    )


def test_a_package_is_fetched_once_and_its_files_are_tools(apt: Space, tmp_path: Path) -> None:
    text = rule() + 'host_binary(name = "sh")\ngenrule(name = "use", outs = ["out"], tools = [":hello", ":sh"], '
    text += 'cmd = ["$(location :sh)", "$(location :hello)", "$@"])\n'
    apt.write(
        "WORKSPACE.py",
        text + rule(files=FILES, more='package = "hello"').replace(HEAD, "").replace('"hello"', '"both"', 1),
    )
    before = {path: path.stat().st_mtime_ns for path in [Path("/var/lib/apt/lists"), Path("/var/cache/apt")]}

    first = apt.bk("build", "//:use", "//:hello", "//:both")
    (tmp_path / "sources.list").write_text("")
    (apt.root / "bk-out/hello/usr/bin/hello").unlink()
    second = apt.bk("build", "//:hello")

    assert first.returncode == 0, first.stdout + first.stderr
    assert (apt.root / "bk-out/use/out").read_text() == "hello from a package\n"
    assert {path: (apt.root / "bk-out/both" / path).read_bytes() for path in FILES} == FILES
    assert second.returncode == 0
    assert "1 cached" in second.stdout
    assert (apt.root / "bk-out/hello/usr/bin/hello").read_bytes() == HELLO
    assert {path: path.stat().st_mtime_ns for path in before} == before, "apt has written to this machine's folders"


def test_files_keep_their_modes_in_an_image(apt: Space) -> None:
    text = rule() + rule(files=["etc/hello.conf"], more='package = "hello"').replace(HEAD, "").replace(
        '"hello"', '"conf"', 1
    )
    apt.write(
        "WORKSPACE.py",
        text.replace("genrule", "image", 1) + 'image(name = "i", files = {"a": ":hello", "b": ":conf"})\n',
    )

    done = apt.bk("build", "//:i")

    assert done.returncode == 0, done.stdout + done.stderr
    blobs = (apt.root / "bk-out/i/layout/blobs/sha256").iterdir()
    (layer,) = (path for path in blobs if path.read_bytes().startswith(b"\x1f\x8b"))
    with tarfile.open(layer) as tar:
        assert {member.name: member.mode for member in tar} == {"a": 0o755, "b": 0o644}


def test_what_apt_does_not_have(apt: Space) -> None:
    wrong = {
        "unknown": rule(more='package = "nothing"'),
        "gone": rule(version="1:0.9-1", more='package = "hello"'),
        "other": rule(NEW, more='package = "hello"'),
        "lacking": rule(files=["usr/bin/hell"], more='package = "hello"'),
    }
    texts = [text.removeprefix(HEAD).replace('name = "hello"', f'name = "{name}"') for name, text in wrong.items()]
    apt.write("WORKSPACE.py", HEAD + "".join(texts))

    done = apt.bk("build", "//:all", "-k")

    assert done.returncode == 1
    for said in (
        "//:unknown: no source of apt on this machine has a package 'nothing'",
        "//:gone: no source of apt on this machine has version 1:0.9-1 of 'hello'",
        "it has 1:1.0-1, 1:2.0-1: pin one of them with its sha256",
        f"fetched: {hashlib.sha256(OLD).hexdigest()}",
        "it has no file 'usr/bin/hell'",
    ):
        assert said in done.stdout, done.stdout + done.stderr


def test_a_file_that_the_source_has_lost(apt: Space, tmp_path: Path) -> None:
    """Its lists still name it, as those of a mirror that is behind."""
    apt.write("WORKSPACE.py", rule())
    for path in (tmp_path / "pool").glob("*.deb"):
        path.unlink()
    done = apt.bk("build", "//:hello")
    assert done.returncode == 1
    assert "apt cannot fetch hello=1:1.0-1" in done.stdout


def test_a_machine_without_a_network(apt: Space, tmp_path: Path) -> None:
    """The error does not deny that there is such a package."""
    (tmp_path / "sources.list").write_text("deb [trusted=yes] http://127.0.0.1:1/debian ./\n")
    apt.write("WORKSPACE.py", rule())
    done = apt.bk("build", "//:hello")
    assert done.returncode == 1
    assert "no source of apt on this machine that answers has a package 'hello'" in done.stdout, done.stdout
    assert "these sources did not answer: 127.0.0.1:1" in done.stdout


def test_zstd(apt: Space, tmp_path: Path) -> None:
    if shutil.which("zstd") is None:
        pytest.skip("there is no zstd")
    packed = subprocess.run(["zstd", "-q", "-c"], input=tar(FILES), capture_output=True, check=True).stdout
    data = ar([FORMAT, ("control.tar.zst", b""), ("data.tar.zst", packed)])
    source(tmp_path, {("hello", "1:1.0-1"): data})
    apt.write("WORKSPACE.py", rule(data))

    done = apt.bk("build", "//:hello")

    assert done.returncode == 0, done.stdout + done.stderr
    assert (apt.root / "bk-out/hello/usr/bin/hello").read_bytes() == HELLO


def test_a_machine_without_apt(apt: Space) -> None:
    apt.write("WORKSPACE.py", rule())
    hidden = 'mount --bind /dev/null "$(command -v apt-get)" && exec "$@"'
    done = apt.bk("build", "//:hello", prefix=("unshare", "-m", "sh", "-c", hidden, "sh"))
    assert done.returncode == 36
    assert "this machine has no apt-get" in done.stdout + done.stderr

"""Images from registries: real ones, with and without passwords and TLS, and a proxy before one that misbehaves."""

from __future__ import annotations

import dataclasses
import json
import shutil
import socket
import subprocess
import sys
import tarfile
import urllib.request
from pathlib import Path

import pytest
import registries
from registries import FILES, NAME, Proxy, whole
from spaces import Space, wait_for

from bkrules.images import layout
from bkrules.images.storage import Tree
from bkrules.model import digest
from bkrules.model.reference import Reference

HEAD = "from bkrules import image, image_mirror, workspace\nworkspace(name = 'test')\n"


def targets(space: Space, address: str, more: str = "") -> None:
    name = f"{address}/{NAME}:1"
    space.write(
        "WORKSPACE.py",
        f"{HEAD}image(name = 'sample', reference = '{name}', {more})\n"
        "image_mirror(name = 'mirror', images = {'docker.io/library/sample:latest': ':sample'})\n",
    )


def test_a_reference_is_pinned_pulled_and_kept(proxy: Proxy, space: Space, tmp_path: Path) -> None:
    targets(space, proxy.address)
    unpinned = space.bk("build", "//:sample")
    assert unpinned.returncode == 1
    assert f"nothing says which digest {proxy.address}/{NAME}:1 has" in unpinned.stderr
    assert "bk mirror sync" in unpinned.stderr

    folder = tmp_path / "kept"
    done = space.bk("mirror", "sync", "--to", str(folder), f"--disk_cache={space.cache}")
    assert done.returncode == 0, done.stdout + done.stderr
    pins = json.loads((space.root / "bk.lock").read_text())["images"]
    assert list(pins) == [f"{proxy.address}/{NAME}:1"]
    tree = Tree(folder / "data")
    assert tree.tagged(Reference("docker.io", NAME, "latest")) == pins[f"{proxy.address}/{NAME}:1"]["digest"]
    assert len(whole(folder)) == 3

    assert space.bk("build", "//:sample").returncode == 0
    before = len(proxy.asked)
    again = space.bk("build", "//:mirror")
    assert "1 cached" in again.stdout
    assert len(proxy.asked) == before, "what is pinned and cached is not asked for"
    with registries.proxy(proxy.target) as elsewhere:
        other = json.loads((space.root / "bk.lock").read_text())
        other["images"] = {f"{elsewhere.address}/{NAME}:1": pins[f"{proxy.address}/{NAME}:1"]}
        (space.root / "bk.lock").write_text(json.dumps(other))
        targets(space, elsewhere.address)
        moved = space.bk("build", "//:mirror")
        assert "1 cached" in moved.stdout, "the same digest elsewhere is the same image"
        assert elsewhere.asked == []
    (space.root / "bk.lock").write_text(json.dumps({"version": 1, "images": pins}))
    targets(space, proxy.address)
    shutil.rmtree(space.root / "bk-out")
    (space.cache / "ac").rename(space.cache / "ac-away")
    assert space.bk("build", "//:sample").returncode == 0
    assert not [path for _, path, _ in proxy.asked[before:] if "/blobs/" in path], "its blobs were still there"


def test_a_moved_tag_is_an_error_with_both_digests(proxy: Proxy, store: Path, space: Space, tmp_path: Path) -> None:
    targets(space, proxy.address)
    name = f"{proxy.address}/{NAME}:1"
    cache = f"--disk_cache={space.cache}"
    assert space.bk("mirror", "sync", cache).returncode == 0
    assert space.bk("mirror", "verify", cache).stdout == "1 references, 0 blobs, 0 problems\n"
    old = Tree(store).tagged(Reference("x", NAME, "1"))
    new = registries.fill(store, f"{NAME}:1", registries.image(tmp_path / "other", {"b": b"2"}))

    for command in ("sync", "verify"):
        done = space.bk("mirror", command, cache)
        assert done.returncode == 1
        assert f"{name} was {old} and is {new}" in done.stdout + done.stderr
    assert space.bk("mirror", "sync", "--update", cache).returncode == 0
    assert json.loads((space.root / "bk.lock").read_text())["images"][name]["digest"] == new

    targets(space, proxy.address, f"digest = 'sha256:{'0' * 64}'")
    lost = space.bk("build", "//:sample")
    assert lost.returncode == 1
    assert f"{name} is {new} now, and sha256:{'0' * 64} is pinned" in lost.stdout


def test_a_damaged_mirror_is_found(host: str, tmp_path: Path, space: Space) -> None:
    folder = tmp_path / "kept"
    assert space.bk("mirror", "sync", f"{host}/{NAME}:1", "--to", str(folder)).returncode == 0
    assert "4 blobs, 0 problems" in space.bk("mirror", "verify", "--to", str(folder)).stdout.replace(
        "3 blobs", "4 blobs"
    )
    blobs = sorted(folder.rglob("data"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    blobs = [path for path in blobs if path.is_file()]
    blobs[-1].write_bytes(b"other")
    blobs[0].unlink()
    done = space.bk("mirror", "verify", "--to", str(folder))
    assert done.returncode == 1
    assert f"{NAME}:1: blob sha256:{blobs[-1].parent.name} has the digest" in done.stdout
    assert f"{NAME}:1: blob sha256:{blobs[0].parent.name} is missing" in done.stdout
    blobs[0].mkdir()
    (link,) = folder.rglob("current/link")
    done = space.bk("mirror", "verify", "--to", str(folder))
    assert f"{NAME}:1: blob sha256:{blobs[0].parent.name} is no file" in done.stdout
    link.write_text("sha256:../../../../etc/hostname")
    done = space.bk("mirror", "verify", "--to", str(folder))
    assert (done.returncode, f"{NAME}:1: its link is not a digest" in done.stdout) == (1, True)


def test_references_are_copied_side_by_side(host: str, store: Path, tmp_path: Path, space: Space) -> None:
    for number in range(2, 6):
        registries.fill(
            store, f"{NAME}:{number}", registries.image(tmp_path / f"i{number}", {"n": str(number).encode()})
        )
    names = [f"{host}/{NAME}:{number}" for number in range(1, 6)]
    done = space.bk("mirror", "sync", *names, "--to", str(tmp_path / "kept"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("5 images, 3 MiB copied")
    assert (
        space.bk("mirror", "sync", *names, "--to", str(tmp_path / "kept"))
        .stdout.splitlines()[-1]
        .startswith("5 images, 0 MiB copied")
    )
    assert whole(tmp_path / "kept") == whole(store)


def test_what_has_not_moved_is_asked_for_once(proxy: Proxy, store: Path, tmp_path: Path, space: Space) -> None:
    """One HEAD says that all is there; what is lost, or has moved, is fetched."""
    registries.fill(store, "other/image:2", registries.image(tmp_path / "i", {"n": b"2"}))
    command = ["mirror", "sync", f"{proxy.address}/{NAME}:1", f"{proxy.address}/other/image:2", f"--to={tmp_path}/kept"]
    first = space.bk(*command)

    def again() -> tuple[str, list[tuple[str, str]]]:
        before = len(proxy.asked)
        done = space.bk(*command)
        assert done.returncode == 0, done.stderr
        return done.stdout, [(method, path.rpartition("/")[0]) for method, path, _ in proxy.asked[before:]]

    said, asked = again()
    assert said.splitlines()[:2] == first.stdout.splitlines()[:2]
    assert sorted(asked) == [("HEAD", f"/v2/{NAME}/manifests"), ("HEAD", "/v2/other/image/manifests")]

    lost = max(
        (path for path in (tmp_path / "kept").rglob("data") if path.is_file()), key=lambda path: path.stat().st_size
    )
    lost.unlink()
    said, asked = again()
    assert "3 MiB copied" in said
    assert [path for _, path in asked if "/blobs" in path] == [f"/v2/{NAME}/blobs"]

    new = registries.fill(store, "other/image:2", registries.image(tmp_path / "j", {"n": b"3"}))
    said, asked = again()
    assert f"{proxy.address}/other/image:2 {new}" in said
    assert {path for _, path in asked if "/blobs" in path} == {"/v2/other/image/blobs"}
    assert whole(tmp_path / "kept") > {new}


@pytest.mark.parametrize("status", [401, 500, 404])
def test_what_is_not_plain_is_left_to_the_client(proxy: Proxy, tmp_path: Path, space: Space, status: int) -> None:
    command = ["mirror", "sync", f"{proxy.address}/{NAME}:1", f"--to={tmp_path}/kept"]
    assert space.bk(*command).returncode == 0
    before = len(proxy.asked)
    proxy.answer = lambda request: len(proxy.asked) == before + 1 and request.reply(status)
    done = space.bk(*command)
    assert done.stdout.splitlines()[-1].startswith("1 images, 0 MiB copied"), done.stderr
    assert ("GET", f"/v2/{NAME}/manifests/1") in [(method, path) for method, path, _ in proxy.asked[before + 1 :]]


def test_to_ask_imports_no_client(host: str, tmp_path: Path, space: Space) -> None:
    command = ["mirror", "sync", f"{host}/{NAME}:1", f"--to={tmp_path}/kept"]
    code = f"import sys, bkrules.cli as c; c.main({command}); print(*sys.modules)"
    for cold in (True, False):
        done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
        assert ("bkrules.web.client" in done.stdout.split()) == cold
        assert {"bkrules.rules", "bkrules.plugin", "bkrules.loading.graph"}.isdisjoint(done.stdout.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sync", "busybox"], "'busybox' is not a full reference"),
        (["sync", "a.example/b:1"], "--to says where references are copied to"),
        (["verify", "a.example/b:1"], "is not a target pattern"),
        (["serve", "//:nothing"], "//:nothing"),
    ],
)
def test_wrong_usage(space: Space, words: list[str], said: str) -> None:
    environment = {"BUILDKIT_REGISTRY_MIRROR_DIR": ""}
    done = dataclasses.replace(space, environment=environment).bk("mirror", *words)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr


def test_an_archive_is_an_image(space: Space, tmp_path: Path) -> None:
    registries.image(tmp_path / "layout", FILES)
    subprocess.run(["tar", "-cf", space.root / "oci.tar", "-C", tmp_path / "layout", "."], check=True)
    docker_archive(tmp_path / "layout", space.root / "docker.tar")
    (space.root / "bad.tar").write_bytes(b"no archive")
    text = "".join(f"image(name = '{name}', archive = '{name}.tar')\n" for name in ("oci", "docker", "bad"))
    space.write("WORKSPACE.py", HEAD + text)
    for name in ("oci", "docker"):
        done = space.bk("build", f"//:{name}")
        assert done.returncode == 0, done.stdout + done.stderr
        folder = space.root / f"bk-out/{name}/layout"
        assert len(list((folder / "blobs/sha256").iterdir())) == 3
        for path in (folder / "blobs/sha256").iterdir():
            assert digest.of_file(path).hash == path.name
    done = space.bk("build", "//:bad")
    assert done.returncode == 1
    assert "//:bad: the archive holds no image: it is not a tar file" in done.stdout


def docker_archive(folder: Path, archive: Path) -> None:
    """The image of a layout as `docker save` of old wrote it."""
    config, layer = layout.read_manifest(folder).blobs
    blobs = folder / "blobs/sha256"
    listed = [{"Config": "config.json", "RepoTags": ["sample:1"], "Layers": ["a/layer.tar"]}]
    (folder.parent / "manifest.json").write_text(json.dumps(listed))
    with tarfile.open(archive, "w") as tar:
        tar.add(blobs / config.digest.hash, "config.json")
        tar.add(blobs / layer.digest.hash, "a/layer.tar")
        tar.add(folder.parent / "manifest.json", "manifest.json")


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ("reference = 'busybox'", "'busybox' is not a full reference"),
        (
            "reference = 'a.example/b:1', digest = 'x'",
            "'digest' 'x' is no digest; one is 'sha256:' and 64 hexadecimal digits",
        ),
        ("reference = 'a.example/b:1', files = {'a': 'WORKSPACE.py'}", "'files' does not go with 'reference'"),
        ("reference = 'a.example/b:1', archive = 'WORKSPACE.py'", "'archive' does not go with 'reference'"),
        ("digest = 'sha256:1'", "'digest' goes with 'reference' alone"),
        (f"reference = 'a.example/b:1', digest = 'sha256:{'0' * 64}', platform = 'arm64'", "'arm64' is no platform"),
        ("archive = 'not-there.tar'", "not-there.tar"),
    ],
)
def test_a_rule_that_makes_no_sense(space: Space, attributes: str, said: str) -> None:
    space.write("WORKSPACE.py", f"{HEAD}image(name = 'i', {attributes})\n")
    done = space.bk("build", "//:i")
    assert done.returncode == 1
    assert said in done.stderr
    assert "WORKSPACE.py:3" in done.stderr


def test_a_lock_that_makes_no_sense(space: Space) -> None:
    targets(space, "a.example")
    space.write("bk.lock", '{"version": 7}')
    done = space.bk("build", "//:sample")
    assert done.returncode == 1
    assert "bk.lock cannot be read: its version is 7, and this bk reads 1" in done.stderr


def test_a_mirror_is_served(tools: Space, host: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = tools.command("mirror", "serve", "//targets:mirror", f"--port={port}", f"--disk_cache={tools.cache}")
    log = tools.root / "serve.log"
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=tools.root, stdout=output, stderr=output)
    try:
        place = f"http://127.0.0.1:{port}/v2/library/busybox/tags/list"

        def served() -> bool:
            assert process.poll() is None, log.read_text()
            try:
                with urllib.request.urlopen(place, timeout=5) as answer:
                    return set(json.load(answer)["tags"]) == {"esgz", "latest"}
            except OSError:
                return False

        wait_for(served)
    finally:
        process.send_signal(2)
        assert process.wait(10) == 0
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=5)

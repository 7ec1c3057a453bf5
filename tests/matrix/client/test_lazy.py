"""What lazy pulling promises, on every way to have it, with eager workers and plain gzip layers as the control.

`bulk` has two layers of 6 MiB, each of six files that do not compress. test_lazy_pull of //tests/matrix:test_stargz.py counts the
bytes of a build that reads one of them.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import tarfile
from pathlib import Path

import pytest
import requests
from builder import UNIQUE, Builder, Layout
from lazy import fetched, image, is_lazy, layers, lazy_mounts, stored, wait

from bkrules.testing.sandbox import Sandbox

ODD = """FROM docker.io/library/busybox:latest
RUN mkdir -p /odd/empty /odd/gone && echo 1 > /odd/file && echo 2 > /odd/other && echo 3 > /odd/gone/inner
RUN cp /odd/file "/odd/a name" && rm /odd/other && rm -rf /odd/gone && mkdir /odd/gone && echo 4 > /odd/gone/new
FROM scratch
COPY --from=0 /odd /odd
COPY --from=0 --chown=1000:2000 --chmod=4751 /odd/file /theirs
COPY --from=0 /bin/sh /bin/
"""


def test_each_layer_is_one_mount(build: Builder, sandbox: Sandbox) -> None:
    build(f"FROM {image(sandbox)}\nRUN echo hello > /hello\n")
    assert len(lazy_mounts()) == (len(layers(sandbox)) if is_lazy(sandbox) else 0)
    if sandbox.containerd_address:
        labelled = [key for key, labels in snapshots(sandbox).items() if "containerd.io/snapshot/remote" in labels]
        assert len(labelled) == len(lazy_mounts()), labelled


def snapshots(sandbox: Sandbox) -> dict[str, dict[str, str]]:
    """The snapshots that containerd has, with their labels."""
    address = ("--address", sandbox.containerd_address, "--namespace", "buildkit")
    command = ["ctr", *address, "snapshots", "--snapshotter", sandbox.snapshotter]
    listed = subprocess.run([*command, "ls"], capture_output=True, text=True, check=True).stdout.splitlines()[1:]
    found = {}
    for key in (line.split()[0] for line in listed):
        told = subprocess.run([*command, "info", key], capture_output=True, text=True, check=True).stdout
        found[key] = json.loads(told).get("Labels") or {}
    return found


def test_the_content_store_has_what_was_made_and_not_what_is_lazy(build: Builder, sandbox: Sandbox) -> None:
    incomplete = "store=true,unsafe-internal-store-allow-incomplete=true"
    build(
        f"FROM {image(sandbox)}\nRUN echo hello > /hello\n", f"--output=type=image,name=example.com/made:1,{incomplete}"
    )
    assert (layers(sandbox).keys() & stored() == set()) == is_lazy(sandbox)
    made = [path for path in stored().values() if has_hello(path)]
    assert len(made) == 1


def has_hello(path: Path) -> bool:
    try:
        with tarfile.open(path) as tar:
            return "hello" in tar.getnames()
    except tarfile.ReadError:
        return False  # a manifest or a configuration


def test_the_snapshotter_says_what_it_has_fetched(build: Builder, sandbox: Sandbox) -> None:
    """Each lazy layer shows its state as a file; the mirror's count is the referee."""
    steps = "RUN shasum /data/03.bin > /sum\nRUN mkdir /states && cp /.stargz-snapshotter/*.json /states/ || true\n"
    shown = build.files(f"FROM {image(sandbox)}\n{steps}FROM scratch\nCOPY --from=0 /states /states\n")
    states = [json.loads(path.read_text()) for path in (shown / "states").glob("*")]
    found = {state["digest"]: state for state in states}
    if not is_lazy(sandbox):
        assert found == {}
        assert fetched(sandbox) >= sum(layers(sandbox).values())
        return
    assert found.keys() == layers(sandbox).keys()
    for digest, size in layers(sandbox).items():
        assert found[digest]["size"] == size
        assert 0 < found[digest]["fetchedSize"] <= fetched(sandbox, digest) < size


@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_an_export_brings_every_byte_and_none_changes(build: Builder, sandbox: Sandbox, kind: str) -> None:
    layout = build.layout(f"FROM {image(sandbox)}\nRUN echo hello > /hello\n", kind=kind)
    digests = [layer["digest"] for layer in layout.manifest()["layers"]]
    assert digests[:-1] == list(layers(sandbox))
    for digest in digests:
        assert f"sha256:{hashlib.sha256(layout.blobs[digest]).hexdigest()}" == digest
    assert layers(sandbox).keys() <= stored().keys()


def test_an_export_of_files_has_every_file(build: Builder, sandbox: Sandbox) -> None:
    """Each is read through the mount, and is what the image's own layers say."""
    own = {}
    for digest in layers(sandbox):
        name = image(sandbox).rpartition(":")[0].partition("/")[2]
        answer = requests.get(f"http://{sandbox.mirror}/v2/{name}/blobs/{digest}", timeout=60)
        with tarfile.open(fileobj=io.BytesIO(answer.content)) as tar:
            for member in tar:
                if member.isfile() and "stargz" not in member.name and "landmark" not in member.name:
                    data = tar.extractfile(member)
                    assert data is not None
                    own[member.name.removeprefix("./")] = hashlib.sha256(data.read()).hexdigest()
    out = build.files(f"FROM {image(sandbox)}\n")
    shown = {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in out.rglob("*")
        if path.is_file() and not path.is_symlink()
    }
    assert shown == own
    assert len([name for name in shown if name.startswith("data/")]) == 12


def test_a_push_to_the_registry_of_the_base_leaves_it_lazy(build: Builder, sandbox: Sandbox) -> None:
    registry = sandbox.new_registry()
    push = "push=true,store=false,registry.insecure=true,oci-mediatypes=true"
    build(f"FROM {image(sandbox)}\n", f"--output=type=image,name={registry}/base:1,{push}")
    sandbox.run("prune --all")
    wait(lambda: not layers(sandbox).keys() & stored(), "pruned blobs are still there")

    build(f"FROM {registry}/base:1\nRUN echo hello > /hello\n", f"--output=type=image,name={registry}/made:1,{push}")

    assert (layers(sandbox).keys() & stored() == set()) == is_lazy(sandbox)
    accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    pushed = requests.get(f"http://{registry}/v2/made/manifests/1", headers=accept, timeout=10).json()
    assert [layer["digest"] for layer in pushed["layers"]][:-1] == list(layers(sandbox))
    for layer in pushed["layers"]:
        assert requests.head(f"http://{registry}/v2/made/blobs/{layer['digest']}", timeout=10).status_code == 200


@pytest.mark.parametrize("kind", ["local", "registry", "inline"])
def test_a_cached_step_stays_cached_and_its_base_lazy(build: Builder, sandbox: Sandbox, kind: str) -> None:
    """In the build cache, or when that was emptied, in one that was exported: its layers, the step's too, are lazy then."""
    name = f"{sandbox.new_registry()}/cache:1"
    layered = (
        "compression=estargz,force-compression=true,oci-mediatypes=true" if is_lazy(sandbox) else "compression=gzip"
    )
    export = {
        "local": [],
        "registry": [f"--export-cache=type=registry,ref={name},mode=max,image-manifest=true,{layered}"],
        "inline": ["--export-cache=type=inline", f"--output=type=image,name={name},push=true,store=false,{layered}"],
    }[kind]
    step, last = f"FROM {image(sandbox)}\n{UNIQUE}", "FROM scratch\nCOPY --from=0 /unique /\n"
    first = (build.files(step + last) / "unique").read_text()
    build(step, *export)
    if export:
        sandbox.run("prune --all")
        wait(lambda: not lazy_mounts() and not layers(sandbox).keys() & stored(), "pruned layers are still there")
    there = [f"--import-cache=type=registry,ref={name}"] if export else []

    again = build.files(f"{step}RUN cat /data/03.bin > /read\n{last}", *there)

    assert (again / "unique").read_text() == first
    assert len(lazy_mounts()) == (len(layers(sandbox)) + len(there) if is_lazy(sandbox) else 0)
    assert not is_lazy(sandbox) or not layers(sandbox).keys() & stored()


def test_the_tree_is_that_of_the_eager_image(build: Builder, sandbox: Sandbox) -> None:
    """Modes, owners, links, deleted files: an image of each kind is made, forgotten, and exported from the registry."""
    registry = sandbox.new_registry()
    trees = {}
    for kind in ("gzip", "estargz"):
        name = f"{registry}/odd:{kind}"
        push = f"push=true,store=false,registry.insecure=true,oci-mediatypes=true,compression={kind},force-compression=true"
        build(ODD, f"--output=type=image,name={name},{push}")
        sandbox.run("prune --all")
        archive = build.folder / f"{kind}.tar"
        build(f"FROM {name}\n", f"--output=type=tar,dest={archive}")
        with tarfile.open(archive) as tar:
            trees[kind] = {
                member.name: (
                    member.mode,
                    member.uid,
                    member.gid,
                    member.type,
                    member.linkname,
                    member.size,
                    content(tar, member),
                )
                for member in tar
            }
    assert trees["estargz"] == trees["gzip"]
    assert trees["gzip"]["theirs"][:3] == (0o4751, 1000, 2000)
    assert trees["gzip"]["odd/gone/new"]
    assert not {"odd/other", "odd/gone/inner"} & trees["gzip"].keys()


def content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    data = tar.extractfile(member) if member.isfile() else None
    return hashlib.sha256(data.read()).hexdigest() if data else ""


def test_layers_made_as_estargz_say_how_they_are_verified(build: Builder) -> None:
    attributes = ",compression=estargz,force-compression=true,oci-mediatypes=true"
    layout: Layout = build.layout(
        "FROM docker.io/library/busybox:latest\nRUN echo hello > /hello\n", attributes=attributes
    )
    for layer in layout.manifest()["layers"]:
        assert re.fullmatch(r"sha256:[0-9a-f]{64}", layer["annotations"]["containerd.io/snapshot/stargz/toc.digest"])
        assert int(layer["annotations"]["io.containers.estargz.uncompressed-size"]) > 0


def test_another_table_of_contents_is_refused(build: Builder, sandbox: Sandbox) -> None:
    """The digest of the table is in the manifest. With another one the layer is not mounted, and the build pulls it whole."""
    registry = sandbox.new_registry()
    push = "push=true,store=false,registry.insecure=true,oci-mediatypes=true"
    build(f"FROM {image(sandbox)}\n", f"--output=type=image,name={registry}/base:1,{push}")
    media = "application/vnd.oci.image.manifest.v1+json"
    place = f"http://{registry}/v2/base/manifests"
    manifest = requests.get(f"{place}/1", headers={"Accept": media}, timeout=10).json()
    for layer in manifest["layers"]:
        name = "containerd.io/snapshot/stargz/toc.digest"
        if name in layer.get("annotations", {}):
            layer["annotations"][name] = f"sha256:{'0' * 64}"
    put = requests.put(f"{place}/2", data=json.dumps(manifest), headers={"Content-Type": media}, timeout=10)
    assert put.status_code == 201, put.text
    sandbox.run("prune --all")
    wait(lambda: not lazy_mounts(), "pruned layers are still mounted")

    build(f"FROM {registry}/base:2\nRUN echo hello > /hello\n")

    assert lazy_mounts() == set()
    assert layers(sandbox).keys() & stored()

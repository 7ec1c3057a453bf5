"""Extended attributes of files, as a step of a build sees them: the same in layers of each kind, on every worker.

The layer is made here, with attributes in PAX records: BuildKit itself writes none into layers but capabilities.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import tarfile
from typing import Any

import requests
from builder import Builder
from lazy import lazy_mounts, wait

from bkrules.plugin.host import goarch
from bkrules.testing.sandbox import Sandbox

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CAPABILITY = bytes([1, 0, 0, 2, 0, 4, *[0] * 14])
"""cap_net_bind_service, permitted and effective, as linux/capability.h lays out revision 2."""
ATTRIBUTES = {
    "/folder": {"user.kind": b"folder"},
    "/folder/both": {"user.empty": b"", "user.kind": b"file", "security.capability": CAPABILITY},
    "/folder/none": {},
}


def layer() -> bytes:
    """A layer with these files, as tar."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, attributes in ATTRIBUTES.items():
            member = tarfile.TarInfo(path.removeprefix("/"))
            member.type, member.mode = (tarfile.DIRTYPE, 0o755) if path == "/folder" else (tarfile.REGTYPE, 0o644)
            member.pax_headers = {f"SCHILY.xattr.{name}": value.decode() for name, value in attributes.items()}
            tar.addfile(member)
    return file.getvalue()


def push(registry: str, blob: bytes, kind: str) -> dict[str, Any]:
    """Push a blob; its descriptor."""
    digest = f"sha256:{hashlib.sha256(blob).hexdigest()}"
    place = requests.post(f"http://{registry}/v2/base/blobs/uploads/", timeout=10).headers["Location"]
    requests.put(place, params={"digest": digest}, data=blob, timeout=10).raise_for_status()
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest, "size": len(blob)}


def push_base(registry: str, name: str) -> None:
    """Push an image with that layer."""
    tar = layer()
    config = {
        "architecture": goarch(),
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(tar).hexdigest()}"]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": push(registry, json.dumps(config).encode(), "config.v1+json"),
        "layers": [push(registry, gzip.compress(tar), "layer.v1.tar+gzip")],
    }
    headers = {"Content-Type": MANIFEST}
    answer = requests.put(
        f"http://{registry}/v2/base/manifests/{name}", data=json.dumps(manifest), headers=headers, timeout=10
    )
    answer.raise_for_status()


def test_extended_attributes_are_those_of_the_layer(build: Builder, sandbox: Sandbox) -> None:
    registry = sandbox.new_registry()
    push_base(registry, "made")
    tool = shutil.which("xattrs")
    assert tool is not None
    (build.folder / "context").mkdir()
    shutil.copy2(tool, build.folder / "context")
    export = "push=true,store=false,registry.insecure=true,oci-mediatypes=true,force-compression=true"
    for kind in ("gzip", "estargz"):
        build(
            f"FROM {registry}/base:made\n",
            f"--output=type=image,name={registry}/base:{kind},compression={kind},{export}",
        )
        sandbox.run("prune --all")
        wait(lambda: not lazy_mounts(), "pruned layers are still mounted")
        steps = "COPY --from=docker.io/library/busybox:latest /bin /bin\nCOPY xattrs /bin/\n"
        shown = f"RUN xattrs {' '.join(ATTRIBUTES)} > /shown\nFROM scratch\nCOPY --from=0 /shown /\n"
        found = json.loads((build.files(f"FROM {registry}/base:{kind}\n{steps}{shown}") / "shown").read_text())
        assert len(lazy_mounts()) == (kind == "estargz" and sandbox.snapshotter == "stargz")
        assert found == {
            path: {name: value.hex() for name, value in attributes.items()} for path, attributes in ATTRIBUTES.items()
        }

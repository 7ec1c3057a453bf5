"""Lazily pulled images of a registry that asks who is there: buildkitd's own snapshotter asks the client, the daemon does not.

A snapshotter that may not read a layer mounts nothing, and buildkitd pulls the layer whole, with the client's credentials.
"""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path

import pytest
from builder import Builder
from lazy import image, is_lazy, layers, lazy_mounts, stored, wait

from bkrules.testing.sandbox import CommandFailed, Sandbox

USER, PASSWORD = "bk", "a-secret-of-this-cell"
HTPASSWD = f"{USER}:$2b$04$abcdefghijklmnopqrstuurxLCwQT5PyxsiZFF8E65fY2QAbaCWxK\n"
DAEMONS = Path("/root/.docker")
"""Docker's configuration of the daemons; the client's is elsewhere."""
SOON = 20.0
"""Seconds within which wrong credentials must have had their effect. One request that nobody answers would take 30."""


def log_in(folder: Path, registry: str, password: str = PASSWORD) -> None:
    """Write a configuration of Docker with these credentials."""
    folder.mkdir(exist_ok=True)
    words = base64.b64encode(f"{USER}:{password}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {registry: {"auth": words}}}))


def test_a_private_registry(build: Builder, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = sandbox.new_registry(htpasswd=HTPASSWD)
    client = tmp_path / "client"
    monkeypatch.setenv("DOCKER_CONFIG", str(client))
    export = "push=true,store=false,registry.insecure=true,oci-mediatypes=true"
    log_in(client, registry)
    build(f"FROM {image(sandbox)}\n", f"--output=type=image,name={registry}/base:1,{export}")
    asks_client = "stargz" not in sandbox.daemons

    def is_pulled_lazily() -> bool:
        sandbox.run("prune --all")
        wait(lambda: not lazy_mounts() and not layers(sandbox).keys() & stored(), "pruned layers are still there")
        began = time.monotonic()
        build(f"FROM {registry}/base:1\nRUN cat /data/03.bin > /read\n")
        assert time.monotonic() - began < SOON
        assert bool(lazy_mounts()) != bool(layers(sandbox).keys() & stored())
        return len(lazy_mounts()) == len(layers(sandbox))

    assert is_pulled_lazily() == (is_lazy(sandbox) and asks_client)
    log_in(DAEMONS, registry)
    assert is_pulled_lazily() == is_lazy(sandbox)
    log_in(DAEMONS, registry, "wrong")
    assert is_pulled_lazily() == (is_lazy(sandbox) and asks_client)
    log_in(DAEMONS, registry)
    log_in(client, registry, "wrong")
    with pytest.raises(CommandFailed, match="401 Unauthorized"):
        is_pulled_lazily()

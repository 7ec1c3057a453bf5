"""Where images are pulled from, as buildkitd and the snapshotter daemon are told, each in its own configuration."""

from __future__ import annotations

import time

import pytest
from builder import Builder
from lazy import lazy_mounts

from bkrules.testing.sandbox import CommandFailed, Sandbox

SOON = 20.0
"""Seconds within which a build must end. One request that nobody answers would take 30."""
WHOLE = 12 << 20
"""The files of `bulk`, which do not compress."""


def test_a_pull(build: Builder, sandbox: Sandbox) -> None:
    place = sandbox.choice("registry")
    host = "cell:5000" if "insecure" in place else "docker.io"
    dockerfile = f"FROM {host}/library/bulk:esgz\nRUN cat /data/03.bin > /read\n"
    began = time.monotonic()
    if place == "dead_mirror_alone":
        with pytest.raises(CommandFailed, match=r"dial tcp 127\.0\.0\.1:9: connect: connection refused"):
            build(dockerfile)
    else:
        build(dockerfile)
    assert time.monotonic() - began < SOON
    is_told = place != "insecure_for_buildkitd" or "stargz" not in sandbox.daemons
    is_lazy = sandbox.snapshotter == "stargz" and is_told and place != "dead_mirror_alone"
    assert len(lazy_mounts()) == (2 if is_lazy else 0)
    pulled = sum(one.body_bytes for one in sandbox.mirror_requests() if "/blobs/" in one.path)
    assert (pulled > WHOLE) == (not is_lazy and place != "dead_mirror_alone")

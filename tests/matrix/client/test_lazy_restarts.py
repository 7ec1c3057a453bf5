"""Lazily pulled images when daemons end and restart, with eager workers and plain gzip layers as the control.

A process mounts the layers: buildkitd itself, whose snapshotter restores no mount, or the snapshotter as a separate
daemon, which restores all.
"""

from __future__ import annotations

import os
import time
from signal import SIGKILL

import pytest
from builder import UNIQUE, Builder
from lazy import STATE, fetched, image, is_lazy, layers, lazy_mounts, stored

from bkrules.testing.sandbox import CommandFailed, Sandbox

OTHER = "RUN cat /data/09.bin > /read; echo after {}\n"


def is_built_in(sandbox: Sandbox) -> bool:
    """Whether buildkitd mounts the layers."""
    return is_lazy(sandbox) and "stargz" not in sandbox.daemons


def cached_files() -> int:
    """How many files the snapshotters have of what they fetched. Mounts that nobody serves any more are passed over."""
    folders = (folder for folder, _, _ in os.walk(STATE) if folder.endswith(("/httpcache", "/fscache")))
    return sum(len(files) for folder in folders for _, _, files in os.walk(folder))


def settled_files() -> int:
    """How many files they have once the number stays.

    A snapshotter that mounts a layer resolves the other layers of its image too, and writes files of its cache, behind the
    scenes (`Mount` in fs/fs.go and `Add` in cache/cache.go of stargz-snapshotter v0.18.2). Those of a layer that it cannot mount
    are there for a moment.
    """
    count = cached_files()
    while True:
        time.sleep(0.2)
        before, count = count, cached_files()
        if count == before:
            return count


def test_an_image_builds_after_a_restart_of_each_daemon(build: Builder, sandbox: Sandbox) -> None:
    base = f"FROM {image(sandbox)}\nRUN cat /data/03.bin > /read\n{UNIQUE}"
    export = f"{base}FROM scratch\nCOPY --from=0 /unique /\n"
    unique = (build.files(export) / "unique").read_text()
    whole = sum(layers(sandbox).values())
    for daemon in sandbox.daemons:
        before = fetched(sandbox)
        sandbox.restart(daemon)
        if daemon == "buildkitd" and is_built_in(sandbox):
            check_without_mounts(build, sandbox, base)
        again = build(base + OTHER.format(daemon))
        # v0.34.2 cannot load what it cached on top of lazy layers before it was restarted, and runs the steps again
        assert ("CACHED" in again.stderr) == (daemon != "buildkitd" or not is_lazy(sandbox))
        after = fetched(sandbox) - before
        print(f"{after} bytes were fetched after the restart of {daemon}")
        if not is_lazy(sandbox) or daemon == "containerd":
            assert after == 0
        else:
            assert 0 < after < whole
            assert not layers(sandbox).keys() & stored()
        assert len(lazy_mounts()) == len(layers(sandbox)) * mounts_of_a_layer(sandbox, daemon)
        assert ((build.files(export) / "unique").read_text() == unique) != is_built_in(sandbox)


def check_without_mounts(build: Builder, sandbox: Sandbox, base: str) -> None:
    """A restarted buildkitd has none of the mounts that it had, and cannot use the image until that is forgotten."""
    with pytest.raises(CommandFailed, match=r'transport endpoint is not connected|layer "\d+" unavailable'):
        build(base + OTHER.format("buildkitd"))
    sandbox.run("prune --all")


def mounts_of_a_layer(sandbox: Sandbox, daemon: str) -> int:
    """Mounts of a process that has ended stay, dead, in the mount namespace of the cell; rootlesskit's ends with it."""
    if not is_lazy(sandbox):
        return 0
    return 2 if daemon == "buildkitd" and is_built_in(sandbox) and not sandbox.rootless else 1


def test_what_a_snapshotter_that_ends_leaves(build: Builder, sandbox: Sandbox) -> None:
    """The daemon unmounts all and empties its caches, and mounts all again; buildkitd leaves both as they are."""
    build(f"FROM {image(sandbox)}\nRUN cat /data/03.bin > /read\n")
    whose = "buildkitd" if is_built_in(sandbox) else "stargz"
    before, files = lazy_mounts(), settled_files()
    assert len(before) == len(layers(sandbox))
    assert files > 0
    sandbox.stop(whose)
    ended = lazy_mounts()
    if whose == "stargz":
        assert (ended, cached_files()) == (set(), 0)
    else:
        assert (ended, cached_files()) == (set() if sandbox.rootless else before, files)
    sandbox.start(whose)
    assert lazy_mounts() == (before if whose == "stargz" else ended)


def test_a_snapshotter_that_was_killed(build: Builder, sandbox: Sandbox) -> None:
    """It mounts all again, in place of the dead mounts, with a new cache: the files of the old one are nobody's for good."""
    dockerfile = f"FROM {image(sandbox)}\nRUN cat /data/03.bin > /read\n"
    build(dockerfile)
    before, files = lazy_mounts(), settled_files()
    sandbox.stop("stargz", signal=SIGKILL)
    assert (lazy_mounts(), cached_files()) == (before, files)
    sandbox.start("stargz")
    assert lazy_mounts() == before
    build(dockerfile + OTHER.format("a kill"))
    assert cached_files() > files
    sandbox.check_released()
    sandbox.stop("stargz")
    assert (lazy_mounts(), cached_files()) == (set(), files)


def test_pruned_and_ended_there_is_nothing(build: Builder, sandbox: Sandbox) -> None:
    """No record, blob, snapshot, lease or mount while the daemons run, and no file of the snapshotters' caches once they ended."""
    build(f"FROM {image(sandbox)}\nRUN cat /data/03.bin > /read\n")
    assert bool(settled_files()) == is_lazy(sandbox)
    sandbox.check_released()
    for daemon in reversed(sandbox.daemons):
        sandbox.stop(daemon)
    assert lazy_mounts() == set()
    assert cached_files() == 0

"""Build cache, its import and its export, as in BuildKit's testBasicRegistryCacheImportExport and its neighbours."""

from __future__ import annotations

from pathlib import Path

import pytest
from builder import BUSYBOX, UNIQUE, Builder

from bkrules.testing.sandbox import Sandbox


def unique(build: Builder, *options: str, dockerfile: str = BUSYBOX + UNIQUE) -> str:
    """What a step wrote that writes something else whenever it runs."""
    return (build.files(dockerfile, *options) / "unique").read_text()


def test_a_step_runs_once(build: Builder) -> None:
    assert unique(build) == unique(build)
    assert "CACHED" in build(BUSYBOX + UNIQUE).stderr


def test_without_cache_it_runs_again(build: Builder) -> None:
    assert unique(build) != unique(build, "--no-cache")


def test_a_changed_file_of_the_context_runs_what_reads_it(build: Builder) -> None:
    dockerfile = f"{BUSYBOX}{UNIQUE}COPY data /data\nRUN cat /proc/sys/kernel/random/uuid > /late\n"
    first = build.files(dockerfile, files={"data": "1"})
    before = {name: (first / name).read_text() for name in ("unique", "late")}
    second = build.files(dockerfile, files={"data": "2"})
    assert (second / "unique").read_text() == before["unique"]
    assert (second / "late").read_text() != before["late"]


def test_pruned_steps_run_again(build: Builder, sandbox: Sandbox) -> None:
    before = unique(build)
    sandbox.run("prune --all")
    assert sandbox.run("du").stdout.split()[-1] == "0B"
    assert unique(build) != before


@pytest.mark.requires("cache_export", "cache_import", "cache_backend_registry")
def test_cache_by_a_registry(build: Builder, sandbox: Sandbox) -> None:
    cache = f"type=registry,ref={sandbox.new_registry()}/cache:1,registry.insecure=true"
    before = unique(build, f"--export-cache={cache},mode=max")
    sandbox.run("prune --all")
    assert unique(build, f"--import-cache={cache}") == before


@pytest.mark.requires("cache_export", "cache_import", "cache_backend_local")
def test_cache_by_a_folder(build: Builder, sandbox: Sandbox, tmp_path: Path) -> None:
    before = unique(build, f"--export-cache=type=local,dest={tmp_path}/cache,mode=max")
    sandbox.run("prune --all")
    assert unique(build, f"--import-cache=type=local,src={tmp_path}/cache") == before


@pytest.mark.requires("cache_import", "direct_push")
def test_cache_in_the_image(build: Builder, sandbox: Sandbox) -> None:
    name = f"{sandbox.new_registry()}/image:1"
    push = f"--output=type=image,name={name},push=true,registry.insecure=true"
    before = unique(build)
    build(BUSYBOX + UNIQUE, push, "--export-cache=type=inline")
    sandbox.run("prune --all")
    assert unique(build, f"--import-cache=type=registry,ref={name},registry.insecure=true") == before


@pytest.mark.requires("multi_cache_export")
def test_several_caches_of_one_build(build: Builder, sandbox: Sandbox, tmp_path: Path) -> None:
    by_registry = f"type=registry,ref={sandbox.new_registry()}/cache:1,registry.insecure=true"
    exports = (f"{by_registry},mode=max", f"type=local,dest={tmp_path}/cache,mode=max")
    before = unique(build, *(f"--export-cache={one}" for one in exports))
    for cache in (by_registry, f"type=local,src={tmp_path}/cache"):
        sandbox.run("prune --all")
        assert unique(build, f"--import-cache={cache}") == before


@pytest.mark.requires("cache_export", "cache_import")
def test_cache_with_intermediate_stages(build: Builder, sandbox: Sandbox, tmp_path: Path) -> None:
    """`mode=max` keeps steps of stages that are not in the result, `mode=min` does not."""
    dockerfile = f"{BUSYBOX}{UNIQUE}{BUSYBOX}COPY --from=0 /unique /copy\nRUN cat /copy > /unique\n"
    found = {}
    for mode in ("min", "max"):
        cache = tmp_path / mode
        before = unique(
            build, f"--export-cache=type=local,dest={cache},mode={mode}", "--no-cache", dockerfile=dockerfile
        )
        sandbox.run("prune --all")
        # a new last step, so that the result needs the files of the stage before
        after = unique(build, f"--import-cache=type=local,src={cache}", dockerfile=f"{BUSYBOX}{UNIQUE}")
        found[mode] = before == after
        sandbox.run("prune --all")
    assert found == {"min": False, "max": True}


def test_a_cache_mount_outlives_its_step(build: Builder) -> None:
    mount = "RUN --mount=type=cache,target=/kept"
    build(f"{BUSYBOX}{mount} echo first > /kept/file\n")
    out = build.files(f"{BUSYBOX}{mount} cat /kept/file > /seen\n")
    assert (out / "seen").read_text() == "first\n"
    assert not (out / "kept").exists()


def test_cache_mounts_of_different_ids_are_apart(build: Builder) -> None:
    build(f"{BUSYBOX}RUN --mount=type=cache,id=one,target=/kept echo first > /kept/file\n")
    out = build.files(f"{BUSYBOX}RUN --mount=type=cache,id=two,target=/kept ls /kept > /seen\n")
    assert (out / "seen").read_text() == ""

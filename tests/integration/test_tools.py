"""The tools: static, and the same bytes whenever and wherever they are built."""

from __future__ import annotations

import dataclasses
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rounds import rounds
from spaces import Space

MODULE = "@bk_tools//:"
RELEASES = "//targets/tools/releases:"
TOOLS = (
    *(f"{MODULE}{name}" for name in ("box", "buildctl", "buildkitd", "containerd", "containerd-fuse-overlayfs-grpc")),
    *(f"{MODULE}{name}" for name in ("containerd-shim-runc-v2", "containerd-stargz-grpc", "ctr", "dockerd", "ip")),
    *(f"{MODULE}{name}" for name in ("mount.fuse3", "registry", "rootlesskit", "runc")),
    *(f"{RELEASES}{name}" for name in ("buildkitd_v0.17.3", "containerd_v1.7.35")),
    *(f"{RELEASES}{name}" for name in ("containerd-shim-runc-v2_v1.7.35", "ctr_v1.7.35")),
)
REBUILT = tuple(f"{MODULE}{name}" for name in ("box", "ctr", "ip", "mount.fuse3", "rootlesskit", "runc"))
"""The tools that are built twice: of each kind, the small ones. All of them with BK_ROUNDS=2."""
PT_INTERP = 3


def binary(space: Space, tool: str) -> bytes:
    """What bk built for a label, which it must have been asked for."""
    package, _, name = tool.replace("//", "/").strip("/").partition(":")
    return (space.root / "bk-out" / package / name / name.partition("_v")[0]).read_bytes()


def segments(binary: bytes) -> list[int]:
    """The types of the program headers of a 64-bit ELF file."""
    assert binary[:5] == b"\x7fELF\x02"
    (offset,) = struct.unpack_from("<Q", binary, 32)
    size, count = struct.unpack_from("<HH", binary, 54)
    return [struct.unpack_from("<I", binary, offset + number * size)[0] for number in range(count)]


@pytest.fixture(scope="module")
def tools_of_all(repository: Path, built: Path) -> Space:
    """This repository, with every tool in its bk-out: bk takes all of them from the cache at once."""
    space = Space(repository, built)
    done = space.bk("build", *TOOLS)
    assert done.returncode == 0, done.stdout + done.stderr
    return space


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_is_static(tools_of_all: Space, tool: str) -> None:
    assert PT_INTERP not in segments(binary(tools_of_all, tool))


@pytest.mark.soak
def test_building_again_elsewhere_gives_the_same_bytes(clone: Space, built: Path, tmp_path: Path) -> None:
    """In another folder, with Go's build cache empty: only the downloaded modules and the toolchain are shared."""
    tools = REBUILT if rounds(1) == 1 else TOOLS
    assert clone.bk("build", *tools).returncode == 0
    first = {tool: binary(clone, tool) for tool in tools}
    empty = tmp_path / "empty"
    (empty / "go").mkdir(parents=True)
    (empty / "go/mod").symlink_to(built / "go/mod")
    (empty / "toolchains").symlink_to(built / "toolchains")
    again = dataclasses.replace(clone, cache=empty)

    done = again.bk("build", *tools)

    assert done.returncode == 0, done.stdout + done.stderr
    assert [tool for tool in tools if first[tool] != binary(again, tool)] == []


def test_a_damaged_tool_is_noticed_and_built_again(tools: Space) -> None:
    """By the build that would have used it, and by one that would have shown it."""
    (tools.root / "t").mkdir()
    (tools.root / "t/BUILD.py").write_text("")
    (tools.root / "t/test_it.py").write_text("def test_it(sandbox): pass\n")
    build = tools.root / "targets/BUILD.py"
    text = build.read_text().replace(", worker", ", test_matrix, worker", 1)
    build.write_text(
        text + 'test_matrix(name = "m", tests = ["//t:test_it.py"], workers = [":oci"], mirror = ":mirror")\n'
    )
    assert tools.bk("build", "//:runc").returncode == 0
    runc = (tools.root / "bk-out/@bk_tools/runc/runc").read_bytes()
    stored = next(path for path in (tools.cache / "cas").glob("*/*") if path.read_bytes() == runc)
    stored.unlink()  # a hard link of the shared cache, which must stay whole
    stored.write_bytes(runc[:-1] + bytes([runc[-1] ^ 1]))

    used = tools.bk("build", "//targets:m")

    assert used.returncode == 0, used.stdout + used.stderr
    assert "GoBuild @bk_tools//:runc once more: the cache's copy of what it made was damaged" in used.stderr
    assert stored.read_bytes() == runc

    stored.unlink()
    stored.write_bytes(runc[:-1])
    assert tools.bk("build", "//:runc").returncode == 0
    assert stored.read_bytes() == (tools.root / "bk-out/@bk_tools/runc/runc").read_bytes() == runc


def test_a_tool_from_path_is_digested(
    tools: Space, report: Callable[[Path, str], dict[str, Any]], tmp_path: Path
) -> None:
    """The digest of what PATH gives is in the key, and its place is not."""
    (tools.root / "t").mkdir()
    (tools.root / "t/BUILD.py").write_text("")
    (tools.root / "t/test_it.py").write_text(
        "import subprocess\ndef test_it(sandbox): assert subprocess.check_output(['runc', '--version'])\n"
    )
    workspace = tools.root / "WORKSPACE.py"
    text = workspace.read_text().replace("import bk_dep,", "import bk_dep, host_binary,")
    workspace.write_text(text + 'host_binary(name = "own_runc", binary = "a-runc-of-mine")\n')
    build = tools.root / "targets/BUILD.py"
    build.write_text(
        build.read_text().replace(", worker", ", test_matrix, worker", 1)
        + 'worker(name = "w", plugin = "oci", id = "w", tools = {"runc": "//:own_runc"})\n'
        + 'test_matrix(name = "m", tests = ["//t:test_it.py"], workers = [":w"], mirror = ":mirror")\n'
    )
    assert tools.bk("build", "//:runc").returncode == 0

    def build_with(folder: str, more: bytes = b"") -> bool:
        """Whether the cell came from the cache, with the binary in that folder of PATH."""
        place = tmp_path / folder
        place.mkdir()
        (place / "a-runc-of-mine").write_bytes((tools.root / "bk-out/@bk_tools/runc/runc").read_bytes() + more)
        (place / "a-runc-of-mine").chmod(0o755)
        before = (place / "a-runc-of-mine").stat()
        space = dataclasses.replace(tools, environment={"PATH": f"{place}:{os.environ['PATH']}"})
        done = space.bk("build", "//targets:m")
        assert done.returncode == 0, done.stdout + done.stderr
        assert (place / "a-runc-of-mine").stat().st_ctime_ns == before.st_ctime_ns  # no link was made to it
        return bool(report(tools.root, "m")["cells"][0]["cached"])

    assert tools.bk("build", "//targets:m").returncode == 36  # nowhere on PATH
    assert not build_with("first")
    assert build_with("second")
    assert not build_with("third", b"another build of it")

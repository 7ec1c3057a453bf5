"""The main job: //targets:stargz_matrix on real workers, and what has to run again after a change."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from spaces import Space

MATRIX = "//targets:stargz_matrix"
Report = Callable[..., dict[str, Any]]


@pytest.fixture
def proven(clone: Space, report: Report) -> Space:
    """A clone in which every cell has passed."""
    done = clone.bk("build", MATRIX)
    assert done.returncode == 0, done.stdout + done.stderr
    cells = report(clone.root, "stargz_matrix")["cells"]
    assert {cell["status"] for cell in cells} == {"passed"}
    assert {cell["worker"] for cell in cells} == {"oci", "oci+stargz", "containerd", "containerd+stargz", "rootless"}
    assert len(cells) == 3 * 5 * 2
    return clone


def ran(space: Space, report: Report) -> list[str]:
    """Build the matrix again; the names of the cells that had no proven answer."""
    done = space.bk("build", MATRIX)
    assert done.returncode == 0, done.stdout + done.stderr
    cells = report(space.root, "stargz_matrix")["cells"]
    assert {cell["status"] for cell in cells} == {"passed"}
    return [cell["name"] for cell in cells if not cell["cached"]]


def edit(space: Space, file: str, old: str, new: str) -> None:
    path = space.root / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


# Kills the process at the first of these system calls: a BPF program over seccomp's data.
SEAL = r"""
import ctypes, os, struct, sys
syscalls = [int(number) for number in sys.argv.pop(1).split()]
load, equal, kill, allow = 0x20, 0x15, 0x80000000, 0x7FFF0000
steps = [(load, 0, 0, 0)]
steps += [(equal, len(syscalls) - number, 0, name) for number, name in enumerate(syscalls)]
steps += [(0x06, 0, 0, allow), (0x06, 0, 0, kill)]
code = b"".join(struct.pack("HBBI", *step) for step in steps)
buffer = ctypes.create_string_buffer(code)
program = struct.pack("HP", len(steps), ctypes.addressof(buffer))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(22, 2, ctypes.create_string_buffer(program)) == 0, os.strerror(ctypes.get_errno())
os.execv(sys.argv[1], sys.argv[1:])
"""
STARTS = "41 53 56 57 58 435"  # socket, socketpair, clone, fork, vfork, clone3
NOTHING = "169"  # reboot, for a filter that is in the key as that one is


@pytest.mark.skipif(sys.platform != "linux" or __import__("platform").machine() != "x86_64", reason="numbers of x86_64")
def test_a_proven_matrix_starts_no_process_and_opens_no_socket(proven: Space, report: Report) -> None:
    under_a_filter = proven.bk("build", MATRIX, prefix=(proven.python, "-c", SEAL, NOTHING))
    assert under_a_filter.returncode == 0, under_a_filter.stdout + under_a_filter.stderr
    seal = (proven.python, "-c", SEAL, STARTS)
    broken = subprocess.run([*seal, "/bin/sh", "-c", "/bin/true; /bin/true"], check=False)
    assert broken.returncode != 0, "the seal lets processes through, so it proves nothing"

    done = proven.bk("build", MATRIX, prefix=seal)

    assert done.returncode == 0, done.stdout + done.stderr
    assert all(cell["cached"] for cell in report(proven.root, "stargz_matrix")["cells"])
    assert "30 cells: 30 passed (30 cached, 0 not)" in done.stdout


def test_an_edited_test_reruns_its_own_cells(proven: Space, report: Report) -> None:
    edit(proven, "tests/matrix/test_stargz.py", '"sample.tar"', '"other.tar"  # and\n    # more lines')

    names = ran(proven, report)

    assert len(names) == 10
    assert {name.partition("/")[0] for name in names} == {"test_export_tar"}


def test_a_comment_reruns_nothing(proven: Space, report: Report) -> None:
    edit(proven, "targets/BUILD.py", "image_mirror(\n", "# said otherwise\nimage_mirror(\n")
    edit(proven, "tests/matrix/test_stargz.py", "def test_export_tar", "# said otherwise\ndef test_export_tar")

    assert ran(proven, report) == []


def test_another_pin_of_a_tool_reruns_the_cells_of_its_workers(proven: Space, report: Report) -> None:
    folder = proven.root / "targets/tools/bk_tools/rootlesskit"
    older = Path(__file__).parent / "data/rootlesskit-v3.2.0"
    for name in ("go.mod", "go.sum"):
        (folder / name).write_text((older / name).read_text())
    pins = folder.parent / "WORKSPACE.py"
    pins.write_text(re.sub(r"v3\.3\.0", "v3.2.0", pins.read_text()))

    names = ran(proven, report)

    assert len(names) == 6
    assert {part for name in names for part in name.split("/") if part.startswith("worker=")} == {"worker=rootless"}


@pytest.mark.soak
def test_the_other_matrices_pass(clone: Space) -> None:
    """What a worker cannot do is skipped, and says why; nothing else is."""
    done = clone.bk("test", "//...", "-//targets:stargz_matrix")

    # Of a thousand lines, those that say what went wrong.
    said = [line for line in (done.stdout + done.stderr).splitlines() if not re.search(r"\bpassed \d|\] PASSED", line)]
    assert done.returncode == 0, "\n".join(said)
    listed = clone.bk("query", "kind(test_matrix, //...) - tag(manual, //...) - //targets:stargz_matrix").stdout.split()
    reports = [json.loads(path.read_text()) for path in (clone.root / "bk-out").rglob("report.json")]
    assert sorted(one["label"] for one in reports) == sorted(listed)
    assert len(listed) >= 4
    for one in reports:
        statuses = {cell["status"] for cell in one["cells"]}
        assert "passed" in statuses
        assert statuses <= {"passed", "skipped"}, one["label"]
        assert [cell["name"] for cell in one["cells"] if cell["status"] == "skipped" and not cell["reason"]] == []
    (lazy,) = (one for one in reports if one["label"] == "//tests/matrix/client:lazy_matrix")
    assert [cell["name"] for cell in lazy["cells"] if cell.get("egress")] == []


def test_no_lazy_build_asks_anyone_but_the_mirror(clone: Space, report: Report) -> None:
    assert clone.bk("test", "//targets:stargz_matrix").returncode == 0
    cells = report(clone.root, "stargz_matrix")["cells"]
    assert {cell["worker"] for cell in cells if cell["egress"] == []} >= {"oci+stargz", "containerd+stargz", "rootless"}
    assert [cell["name"] for cell in cells if cell["egress"] != []] == []

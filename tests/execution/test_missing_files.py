from __future__ import annotations

from pathlib import Path

import pytest

from bkrules.runners.missing_files import hint_of, image_hint_of

DATA = "name it in the attribute 'data'"
IN_CELL = ["src/t/test_a.py", "src/t/helper.py", "src/pack/__init__.py", "host/lib/libc.so.6"]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    for path in ("t/test_a.py", "t/helper.py", "t/other.py", "t/data.txt", "pack/__init__.py"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("missing", "hint"),
    [
        (["other"], f"t/other.py is in the workspace and not in the cell: {DATA}"),
        (["/src/t/data.txt"], f"t/data.txt is in the workspace and not in the cell: {DATA}"),
        (["other", "t/data.txt"], "t/other.py and t/data.txt are in the workspace and not in the cell: name them"),
        (["helper"], "t/helper.py is in the cell, but its folder is not on Python's path: import t.helper, or set"),
        (["helper", "other"], "t/other.py is in the workspace and not in the cell"),
        (["pack.nothing"], ""),
        (["/etc/shadow", "../outside"], ""),
    ],
)
def test_a_hint_is_true_of_the_cell(workspace: Path, missing: list[str], hint: str) -> None:
    found = hint_of(missing, "t/test_a.py", workspace, IN_CELL)
    assert found.startswith(hint) and bool(found) == bool(hint)


@pytest.mark.parametrize(
    ("image", "hint"),
    [
        (
            "docker.io/library/busybox:1",
            ": did you mean docker.io/library/busybox:esgz or docker.io/library/busybox:latest?",
        ),
        ("docker.io/library/busybx:1", ": did you mean docker.io/library/busybox:esgz or"),
        ("localhost:5001/docker/dockerfile:1", ": name it in 'images' of that image_mirror"),
        ("docker.io/library/busybox:latest", ""),
        ("docker.io/library/alpine:3@sha256:0", ""),
    ],
)
def test_an_image_that_the_mirror_lacks(image: str, hint: str) -> None:
    inputs = [*IN_CELL, *(f"mirror/docker.io/library/busybox/{tag}" for tag in ("latest", "esgz"))]
    reason = f"t/test_a.py:2: CommandFailed: error: failed to solve: failed to resolve source metadata for {image}: not found"
    found = image_hint_of(reason, [*inputs, "src/docker.io/docker/dockerfile/1"])
    assert found.startswith(f"the mirror of the matrix has no {image}{hint}" if hint else "")
    assert bool(found) == bool(hint)
    assert image_hint_of("assert 1 == 2", inputs) == ""

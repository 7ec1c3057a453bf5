"""`./bk` on a fresh checkout: it makes its environment, says what is missing, and is not felt afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from spaces import Space

import bkrules


def launch(space: Space, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "HOME": str(space.root.parent), **environment}
    return subprocess.run(
        ["./bk", *arguments], cwd=space.root, env=variables, capture_output=True, text=True, check=False
    )


def test_the_first_run_makes_the_environment_and_the_next_does_not(clone: Space) -> None:
    first = launch(clone, "workers")
    made = (clone.root / ".venv/made").stat().st_mtime_ns
    second = launch(clone, "workers")

    assert first.returncode == second.returncode == 0, first.stderr
    assert "making the environment" in first.stderr
    assert second.stderr == ""
    assert "containerd+stargz  (bk-worker-containerd-stargz" in second.stdout
    assert (clone.root / ".venv/made").stat().st_mtime_ns == made

    # From another folder of the workspace, and after the workspace was moved: an environment knows where it lies.
    inside = subprocess.run(
        ["../bk", "query", ":all"], cwd=clone.root / "targets", capture_output=True, text=True, check=True
    )
    assert "//targets:stargz_matrix" in inside.stdout
    moved = clone.root.with_name("moved")
    clone.root.rename(moved)
    again = subprocess.run([moved / "bk", "--version"], capture_output=True, text=True, check=False)
    assert again.stdout == f"bk {bkrules.__version__}\n"
    assert "making the environment" in again.stderr


def test_what_is_missing_is_named(clone: Space, tmp_path: Path) -> None:
    """With a PATH that has Python and little else, and no leave to install anything."""
    few = tmp_path / "bin"
    few.mkdir()
    for name in ("python3", "sh", "id"):
        (few / name).symlink_to(os.path.realpath(shutil.which(name) or name))

    done = launch(clone, "--version", PATH=str(few), BK_SYSTEM_PACKAGES="no")

    assert done.returncode == 36
    assert "error: this machine lacks what bk builds and runs its tools with: gcc pkg-config uidmap" in done.stderr
    assert "apt-get install --no-install-recommends gcc pkg-config uidmap" in done.stderr
    assert not (clone.root / ".venv").exists()


def test_a_lock_file_with_another_hash_is_refused(clone: Space) -> None:
    lock = clone.root / "requirements.lock"
    lines = lock.read_text().splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("iniconfig=="))
    lock.write_text("\n".join([*lines[: at + 1], f"    --hash=sha256:{'0' * 64}", *lines[at + 3 :]]) + "\n")

    done = launch(clone, "--version")

    assert done.returncode == 36
    assert "error: the environment could not be made" in done.stderr
    assert "DO NOT MATCH THE HASHES" in done.stderr

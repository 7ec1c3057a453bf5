"""`./bk` on a fresh checkout: it makes its environment, says what is missing, and is not felt afterwards."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from launchers import unkind
from spaces import Space

import bkrules

IDENTITY = ("-c", "user.name=A", "-c", "user.email=a@example.com")


def launch(space: Space, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "HOME": str(space.root.parent), **environment}
    return subprocess.run(
        ["./bk", *arguments], cwd=space.root, env=variables, capture_output=True, text=True, check=False
    )


def test_the_life_of_an_environment(clone: Space, tmp_path: Path) -> None:
    """All in one test, since an environment takes its time: it is made once, again after a move, and not from a wrong hash."""
    evil = tmp_path / "evil"
    environment = {**os.environ, "HOME": str(tmp_path), **unkind(evil)}
    stranger = shutil.copytree(Path(__file__).parents[1] / "plugins/stranger", tmp_path / "stranger")
    declared = clone.root / "plugins/requirements.txt"
    declared.write_text(f"{stranger}\n")

    def workers(root: Path) -> subprocess.CompletedProcess[str]:
        command = ["sh", "-c", 'umask 777; exec ../bk "$@"', "sh", "workers"]
        return subprocess.run(
            command, cwd=root / "targets", env=environment, capture_output=True, text=True, check=False
        )

    first = workers(clone.root)
    made = (clone.root / ".venv/made").stat().st_mtime_ns
    second = workers(clone.root)
    assert first.returncode == second.returncode == 0, first.stderr
    assert "making the environment" in first.stderr
    assert second.stderr == ""
    assert "containerd+stargz  (bk-worker-containerd-stargz" in second.stdout
    assert "strange  (bk-worker-strange 1.0)\n" in second.stdout
    assert (clone.root / ".venv/made").stat().st_mtime_ns == made
    assert os.readlink(clone.root / ".venv/workspace") == str(clone.root)
    assert (clone.root / ".venv/bin").stat().st_mode & 0o777 == 0o755
    assert [path.name for path in evil.iterdir() if path.name not in ("sitecustomize.py", "env")] == []

    inside = subprocess.run(
        ["../bk", "query", ":all"], cwd=clone.root / "targets", capture_output=True, text=True, check=True
    )
    assert "//targets:stargz_matrix" in inside.stdout

    # An environment knows where it lies. A plugin that the workspace declares with its hash comes back in the next one.
    moved = clone.root.rename(clone.root.with_name("moved"))
    declared = moved / "plugins/requirements.txt"
    wheel = wheel_of(stranger, moved / "wheels")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    declared.write_text(f"./wheels/{wheel.name} --hash=sha256:{digest}\n")
    again = workers(moved)
    assert again.returncode == 0, again.stderr
    assert "making the environment" in again.stderr
    assert "strange  (bk-worker-strange 1.0)\n" in again.stdout
    version = subprocess.run([moved / "bk", "--version"], capture_output=True, text=True, check=False)
    assert version.stdout == f"bk {bkrules.__version__}\n"
    assert version.stderr == ""

    declared.write_text(declared.read_text().replace(digest, "0" * 64))
    refused = workers(moved)
    assert refused.returncode == 36
    assert "the packages in plugins/requirements.txt could not be installed" in refused.stderr
    assert "DO NOT MATCH THE HASHES" in refused.stderr


def wheel_of(source: Path, folder: Path) -> Path:
    """The wheel of a plugin that is a git repository, in that folder."""
    for words in (["init", "--quiet"], ["add", "--all"], [*IDENTITY, "commit", "--quiet", "--message=plugin: begin"]):
        subprocess.run(["git", *words], cwd=source, check=True)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, f"--wheel-dir={folder}", str(source)], check=True)
    (wheel,) = folder.iterdir()
    return wheel


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

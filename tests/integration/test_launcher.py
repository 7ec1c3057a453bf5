"""`./bk` on a fresh checkout: it makes its environment, says what is missing, and is not felt afterwards."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from spaces import Space

import bkrules

IDENTITY = ("-c", "user.name=A", "-c", "user.email=a@example.com")


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


def test_the_callers_environment_counts_for_nothing_and_named_plugins_survive(clone: Space, tmp_path: Path) -> None:
    """All at once, since an environment takes its time. What says how to reach a registry is needed here too."""
    evil = tmp_path / "evil"
    evil.mkdir()
    (evil / "sitecustomize.py").write_text("raise SystemExit('the environment of the caller was used')")
    (evil / "env").write_text("exit 1\n")
    shutil.copytree(Path(__file__).parents[1] / "plugins/stranger", tmp_path / "stranger")
    (clone.root / "plugins/requirements.txt").write_text(f"{tmp_path}/stranger\n")
    unkind = {
        **{
            "PIP_TARGET": str(evil),
            "PIP_USER": "1",
            "PIP_PREFIX": str(evil),
            "PIP_REQUIRE_HASHES": "1",
            "PIP_LOG": "/no/x",
        },
        **{"PIP_CONSTRAINT": "/no/such/file", "PIP_DRY_RUN": "1", "PIP_PYTHON": "/bin/false", "PIP_NO_BINARY": ":all:"},
        **{"PYTHONHOME": str(evil), "PYTHONPATH": str(evil), "PYTHONSTARTUP": str(evil / "env"), "PYTHONINSPECT": "1"},
        **{
            "CDPATH": "/:/usr",
            "IFS": "abn/",
            "ENV": str(evil / "env"),
            "BASH_ENV": str(evil / "env"),
            "GREP_OPTIONS": "-v",
        },
    }
    variables = {**os.environ, "HOME": str(clone.root.parent), **unkind}
    command = ["sh", "-c", 'umask 777; exec ./bk "$@"', "sh", "workers"]
    for _ in range(2):
        done = subprocess.run(command, cwd=clone.root, env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        (clone.root / ".venv/made").touch()
        os.utime(clone.root / "plugins/requirements.txt", (0, 0))
    assert "making the environment" not in done.stderr
    assert "bk-worker-strange" in done.stdout
    assert os.readlink(clone.root / ".venv/workspace") == str(clone.root)
    assert (clone.root / ".venv/bin").stat().st_mode & 0o777 == 0o755
    assert [path.name for path in evil.iterdir() if path.name not in ("sitecustomize.py", "env")] == []


def test_a_plugin_of_another_repository_is_declared_with_its_hash(clone: Space, tmp_path: Path) -> None:
    """It comes back whenever the environment is made; what has another hash does not come in."""
    source = shutil.copytree(Path(__file__).parents[1] / "plugins/stranger", tmp_path / "elsewhere")
    for words in (["init", "--quiet"], ["add", "--all"], [*IDENTITY, "commit", "--quiet", "--message=plugin: begin"]):
        subprocess.run(["git", *words], cwd=source, check=True)
    built = clone.root / "wheels"
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, f"--wheel-dir={built}", str(source)], check=True)
    (wheel,) = built.iterdir()
    declared = clone.root / "plugins/requirements.txt"
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    declared.write_text(f"./wheels/{wheel.name} --hash=sha256:{digest}\n")

    listed = []
    for _ in range(2):
        shutil.rmtree(clone.root / ".venv", ignore_errors=True)
        done = subprocess.run(
            ["../bk", "workers"],
            cwd=clone.root / "targets",
            env={**os.environ, "HOME": str(clone.root.parent)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        listed.append("strange  (bk-worker-strange 1.0)\n" in done.stdout)
    assert listed == [True, True]
    declared.write_text(declared.read_text().replace(digest, "0" * 64))

    refused = launch(clone, "workers")

    assert refused.returncode == 36
    assert "the packages in plugins/requirements.txt could not be installed" in refused.stderr
    assert "DO NOT MATCH THE HASHES" in refused.stderr

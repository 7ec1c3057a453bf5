"""Which tools this machine has: those of the registries of Python and npm, and Debian's sudo, are unpacked for the bench alone,
Debian's Bazel is installed when that is asked for.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.tools import REPOSITORY, Bazel, Bk, Doit, Ninja, Scons, Tool

TOOLS: tuple[type[Tool], ...] = (Bk, Ninja, Doit, Scons, Bazel)
_PINNED = ("ninja==1.13.2", "doit==0.37.0", "SCons==4.11.1")
_BAZEL = "bazel-bootstrap"
_NPM_BAZEL, _NPM_VERSION = "@bazel/bazel-linux_x64", "2.1.0"


class Missing(Exception):
    """Why a tool cannot take part, and what to do."""


def find(kind: type[Tool], *, install: bool) -> Tool:
    """The tool; with `install`, what it takes may be installed as a package of the machine. Raises Missing."""
    if kind is Bk:
        return Bk(str(REPOSITORY / "bk"))
    if kind is Bazel:
        return Bazel(_bazel(install=install))
    return kind(str(_environment() / "bin" / kind.name.lower()))


def sudo() -> Path:
    """Debian's sudo, unpacked and kept between runs: the folder of its files. Raises Missing."""
    folder = _cache() / "sudo"
    if not (folder / "usr/bin/sudo").is_file():
        if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
            raise Missing("no sudo, and no apt-get to get one")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            _run(["apt-get", "download", "--quiet", "sudo"], Path(scratch))
            for package in Path(scratch).glob("sudo_*.deb"):
                _run(["dpkg-deb", "--extract", str(package), str(folder)])
    return folder


def _bazel(*, install: bool) -> str:
    program = shutil.which("bazel")
    if program is None and install and os.geteuid() == 0:
        _run(["apt-get", "install", "--yes", "--no-install-recommends", _BAZEL])
        program = shutil.which("bazel")
    return program or _npm_bazel()


def _npm_bazel() -> str:
    """The one that npm has, of the year 2020, kept between runs. It needs no Java of the machine."""
    folder = _cache() / "npm"
    program = folder / "node_modules" / _NPM_BAZEL / f"bazel-{_NPM_VERSION}-linux-x86_64"
    if not program.is_file():
        if platform.machine() != "x86_64" or shutil.which("npm") is None:
            raise Missing(
                f"no bazel, and no npm to get one; on Debian, as root: apt-get install {_BAZEL}, or --install"
            )
        quiet = ("--silent", "--no-audit", "--no-fund", "--ignore-scripts")
        _run(["npm", "install", f"{_NPM_BAZEL}@{_NPM_VERSION}", f"--prefix={folder}", *quiet])
    return str(program)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "bk-bench")


def _environment() -> Path:
    """A Python environment with the pinned peers, kept between runs."""
    cache = _cache() / "peers"
    made = cache / "made"
    if not made.is_file() or made.read_text() != repr(_PINNED):
        _run([sys.executable, "-m", "venv", "--clear", str(cache)])
        _run([str(cache / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *_PINNED])
        made.write_text(repr(_PINNED))
    return cache


def _run(command: list[str], folder: Path | None = None) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise Missing(f"{' '.join(command[:4])} ... failed: {' '.join(last)}")

"""Fixtures for tests that start real daemons."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import registries
from registries import FILES, NAME, Proxy

from bkrules.images import registry_client
from bkrules.sandbox import shield


@pytest.fixture
def report() -> Callable[..., dict[str, Any]]:
    """Reads the report.json of a matrix of a workspace, by default one of the package //targets."""

    def read(root: Path, matrix: str, package: str = "targets") -> dict[str, Any]:
        document: dict[str, Any] = json.loads((root / "bk-out" / package / matrix / "report.json").read_text())
        return document

    return read


HELPERS = (shield.ZYGOTE, "bkrules.sandbox.")
"""What is in the command lines of the processes that bk starts beside its cells."""


def is_of_another(cgroup: str, cache: Path) -> bool:
    """Whether a cell's cgroup is that of a bk that lives and has another disk cache: somebody else at work beside these tests."""
    owner = Path("/proc", cgroup.split("-")[1], "cmdline")
    return owner.exists() and f"{cache}".encode() not in owner.read_bytes()


def of_another_run(folder: Path, cache: Path) -> bool:
    """Whether a process is in such a cell, or the zygote of such a bk."""
    try:
        cells = [part for part in (folder / "cgroup").read_text().split("/") if part.startswith("bk-")]
        if cells:
            return is_of_another(cells[0], cache)
        parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
        command = Path("/proc", parent, "cmdline").read_bytes()
        return (
            b"bkrules" in command
            and f"{cache}".encode() not in command
            and not any(name.encode() in command for name in HELPERS)
        )
    except OSError:
        return False


@pytest.fixture
def leftovers() -> Callable[[Path], dict[str, list[str]]]:
    """Everything on this machine that a run of bk with that disk cache could leave behind, by kind."""

    def look(cache: Path) -> dict[str, list[str]]:
        own = os.readlink("/proc/self/ns/net")
        processes, namespaces = [], set()
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                namespace = os.readlink(folder / "ns/net")
            except OSError:
                continue  # it has ended
            if of_another_run(folder, cache):
                continue
            if namespace != own:
                namespaces.add(namespace)
            if any(name in command for name in HELPERS) or f"{cache}/" in command or (namespace != own and command):
                processes.append(f"{folder.name} {command}")
        fuse = [
            "unshare",
            "-m",
            "sh",
            "-c",
            "mount -t fusectl none /sys/fs/fuse/connections; ls /sys/fs/fuse/connections",
        ]
        runs = cache / "run"
        return {
            "processes": processes,
            "network namespaces": sorted(namespaces),
            "mounts": Path("/proc/self/mountinfo").read_text().splitlines(),
            "fuse connections": subprocess.run(fuse, capture_output=True, text=True, check=True).stdout.split(),
            # os.walk, since a folder may go while it is looked into
            "cgroups": [
                f"{folder}/{name}"
                for folder, names, _ in os.walk("/sys/fs/cgroup")
                for name in names
                if name.startswith("bk-") and not is_of_another(name, cache)
            ],
            "sockets": [
                line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines() if str(cache) in line
            ],
            "run folders": [str(path) for path in runs.iterdir()] if runs.exists() else [],
            "temporary files": sorted(path.name for path in Path("/tmp").iterdir()),
        }

    return look


@pytest.fixture
def environment(tmp_path: Path) -> str:
    """The interpreter of a copy of this environment, in which a test may install and uninstall."""
    folder = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = folder / "lib" / version / "site-packages"
    shutil.copytree(sysconfig.get_path("purelib"), packages, dirs_exist_ok=True, copy_function=_link)
    return str(folder / "bin/python")


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


@pytest.fixture(scope="session")
def binary(built: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The registry of this repository."""
    return repository / "bk-out/registry/registry"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A storage tree with the image library/sample:1."""
    root = tmp_path / "storage"
    registries.fill(root, f"{NAME}:1", registries.image(tmp_path / "layout", FILES))
    return root


@pytest.fixture
def host(binary: Path, store: Path) -> Iterator[str]:
    with registries.registry(binary, store) as address:
        yield address


@pytest.fixture
def proxy(host: str) -> Iterator[Proxy]:
    with registries.proxy(host) as found:
        yield found


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits between tries are a hundredth."""
    monkeypatch.setattr(registry_client, "_FIRST_WAIT", 0.001)

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

import buildgrid
import casd
import clusters
import pytest
import registries
from bazel_remotes import Machine, Start, clean_clone, starter
from clusters import Begin, Cluster
from leftovers import Leftovers, watched
from registries import FILES, NAME, Proxy
from schemas import REPORT, validate
from spaces import Space

from bkrules.images import registry_client


@pytest.fixture
def report() -> Callable[..., dict[str, Any]]:
    """Reads the report.json of a matrix of a workspace, by default one of the package //targets, and checks it by its schema."""

    def read(root: Path, matrix: str, package: str = "targets") -> dict[str, Any]:
        document: dict[str, Any] = json.loads((root / "bk-out" / package / matrix / "report.json").read_text())
        validate(REPORT, document)
        return document

    return read


@pytest.fixture
def leftovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Leftovers]:
    """What there is of this test's runs of bk."""
    yield from watched(tmp_path, monkeypatch)


@pytest.fixture
def environment(tmp_path: Path) -> str:
    """The interpreter of a copy of this environment, in which a test may install and uninstall."""
    folder = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = folder / "lib" / version / "site-packages"
    # No hard links: each would change the status of a file on which the answers of builds in other tests depend.
    unused = shutil.ignore_patterns("mypy*", "*__mypyc*")
    shutil.copytree(sysconfig.get_path("purelib"), packages, dirs_exist_ok=True, ignore=unused)
    return str(folder / "bin/python")


@pytest.fixture(scope="session")
def binary(built: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The registry of this repository."""
    return repository / "bk-out/@bk_tools/registry/registry"


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


@pytest.fixture(scope="session")
def bazel_remote(repository: Path, built: Path) -> Path:
    """The binary of bazel-remote."""
    made = Space(repository, built).bk("build", "//targets/tools/bazel-remote:bazel-remote")
    assert made.returncode == 0, made.stdout + made.stderr
    return repository / "bk-out/targets/tools/bazel-remote/bazel-remote/bazel-remote"


@pytest.fixture(scope="session")
def casd_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The binary of buildbox-casd."""
    if reason := casd.why_not():
        pytest.skip(reason)
    return casd.binary(tmp_path_factory.mktemp("casd"))


@pytest.fixture(params=["http", "grpc"])
def start(bazel_remote: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Start]:
    """Starts servers, which bk asks by that protocol; each ends with the test."""
    with starter(bazel_remote, tmp_path, request.param) as begin:
        yield begin


@pytest.fixture
def machine(tmp_path: Path, repository: Path, built: Path) -> Machine:
    """Makes machines without a result."""
    return lambda name: clean_clone(repository, built, tmp_path / name)


@pytest.fixture(scope="session")
def bgd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of BuildGrid."""
    if reason := buildgrid.why_not():
        pytest.skip(reason)
    base = tmp_path_factory.getbasetemp()
    return buildgrid.install(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)


@pytest.fixture
def cluster(bgd: Path, bazel_remote: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A BuildGrid without a worker. A parameter has its options."""
    with clusters.cluster(bgd, bazel_remote, tmp_path, getattr(request, "param", {})) as found:
        yield found


@pytest.fixture
def begin(tmp_path: Path, cluster: Cluster) -> Iterator[Begin]:
    """Starts workers of the cluster."""
    with clusters.starting(tmp_path, cluster) as start:
        yield start

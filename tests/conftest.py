"""Fixtures for tests that run bk as a user does: on a separate workspace, through the command line."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from one_cell import Cells
from spaces import Space, copy_of_cache

from bkrules.sandbox.run_folder import sweep_orphans

REPOSITORY = Path(__file__).parents[1]
PROCESSES = 1 + max(2, len(os.sched_getaffinity(0)))
"""How many tests run at once: one more than there are cores, since many tests wait for daemons and for deadlines."""

# How long an example takes, or its making, is that of a machine that does much else.
settings.register_profile("bk", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("bk")

# The process that starts the tests may ignore these, as nohup and a background job do; all processes of a test would inherit that.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Run the whole suite side by side; what is named on the command line, or debugged, runs in this one. `-n` overrides it."""
    option = config.option
    is_whole = config.args_source is not pytest.Config.ArgsSource.ARGS and not option.usepdb
    if is_whole and not hasattr(config, "workerinput") and getattr(option, "numprocesses", 0) is None:
        option.numprocesses, option.dist = PROCESSES, "worksteal"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Let a test that is marked `alone` wait until the other processes of this run have ended theirs, and these for it."""
    with contextlib.ExitStack() as stack:
        if hasattr(item.config, "workerinput"):
            folder = Path(item.config.option.basetemp).parent
            alone = item.get_closest_marker("alone") is not None
            # Who waits to be alone holds the gate meanwhile, so that no other test begins.
            with _locked(folder / "gate", fcntl.LOCK_EX):
                stack.enter_context(_locked(folder / "running", fcntl.LOCK_EX if alone else fcntl.LOCK_SH))
        return (yield)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Remove the cgroups of runs that tests have killed: their ledgers went with the folders of the tests."""
    if not hasattr(session.config, "workerinput"):
        sweep_orphans()


@contextlib.contextmanager
def _locked(path: Path, kind: int) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, kind)
        yield


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of this repository."""
    return REPOSITORY


@pytest.fixture
def space(tmp_path: Path) -> Space:
    """An empty workspace and an empty disk cache."""
    root = tmp_path / "workspace"
    root.mkdir()
    made = Space(root, tmp_path / "cache")
    made.write("WORKSPACE.py", "from bkrules import workspace\nworkspace(name = 'test')\n")
    return made


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """A private authority, and a certificate of it for 127.0.0.1, and for 10.0.0.1 in other network namespaces."""
    folder = tmp_path / "tls"
    folder.mkdir()

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, capture_output=True, check=True)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    usage = ("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign")
    openssl("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=tests", "-days", "2", *usage)
    openssl("req", *curve, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=server")
    (folder / "names").write_text(
        "subjectAltName=IP:127.0.0.1,IP:10.0.0.1,DNS:a.example\nauthorityKeyIdentifier=keyid\n"
    )
    signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names")
    openssl("x509", "-req", "-in", "server.csr", "-out", "server.pem", *signing)
    return folder


@pytest.fixture(scope="session")
def built(repository: Path) -> Path:
    """The default disk cache, with every tool and image of this repository in it."""
    command = [
        sys.executable,
        "-I",
        "-m",
        "bkrules",
        "build",
        "@bk_tools//:all",
        "//targets/tools/releases:all",
        "//targets:busybox_esgz",
        "//targets:bulk_esgz",
    ]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "bk")


@pytest.fixture
def cache_copy(built: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Makes disk caches that begin with what is built, by hard links, and share Go's own caches."""

    def copy(name: str) -> Path:
        return copy_of_cache(built, tmp_path / name)

    return copy


@pytest.fixture
def tools(space: Space, repository: Path, cache_copy: Callable[[str], Path]) -> Space:
    """A workspace with this repository's tools, images and workers, and no matrix."""
    space.write("WORKSPACE.py", (repository / "WORKSPACE.py").read_text())
    (space.root / "targets").mkdir()
    (space.root / "targets/tools").symlink_to(repository / "targets/tools")
    (space.root / "plugins").symlink_to(repository / "plugins")
    text = (repository / "targets/BUILD.py").read_text()
    space.write("targets/BUILD.py", text[: text.index("test_matrix(\n")])
    return dataclasses.replace(space, cache=cache_copy("built"))


@pytest.fixture
def clone(repository: Path, tmp_path: Path, cache_copy: Callable[[str], Path]) -> Space:
    """A copy of this repository's files, in another folder than the original."""
    root = tmp_path / "clone"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (repository / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(repository / name, root / name)
    return Space(root, cache_copy("built"))


@pytest.fixture(scope="session")
def remembered(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What bk remembers of this machine: the answers of the dynamic linker, and the digests of the packages in the environment."""
    root = tmp_path_factory.mktemp("first")
    Cells(root).key()
    state = root / "bk-out/.state"
    return [*state.glob("libraries-*"), state / "digests"]


@pytest.fixture
def cells(tmp_path: Path, remembered: list[Path]) -> Cells:
    """A small workspace with one cell."""
    found = Cells(tmp_path)
    state = tmp_path / "bk-out/.state"
    state.mkdir(parents=True)
    for path in remembered:
        shutil.copy2(path, state / path.name)
    return found

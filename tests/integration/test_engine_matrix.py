"""`bk build --remote_executor` on a BuildGrid with two workers, from clients that have neither root nor Go."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bazel_remotes import clean_clone
from clusters import Begin, Cluster
from spaces import Space, check

pytestmark = pytest.mark.soak
STARGZ = "//targets:stargz_matrix"
NOBODY = 65534
# The interpreter may be in the home folder of root, which others cannot enter.
USER = (f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
READS = (
    "--inh-caps=-all,+dac_read_search",
    "--ambient-caps=-all,+dac_read_search",
    "--bounding-set=-all,+dac_read_search",
)
HIDE_GO = 'for go in $(which -a go); do mount --bind /dev/null "$go"; done; exec "$@"'
CLIENT = ("unshare", "-m", "sh", "-ec", HIDE_GO, "sh", "setpriv", *USER, *READS)
Report = Callable[..., dict[str, Any]]


@pytest.fixture
def client(repository: Path, tmp_path: Path) -> Callable[[str], Space]:
    """Makes clean clones with the matrix, each of a user who is not root, with nothing in the disk cache and no Go on PATH."""

    def make(name: str) -> Space:
        folder = tmp_path / name
        empty = tmp_path / f"{name}-empty"
        empty.mkdir()
        space = clean_clone(repository, empty, folder)
        for part in ("go", "toolchains"):
            (space.cache / part).unlink()
        texts = (repository / "targets/BUILD.py").read_text().split("test_matrix(\n")
        space.write("targets/BUILD.py", "test_matrix(\n".join(texts[:2]))
        shutil.copytree(repository / "tests/matrix", space.root / "tests/matrix")
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        environment = {**space.environment, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR": str(folder / "home")}
        return replace(space, environment=environment)

    return make


def send_tools(space: Space, cache: Path, cluster: Cluster) -> None:
    """Send the tools and images of a warm machine, and no result of a cell, which the machine has after a build of the matrix."""
    words = (f"--remote_cache={cluster.cache.url}", "--disk_cache", str(cache))
    done = space.bk("cache", "push", "//targets:all", f"-{STARGZ}", *words)
    check(done.returncode, done.stdout + done.stderr)


# A worker that has no time for a beat in ten seconds would lose its cells to the other one, which runs them again.
@pytest.mark.parametrize("cluster", [{"keepalive": 600}], indirect=True)
def test_the_matrix(
    client: Callable[[str], Space],
    cluster: Cluster,
    begin: Begin,
    cache_copy: Callable[[str], Path],
    report: Report,
) -> None:
    one, two = client("one"), client("two")
    found = subprocess.run(
        [*CLIENT, "which", "go"], env=dict(one.environment), capture_output=True, text=True, check=False
    )
    assert found.returncode, f"the client has {found.stdout}"
    send_tools(client("warm"), cache_copy("warm-cache"), cluster)
    machines = begin("worker-one"), begin("worker-two")
    said = built(one, cluster)
    assert "30 cells: 30 passed (0 cached, 30 not)" in said, tail(said)
    ran = seconds(report(one.root, "stargz_matrix"))
    for machine in machines:
        log = machine.log.read_text()
        assert re.search(r"^[0-9a-f]{64}: [0-9.]+s$", log, re.MULTILINE), f"{machine.log.name} has no cell: {tail(log)}"
    said = built(two, cluster)
    assert "30 cells: 30 passed (30 cached, 0 not)" in said, tail(said)
    assert "hit local 0, hit remote 46, ran 0" in said, tail(said)
    told = seconds(report(two.root, "stargz_matrix"))
    assert told == ran, f"those of the runs, without those of the queue: {told.items() ^ ran.items()}"


def built(client: Space, cluster: Cluster) -> str:
    """The output of a client's build, with the patience of a machine that has much else to do."""
    where = (
        f"--remote_executor={cluster.grid.url}",
        f"--remote_cache={cluster.cache.url}",
        "--remote_queue_timeout=7200",
    )
    done = client.bk("build", STARGZ, *where, prefix=CLIENT)
    return check(done.returncode, done.stdout + done.stderr)


def tail(text: str) -> str:
    return "\n".join(text.splitlines()[-20:])


def seconds(document: dict[str, Any]) -> dict[str, float]:
    """The seconds of each cell of a report."""
    return {cell["name"]: cell["seconds"] for cell in document["cells"]}

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
from spaces import Space

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
CLIENT = ("setpriv", *USER, *READS)
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
    """Send the tools and images of a warm machine, and no result of a cell."""
    words = (f"--remote_cache={cluster.cache.url}", "--disk_cache", str(cache))
    done = space.bk("cache", "push", STARGZ, *words)
    assert done.returncode == 0, done.stderr


def test_the_matrix(
    client: Callable[[str], Space],
    cluster: Cluster,
    begin: Begin,
    cache_copy: Callable[[str], Path],
    report: Report,
) -> None:
    one, two = client("one"), client("two")
    assert subprocess.run(["which", "go"], env=dict(one.environment), capture_output=True, check=False).returncode
    send_tools(client("warm"), cache_copy("warm-cache"), cluster)
    machines = begin("worker-one"), begin("worker-two")
    words = ("build", STARGZ, f"--remote_executor={cluster.grid.url}", f"--remote_cache={cluster.cache.url}")
    done = one.bk(*words, prefix=CLIENT)
    print(done.stdout + done.stderr)
    assert done.returncode == 0
    assert "30 cells: 30 passed (0 cached, 30 not)" in done.stdout
    ran = seconds(report(one.root, "stargz_matrix"))
    assert all(re.search(r"^[0-9a-f]{64}: [0-9.]+s$", machine.log.read_text(), re.MULTILINE) for machine in machines)
    done = two.bk(*words, prefix=CLIENT)
    print(done.stdout + done.stderr)
    assert done.returncode == 0
    assert "30 cells: 30 passed (30 cached, 0 not)" in done.stdout
    assert "hit local 0, hit remote 46, ran 0" in done.stdout
    assert seconds(report(two.root, "stargz_matrix")) == ran, "those of the runs, without those of the queue"


def seconds(document: dict[str, Any]) -> dict[str, float]:
    """The seconds of each cell of a report."""
    return {cell["name"]: cell["seconds"] for cell in document["cells"]}

"""A machine that lacks something: cells are skipped with a reason that a newcomer can act on, and exit code 36."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from spaces import Space

Report = Callable[[Path, str], dict[str, Any]]


@pytest.fixture
def small(tools: Space) -> Space:
    """A workspace with one trivial test on an OCI worker, a stargz worker and two rootless ones."""
    build = tools.root / "targets/BUILD.py"
    workers = 'worker(name = "given", plugin = "rootless", user = "nobody-has-this", id = "given")\n'
    for name in ("oci", "oci_stargz", "rootless", "given"):
        workers += (
            f'test_matrix(name = "on_{name}", tests = ["//t:test_it.py"], workers = [":{name}"], mirror = ":mirror")\n'
        )
    build.write_text(build.read_text().replace(", worker", ", test_matrix, worker", 1) + workers)
    tools.write("t/BUILD.py", "")
    tools.write("t/test_it.py", "def test_it(sandbox): pass\n")
    return tools


def test_without_root(small: Space) -> None:
    done = small.bk("build", "//targets:on_oci", prefix=("unshare", "--user"))

    assert done.returncode == 36, done.stdout + done.stderr
    assert "1 cell skipped: this machine cannot run cells: not root" in done.stdout
    assert "run bk as root" in done.stdout


def test_without_fuse(small: Space, report: Report) -> None:
    hide = ("unshare", "--mount", "sh", "-c", 'mount --bind /dev/null /dev/fuse && exec "$@"', "sh")

    done = small.bk("build", "//targets:on_oci_stargz", "//targets:on_oci", prefix=hide)

    assert done.returncode == 36, done.stdout + done.stderr
    assert "oci+stargz cannot run here: no /dev/fuse" in done.stdout
    assert "mknod -m 666 /dev/fuse c 10 229" in done.stdout
    assert report(small.root, "on_oci_stargz")["cells"][0]["status"] == "skipped"
    assert report(small.root, "on_oci")["cells"][0]["status"] == "passed"


def test_a_user_without_a_range(small: Space) -> None:
    done = small.bk("build", "//targets:on_given")

    assert done.returncode == 36, done.stdout + done.stderr
    assert "no range for 'nobody-has-this' in /etc/subuid" in done.stdout
    assert "usermod --add-subuids" in done.stdout


def test_a_user_with_a_range(small: Space, tmp_path: Path) -> None:
    ranges = tmp_path / "ranges"
    ranges.write_text("nobody-has-this:300000:65536\n")
    script = f'mount --bind {ranges} /etc/subuid && mount --bind {ranges} /etc/subgid && exec "$@"'

    done = small.bk("build", "//targets:on_given", prefix=("unshare", "--mount", "sh", "-c", script, "sh"))

    assert done.returncode == 0, done.stdout + done.stderr


def test_in_a_user_namespace_with_too_few_ids(small: Space) -> None:
    done = small.bk("build", "//targets:on_rootless", prefix=("unshare", "--user", "--map-root-user"))

    assert done.returncode == 36, done.stdout + done.stderr
    assert "this machine cannot run cells: root of a user namespace only" in done.stdout


def test_without_the_helpers_of_rootless(small: Space) -> None:
    hide = ("unshare", "--mount", "sh", "-c", 'mount --bind /dev/null /usr/bin/newuidmap && exec "$@"', "sh")

    done = small.bk("build", "//targets:on_rootless", prefix=hide)

    assert done.returncode == 36, done.stdout + done.stderr
    assert "this machine has no newuidmap" in done.stdout
    assert "apt-get install uidmap" in done.stdout


def test_without_fuse_overlayfs(tools: Space) -> None:
    build = tools.root / "targets/BUILD.py"
    build.write_text(
        build.read_text().replace(", worker", ", test_matrix, worker", 1)
        + 'test_matrix(name = "m", tests = ["//t:test_it.py"], workers = [":oci_fuse_overlayfs"], mirror = ":mirror")\n'
    )
    tools.write("t/BUILD.py", "")
    tools.write("t/test_it.py", "def test_it(sandbox): pass\n")
    file = "/usr/bin/fuse-overlayfs"
    script = f'if [ -e {file} ]; then mount --bind /dev/null {file}; fi; exec "$@"'

    done = tools.bk("build", "//targets:m", prefix=("unshare", "--mount", "sh", "-c", script, "sh"))

    assert done.returncode == 36, done.stdout + done.stderr
    assert "1 cell skipped: this machine has no fuse-overlayfs" in done.stdout
    assert "apt-get install fuse-overlayfs" in done.stdout

"""Full or read-only disks, dead proxies, limits of files: bk names the place, and what to do, and loses nothing."""

from __future__ import annotations

import os
import subprocess

import pytest
from spaces import Space

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts file systems")

BUILD = """from bkrules import http_file, image
image(name = "i", files = {"a": "a"}, noise = {"n": 3000000})
image(name = "small", files = {"a": "a"})
image(name = "pulled", reference = "registry.invalid/a:1", digest = "sha256:DIGEST")
http_file(name = "h", urls = ["https://server.invalid/a"], sha256 = "DIGEST")
""".replace("DIGEST", "0" * 64)
CACHE_ROOM = "make room there, as with `bk cache gc --max_size=2G`, or choose another place with --disk_cache"
OUT_ROOM = "make room there, where bk writes outputs, logs and reports, or make bk-out a link to a folder elsewhere"


@pytest.fixture
def written(space: Space) -> Space:
    """A workspace with images of few and many bytes; its folders exist."""
    space.write("p/BUILD.py", BUILD)
    space.write("p/a", "a")
    space.cache.mkdir()
    (space.root / "bk-out").mkdir()
    return space


def build(space: Space, script: str, *targets: str) -> subprocess.CompletedProcess[str]:
    """Build targets after a script in a new mount namespace; `$CACHE` and `$ROOT` are the folders."""
    names = f"CACHE={space.cache} ROOT={space.root}"
    done = space.bk("build", *targets, prefix=("unshare", "--mount", "sh", "-c", f'{names}; {script}; exec "$@"', "sh"))
    assert "Traceback" not in done.stderr
    return done


READ_ONLY = "mount --bind {0} {0} && mount -o remount,bind,ro {0}"


@pytest.mark.parametrize(
    ("script", "place", "problem", "remedy"),
    [
        ("mount -t tmpfs -o size=2m none $CACHE", "{cache}", "No space left on device", CACHE_ROOM),
        ("mount -t tmpfs -o nr_inodes=12 none $CACHE", "{cache}/", "no free inodes", CACHE_ROOM),
        (READ_ONLY.format("$CACHE"), "{cache}/", "Read-only file system", "or choose another place with --disk_cache"),
        ("mount -t tmpfs -o size=8k none $ROOT/bk-out", "{root}/bk-out", "No space left on device", OUT_ROOM),
        (READ_ONLY.format("$ROOT"), "{root}/bk-out/", "Read-only file system", "  make it writable\n"),
    ],
)
def test_a_folder_that_cannot_be_written(written: Space, script: str, place: str, problem: str, remedy: str) -> None:
    done = build(written, script, "//p:i")

    told = done.stdout + done.stderr
    assert done.returncode == 36, told
    assert f"error: {place.format(cache=written.cache, root=written.root)}" in told
    assert f": {problem}\n" in told
    assert remedy in told


def test_a_full_workspace_loses_no_result(written: Space) -> None:
    """What was built is shown and cached, although it cannot be put into `bk-out`."""
    done = build(written, "mount -t tmpfs -o size=1m none $ROOT/bk-out", "//p:i")

    told = done.stdout + done.stderr
    assert done.returncode == 36, told
    assert f"error: {written.root}/bk-out/p/i/" in told
    assert OUT_ROOM in told
    assert "1 action: 1 ran, 0 cached" in told
    assert "1 action: 0 ran, 1 cached" in written.bk("build", "//p:i").stdout


def test_a_home_in_which_no_folder_can_be(space: Space) -> None:
    space.write("p/BUILD.py", BUILD)
    space.write("p/a", "a")
    command = [space.python, "-I", "-m", "bkrules", "build", "//p:small"]
    variables = {**{name: text for name, text in os.environ.items() if name != "XDG_CACHE_HOME"}, "HOME": "/proc"}

    done = subprocess.run(command, cwd=space.root, env=variables, capture_output=True, text=True, check=False)

    assert done.returncode == 36, done.stderr
    assert done.stderr.splitlines()[-2:] == [
        "error: /proc/.cache: No such file or directory",
        "  make the folders above it, or choose another place with --disk_cache",
    ]


def test_too_few_open_files(written: Space) -> None:
    """A build ends with that error until it has as many files as it needs, which is never a large number."""
    codes = []
    for limit in range(6, 13):
        done = build(written, f"ulimit -n {limit}", "//p:i")
        told = done.stdout + done.stderr
        codes.append(done.returncode)
        if done.returncode:
            assert "Too many open files" in told
            assert "allow more open files:  ulimit -n 4096" in told
    assert codes == sorted(codes, reverse=True)
    assert {*codes} == {36, 0}


def test_a_dead_proxy(written: Space) -> None:
    """It is the machine's fault, and no reason to look for other URLs."""
    proxies = "export HTTPS_PROXY=http://127.0.0.1:1 HTTP_PROXY=http://127.0.0.1:1; unset NO_PROXY no_proxy https_proxy"

    done = build(written, proxies, "-k", "//p:h", "//p:pulled")

    told = done.stdout + done.stderr
    assert done.returncode == 36, told
    assert "error: //p:h: no server of its URLs can be reached" in told
    assert "https://server.invalid/a: its proxy 127.0.0.1:1: connection refused" in told
    assert "error: //p:pulled: registry.invalid/a: " in told
    assert told.count("  check the network of this machine, and HTTPS_PROXY, HTTP_PROXY and NO_PROXY\n") == 2

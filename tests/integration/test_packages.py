"""The files of Debian packages in cells, at their paths in the package."""

from __future__ import annotations

import dataclasses
import hashlib
import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from debs import deb, source
from spaces import Space, matrix

pytestmark = pytest.mark.skipif(shutil.which("apt-get") is None, reason="there is no apt-get")

WORDS = b"from a package\n"
GREET = b"#!/usr/bin/python3\nprint(open('/usr/share/greet/words').read(), end='')\n"
LIBC = "lib/x86_64-linux-gnu/libc.so.6"
FILES = {"bin/greet": GREET, "usr/share/greet/words": WORDS, LIBC: b"not a library\n"}
TEST = f"""
import os
import subprocess
from pathlib import Path

def test_files(sandbox):
    assert subprocess.run(["greet"], capture_output=True, check=True).stdout == {WORDS!r}
    assert os.path.samefile("/bin/greet", "/usr/bin/greet")
    place = Path("/{LIBC}")
    assert not place.exists() or place.read_bytes() != {FILES[LIBC]!r}, "Python needs the library of this machine"
"""

Report = Callable[[Path, str], dict[str, Any]]


def package(name: str, files: list[str], data: bytes) -> str:
    pins = {f"linux-{machine}": hashlib.sha256(data).hexdigest() for machine in ("x86_64", "aarch64")}
    return f'debian_package(name = "{name}", package = "greet", version = "1-1", sha256 = {pins}, files = {files})\n'


def test_the_files_of_packages_are_in_cells_and_count(tools: Space, report: Report, tmp_path: Path) -> None:
    variables = source(tmp_path, {("greet", "1-1"): deb(FILES)})
    space = dataclasses.replace(tools, environment=variables)
    matrix(space, TEST, "oci", more='packages = ["//p:all"]')
    head = "from bkrules import debian_package\n"
    space.write("p/BUILD.py", head + package("all", list(FILES), deb(FILES)))
    done = space.bk("test", "//targets:small")
    assert done.returncode == 0, done.stdout + done.stderr
    done = space.bk("shell", "test_files/worker=oci", "--", "cat", "/opt/bk/packages/usr/share/greet/words")
    assert done.stdout == WORDS.decode(), "a shell has the machine's folders in their place"

    other = deb({**FILES, "usr/share/greet/words": b"another\n"})
    source(tmp_path, {("greet", "1-1"): other})
    space.write("p/BUILD.py", head + package("all", list(FILES), other))
    done = space.bk("test", "//targets:small")
    assert done.returncode == 3, "other bytes are another key"
    [cell] = report(space.root, "small")["cells"]
    assert "CalledProcess" not in cell["reason"], "the program itself runs"


KEYS = """
import os
import signal
import subprocess

def run(*words, **variables):
    done = subprocess.run(words, env=os.environ | variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout

def test_ssh(sandbox, tmp_path):
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "of a cell", "-f", str(tmp_path / "key"))
    said = run("ssh-agent", "-s", "-a", str(tmp_path / "agent"))
    agent = int(said.partition("SSH_AGENT_PID=")[2].partition(";")[0])
    own = {"SSH_AUTH_SOCK": str(tmp_path / "agent")}
    run("ssh-add", "-q", str(tmp_path / "key"), **own)
    assert " of a cell (ED25519)" in run("ssh-add", "-l", **own)
    (tmp_path / "text").write_text("words")
    run("ssh-keygen", "-q", "-Y", "sign", "-n", "file", "-f", str(tmp_path / "key.pub"), str(tmp_path / "text"), **own)
    assert "BEGIN SSH SIGNATURE" in (tmp_path / "text.sig").read_text()
    assert run("ssh", "-V") == ""
    os.kill(agent, signal.SIGTERM)

def test_gpg(sandbox, tmp_path):
    own = {"GNUPGHOME": str(tmp_path)}
    tmp_path.chmod(0o700)
    quiet = ("gpg", "--batch", "--pinentry-mode", "loopback", "--passphrase", "")
    run(*quiet, "--quick-generate-key", "cell@example.com", "ed25519", "sign", **own)
    (tmp_path / "text").write_text("words")
    run(*quiet, "--armor", "--detach-sign", str(tmp_path / "text"), **own)
    run("gpg", "--batch", "--verify", str(tmp_path / "text.asc"), str(tmp_path / "text"), **own)
    run("gpgconf", "--kill", "gpg-agent", **own)
"""


@pytest.mark.soak
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the pins are those of amd64")
def test_the_pinned_ssh_and_gpg_run(clone: Space, report: Report) -> None:
    """As the suite of BuildKit has them: they find the libraries, the agents and the commands that they need in a cell."""
    matrix(clone, KEYS, "oci", more='packages = ["//targets/tools/debian:" + name for name in DEBIAN]')
    build = clone.root / "targets/BUILD.py"
    load = 'load("//targets/tools/debian:packages.py", DEBIAN = "PACKAGES")\ntest_matrix('
    build.write_text(build.read_text().replace(", worker", ", load, worker", 1).replace("test_matrix(", load, 1))
    done = clone.bk("test", "//targets:small")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [cell["status"] for cell in report(clone.root, "small")["cells"]] == ["passed", "passed"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ('packages = ["//p:one", "//p:two"]', "//p:two has the file 'usr/bin/greet', which another package has too"),
        ('packages = ["//p:tool"]', "'packages' needs a debian_package, but //p:tool is a host_binary"),
    ],
)
def test_packages_that_cannot_be_in_a_cell(tools: Space, more: str, said: str) -> None:
    matrix(tools, TEST, "oci", more=more)
    one, two = (package(name, [path], b"") for name, path in (("one", "bin/greet"), ("two", "usr/bin/greet")))
    tools.write(
        "p/BUILD.py",
        f'from bkrules import debian_package, host_binary\n{one}{two}host_binary(name = "tool", binary = "sh")\n',
    )
    done = tools.bk("test", "//targets:small")
    assert done.returncode != 0
    assert said in done.stderr, done.stderr

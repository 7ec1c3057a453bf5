"""The files of Debian packages in cells, at their paths in the package."""

from __future__ import annotations

import dataclasses
import hashlib
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

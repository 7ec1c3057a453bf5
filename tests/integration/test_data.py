"""Files that a matrix gives its tests in `data` are in the cell as they are in the workspace."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from spaces import Space, matrix

Report = Callable[[Path, str], dict[str, Any]]

TEST = """
import subprocess
from pathlib import Path

HERE = Path(__file__).parent

def test_modes(sandbox):
    assert subprocess.run([HERE / "tool.sh"], capture_output=True, text=True).stdout == "it ran\\n"
    assert {path.name: f"{path.stat().st_mode & 0o777:o}" for path in HERE.iterdir() if path.suffix != ".py"} == {
        "tool.sh": "755", "private": "755", "plain.txt": "644",
    }
"""
DATA = 'data = ["//t:tool.sh", "//t:private", "//t:plain.txt"], '


@pytest.mark.parametrize("isolation", ["cell", "worker"])
def test_executable_files_stay_executable(tools: Space, report: Report, isolation: str) -> None:
    matrix(tools, TEST, "oci", more=f'{DATA}isolation = "{isolation}"')
    tools.write("t/tool.sh", "#!/usr/bin/python3\nprint('it ran')\n").chmod(0o755)
    tools.write("t/private", "").chmod(0o700)
    plain = tools.write("t/plain.txt", "")
    done = tools.bk("build", "//targets:small")
    assert done.returncode == 0, done.stdout + done.stderr

    plain.chmod(0o755)
    done = tools.bk("build", "//targets:small")
    assert done.returncode == 3, "a changed mode is another key"
    [cell] = report(tools.root, "small")["cells"]
    assert "755" in cell["reason"]


ABSENT = """
def test_pull(sandbox, tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM busybox:no-such-tag")
    sandbox.run(f"build --frontend=dockerfile.v0 --local context={tmp_path} --local dockerfile={tmp_path}")
"""


def test_an_image_that_the_mirror_does_not_have(tools: Space, report: Report) -> None:
    matrix(tools, ABSENT, "oci", "containerd")
    done = tools.bk("build", "//targets:small")
    assert done.returncode == 3, done.stdout + done.stderr
    said = "; the mirror of the matrix has no docker.io/library/busybox:no-such-tag: did you mean docker.io/library/busybox:"
    assert [said in cell["reason"] for cell in report(tools.root, "small")["cells"]] == [True, True]

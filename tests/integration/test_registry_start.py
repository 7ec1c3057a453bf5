"""A registry that does not start is a failure of a cell's infrastructure: it is reported, and retried once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from spaces import Space, matrix

REGISTRY = """package main

import ("os"; "syscall")

func main() {
	if _, err := os.Stat("%(mark)s"); os.IsNotExist(err) || %(always)s {
		os.WriteFile("%(mark)s", nil, 0o644)
		println("the port is taken")
		os.Exit(3)
	}
	syscall.Exec("%(registry)s", os.Args, os.Environ())
}
"""


@pytest.mark.parametrize(("always", "status", "code"), [("false", "flaky", 0), ("true", "failed", 3)])
def test_a_registry_that_does_not_start(
    tools: Space, report: Callable[..., dict[str, Any]], tmp_path: Path, always: str, status: str, code: int
) -> None:
    matrix(tools, "def test_it(sandbox): pass\n", "oci")
    assert tools.bk("build", "//:registry").returncode == 0
    real = tools.root / "bk-out/@bk_tools/registry/registry"
    words = {"mark": tmp_path / "begun", "registry": real, "always": always}
    tools.write("t/bad/main.go", REGISTRY % words)
    tools.write("t/bad/go.mod", "module bad\n\ngo 1.26\n")
    tools.write("t/bad/go.sum", "")
    tools.write(
        "t/BUILD.py",
        'from bkrules import go_binary\ngo_binary(name = "bad", srcs = ["bad/main.go"], mod = "bad/go.mod")\n',
    )
    build = tools.root / "targets/BUILD.py"
    build.write_text(
        build.read_text().replace('workers = [":oci"]', 'workers = [":bad"]')
        + 'worker(name = "bad", plugin = "oci", tools = {"registry": "//t:bad"})\n'
    )

    done = tools.bk("build", "//targets:small")

    assert done.returncode == code, done.stdout + done.stderr
    (cell,) = report(tools.root, "small")["cells"]
    assert (cell["status"], len(cell["attempts"]), cell["class"]) == (status, 2, "infrastructure")
    assert "the mirror's registry did not start" in cell["reason"]
    folder = tools.root / Path(cell["log"]).parent
    assert "the port is taken" in (folder / "attempt_1/test.log").read_text()

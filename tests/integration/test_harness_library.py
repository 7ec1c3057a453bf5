"""A Go project that has BuildKit's integration harness as a library, and registers its own worker: its tests are cells."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
from spaces import Space

SUITE = Path(__file__).parent / "data/harness-suite"
BUILD = """
go_binary(name = "suite_test", srcs = ["//suite:suite_test.go"], mod = "//suite:go.mod", test = True)
worker(name = "remote", plugin = "oci", id = "remote")
go_test(
    name = "suite",
    binary = ":suite_test",
    subtests = ["*"],
    harness = {
        "containerd": "containerd",
        "oci": "oci",
        "oci+stargz": "oci-snapshotter-stargz",
        "remote": "remote",
        "rootless": "oci-rootless",
    },
)
test_matrix(
    name = "suite_matrix",
    tests = [":suite"],
    workers = [":containerd", ":oci", ":oci_stargz", ":remote", ":rootless"],
    mirror = ":mirror",
)
"""
WORKERS = ("containerd", "oci", "oci+stargz", "remote", "rootless")
TESTS = ("TestCache", "TestLabels", "TestNetworkNoRootless")


@pytest.mark.soak
def test_a_suite_on_the_harness_is_cells(tools: Space) -> None:
    """On five workers: a name and a case for each leaf, the values of the suite's matrix as axes, and then all from the cache."""
    build = tools.root / "targets/BUILD.py"
    build.write_text(build.read_text().replace(", worker", ", go_binary, go_test, test_matrix, worker", 1) + BUILD)
    shutil.copytree(SUITE, tools.root / "suite")
    tools.write("suite/BUILD.py", "")

    done = tools.bk("test", "//targets:suite_matrix")

    assert done.returncode == 0, done.stdout + done.stderr
    out = tools.root / "bk-out/targets/suite_matrix"
    cells = {cell["name"]: cell for cell in json.loads((out / "report.json").read_text())["cells"]}
    leaves = {
        f"TestIntegration/{test}/worker={worker}/mode={mode}": {"mode": mode}
        for test in TESTS
        for worker in WORKERS
        for mode in ("max", "min")
    }
    words: dict[str, dict[str, str]] = {f"TestWords/of_a_Dockerfile/worker={worker}": {} for worker in WORKERS}
    assert {name: cell["axes"] for name, cell in cells.items()} == leaves | words
    skipped = {name: cell["reason"] for name, cell in cells.items() if cell["status"] != "passed"}
    assert skipped.keys() == {
        f"TestIntegration/TestNetworkNoRootless/worker=rootless/mode={mode}" for mode in ("max", "min")
    }
    suite = ElementTree.parse(out / "test.xml").getroot()[0]
    cases = [case.get("name") for case in suite]
    assert "TestIntegration/TestCache/worker=remote/mode=min TestIntegration/TestCache/worker=remote/mode=min" in cases

    again = tools.bk("test", "//targets:suite_matrix")

    assert "35 cells: 33 passed, 2 skipped (35 cached, 0 not)" in again.stdout

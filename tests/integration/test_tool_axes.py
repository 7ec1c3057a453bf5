"""Releases of a tool as the values of an axis: each cell runs the one that its name says."""

from __future__ import annotations

import json

from spaces import Space

BUILD = """
test_matrix(
    name = "small",
    tests = ["//t:test_small.py"],
    workers = [":oci", ":containerd"],
    mirror = ":mirror",
    axes = {
        "buildkitd": {
            "0.17": {"tools": {"buildkitd": "//targets/tools/releases:buildkitd_v0.17.3"}, "value": "v0.17."},
            "0.34": {"tools": {"buildkitd": "//:buildkitd"}, "value": "v0.34."},
        },
        "containerd": {
            "1.7": {"tools": {"containerd": "//targets/tools/releases:containerd_v1.7.35",
                              "containerd-shim-runc-v2": "//targets/tools/releases:containerd-shim-runc-v2_v1.7.35"}},
            "2": "",
        },
    },
)
"""
TEST = """
import subprocess

def test_release(sandbox):
    assert sandbox.value("buildkitd") in sandbox.run("debug info").stdout
    if sandbox.worker == "containerd":
        version = subprocess.run(["containerd", "--version"], capture_output=True, text=True, check=True).stdout
        assert (" v1.7." in version) == (sandbox.choice("containerd") == "1.7"), version
"""


def test_a_product_of_releases_is_one_matrix(tools: Space) -> None:
    build = tools.root / "targets/BUILD.py"
    build.write_text(build.read_text().replace(", worker", ", test_matrix, worker", 1) + BUILD)
    tools.write("t/BUILD.py", "")
    tools.write("t/test_small.py", TEST)

    done = tools.bk("build", "//targets:small")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 cells: 8 passed" in done.stdout
    report = json.loads((tools.root / "bk-out/targets/small/report.json").read_text())
    assert {tuple(sorted(cell["axes"].items())) for cell in report["cells"]} == {
        (("buildkitd", buildkit), ("containerd", containerd))
        for buildkit in ("0.17", "0.34")
        for containerd in ("1.7", "2")
    }

"""A jar that writes JUnit XML, run by a Java of Debian packages that apt has today, as cells on four workers."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest
from examples import blocks
from spaces import Space

pytestmark = [pytest.mark.soak, pytest.mark.skipif(shutil.which("apt-get") is None, reason="there is no apt-get")]
SUITE = Path(__file__).parent / "data/junit-suite/suite.jar"
JAVA = "usr/lib/jvm/java-17-openjdk-amd64"
LIBRARIES = "usr/lib/x86_64-linux-gnu"
PARTS = [f"lib/lib{name}.so" for name in ("java", "jimage", "jli", "jsvml", "net", "nio", "zip")]
PACKAGES = {
    "openjdk-17-jre-headless": [
        f"{JAVA}/{part}"
        for part in ("bin/java", "lib/jspawnhelper", "lib/jvm.cfg", "lib/modules", "lib/server/libjvm.so", *PARTS)
    ],
    "libgcc-s1": ["lib/x86_64-linux-gnu/libgcc_s.so.1"],
    "libstdc++6": [f"{LIBRARIES}/libstdc++.so.6"],
    "zlib1g": ["lib/x86_64-linux-gnu/libz.so.1"],
}
BUILD = """
host_binary(name = "sh", binary = "/bin/sh")
test_matrix(
    name = "java",
    tests = ["//t:suite.sh"],
    args = ["builds"],
    data = ["//t:suite.jar"],
    tools = [":sh"],
    packages = [{packages}],
    workers = [":oci", ":oci_stargz", ":containerd", ":rootless"],
    mirror = ":mirror",
)
"""


def pinned(folder: Path) -> str:
    """The packages, at the versions and digests that apt has now."""
    folder.mkdir()
    subprocess.run(["apt-get", "download", *PACKAGES], cwd=folder, capture_output=True, check=True)
    targets = ["from bkrules import debian_package\n"]
    for name, files in PACKAGES.items():
        (file,) = folder.glob(f"{name}_*.deb")
        version = file.name.split("_")[1].replace("%3a", ":")
        pins = {"linux-x86_64": hashlib.sha256(file.read_bytes()).hexdigest()}
        targets.append(f"debian_package(name = {name!r}, version = {version!r}, sha256 = {pins}, files = {files})\n")
    return "".join(targets)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the paths are those of amd64")
def test_a_jar_on_four_workers(tools: Space, tmp_path: Path) -> None:
    build = tools.root / "targets/BUILD.py"
    labels = ", ".join(f'"//java:{name}"' for name in PACKAGES)
    text = build.read_text().replace(", worker", ", host_binary, test_matrix, worker", 1)
    build.write_text(text + BUILD.format(packages=labels))
    tools.write("java/BUILD.py", pinned(tmp_path / "debs"))
    tools.write("t/BUILD.py", "")
    (launcher,) = (one.text for one in blocks() if one.page == "docs/programs.md" and one.text.startswith("#!/bin/sh"))
    tools.write("t/suite.sh", launcher)
    shutil.copy(SUITE, tools.root / "t/suite.jar")

    done = tools.bk("test", "//targets:java")

    assert done.returncode == 0, done.stdout + done.stderr
    out = tools.root / "bk-out/targets/java"
    cells = json.loads((out / "report.json").read_text())["cells"]
    assert {cell["worker"] for cell in cells} == {"oci", "oci+stargz", "containerd", "rootless"}
    for cell in cells:
        assert [(case["name"], case["status"]) for case in cell["cases"]] == [
            ("Suite.connects", "passed"),
            ("Suite.builds", "skipped"),
        ]
    suite = ElementTree.parse(out / "test.xml").getroot()[0]
    assert "suite.sh/worker=oci Suite.connects" in [case.get("name") for case in suite]

"""Defects of BuildKit's own harness that need whole builds to show that they are not here."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spaces import Space, matrix

Report = Callable[[Path, str], dict[str, Any]]

SHOW = """
def test_it(sandbox):
    print("config", sandbox.manifest("docker.io/library/own:1")["config"]["digest"])
"""
OWN = """
image(name = "own", files = {"hello.txt": "//t:hello.txt"})
image_mirror(name = "own_mirror", images = {"docker.io/library/own:1": ":own"})
"""


def test_d4_a_failed_copy_is_tried_again(tools: Space, report: Report) -> None:
    """There, an image counts as copied before it is, so that one failure hides itself."""
    matrix(tools, "def test_it(sandbox): pass\n", "oci")
    build = tools.root / "targets/BUILD.py"
    broken = 'worker(name = "broken", plugin = "oci", tools = {"buildkitd": "//:buildctl"})\n'
    made = 'estargz_image(name = "never", image = ":busybox", worker = ":broken")\n'
    more = 'image_mirror(name = "bad", images = {"docker.io/library/never:1": ":never"})\n'
    text = build.read_text().replace('mirror = ":mirror",', 'mirror = ":bad",')
    build.write_text(text + broken + made + more)

    for _ in range(2):
        done = tools.bk("test", "//targets:small")
        assert done.returncode == 1, done.stdout
        assert "the conversion failed" in done.stdout
        assert {cell["status"] for cell in report(tools.root, "small")["cells"]} == {"not run"}


def test_d5_another_image_under_the_same_tag_is_served(tools: Space, report: Report) -> None:
    """There, a mirror that is kept has the image of before, since only the tag is looked at."""
    matrix(tools, SHOW, "oci")
    build = tools.root / "targets/BUILD.py"
    build.write_text(build.read_text().replace('mirror = ":mirror",', 'mirror = ":own_mirror",') + OWN)

    configs = []
    for text in ("first\n", "second\n", "first\n"):
        tools.write("t/hello.txt", text)
        done = tools.bk("test", "//targets:small")
        assert done.returncode == 0, done.stdout + done.stderr
        (cell,) = report(tools.root, "small")["cells"]
        (config,) = set(re.findall(r"config (sha256:\w+)", (tools.root / cell["log"]).read_text()))
        configs.append((config, cell["cached"]))
    first, second, again = configs
    assert first[0] != second[0]
    assert again == (first[0], True)


def test_d7_what_a_worker_cannot_do_is_known_before_anything_starts(tools: Space, report: Report) -> None:
    """There, a test is skipped when its daemons have been started."""
    test = "import pytest\n@pytest.mark.requires('cni_network')\ndef test_it(sandbox): raise AssertionError\n"
    matrix(tools, test, "oci", "containerd_stargz")
    done = tools.bk("test", "//targets:small")
    assert re.search(r"ran 0, skipped 2\b", done.stdout), done.stdout + done.stderr
    cells = report(tools.root, "small")["cells"]
    assert {(cell["class"], cell["reason"]) for cell in cells} == {("skip", "the worker does not support cni_network")}
    assert not list((tools.root / "bk-out/targets").rglob("buildkitd.log"))

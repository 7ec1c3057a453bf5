"""The first examples of the documentation are workspaces: bk runs their tests on all workers."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from examples import blocks
from spaces import Space

EXAMPLES = {
    one.text: one
    for one in blocks()
    if one.language == "python" and "# WORKSPACE.py\n" in one.text and "//:macros.py" in one.text
}
TEST = "def test_hello(sandbox):\n    sandbox.run('debug workers')\n"


@pytest.mark.parametrize(
    "text", [text for text in EXAMPLES if "bk_tools" in text], ids=lambda text: str(EXAMPLES[text])
)
def test_it_runs(text: str, space: Space, repository: Path, cache_copy: Callable[[str], Path]) -> None:
    """With the tools in the disk cache. An example that names a test without showing it gets a small one."""
    space.write("hello/test_hello.py", TEST)
    parts = re.split(r"^# (\S+\.py)\n", text, flags=re.MULTILINE)
    for name, part in zip(parts[1::2], parts[2::2], strict=True):
        space.write(name, part)
    module = f"--override_module=bk_tools={repository / 'targets/tools/bk_tools'}"

    done = space.bk("test", "//...", module, f"--disk_cache={cache_copy('cache')}")

    assert done.returncode == 0, done.stdout + done.stderr
    workers, axes = 6, text.count("gzip") + text.count("estargz")
    assert f"{workers * max(axes, 1)} cells: {workers * max(axes, 1)} passed (0 cached" in done.stdout

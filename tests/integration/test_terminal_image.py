"""The image of a terminal in README.md is what its script records."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

SVG = "{http://www.w3.org/2000/svg}"
PATH = "docs/images/terminal.svg"


def lines(image: Path) -> list[str]:
    """Return the lines of the terminal: an image has a text for each piece of a line, and one clip for each line."""
    found: dict[str, str] = {}
    for text in ElementTree.parse(image).iter(f"{SVG}text"):
        line = text.get("clip-path", "")
        found[line] = found.get(line, "") + (text.text or "").replace("\xa0", " ")
    return list(found.values())


def shown(image: Path) -> set[str]:
    """Return the lines that each run has, without its numbers: those of the grid and of the cause."""
    kept = [line for line in lines(image) if re.match(r"test_|FAILED: |  only |  test_|  try: |\d+ cells: ", line)]
    return {re.sub(r"\d+(\.\d+)?", "N", line).strip() for line in kept}


def test_the_image_is_what_bk_prints(built: Path, repository: Path, tmp_path: Path) -> None:
    made = tmp_path / "terminal.svg"
    script = repository / "docs/site/terminal_image.py"

    done = subprocess.run([sys.executable, str(script), str(made)], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "only with worker=rootless" in shown(made)
    assert len(shown(made)) > 6
    assert shown(made) == shown(repository / PATH)


def test_the_image_is_small_and_loads_nothing(repository: Path) -> None:
    text = (repository / PATH).read_text()
    assert len(text) < 64_000
    assert re.findall(r"""(?:href|src)\s*=|url\((?!#)|@import""", text) == []
    assert f"]({PATH})" in (repository / "README.md").read_text()

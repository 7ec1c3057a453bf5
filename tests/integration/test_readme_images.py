"""The images in README.md are what their scripts record."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from browser import CHROMIUM, WHY_NOT, browser

SVG = "{http://www.w3.org/2000/svg}"
PATH = "docs/images/terminal.svg"
PAGE = "docs/images/report.png"
COLOURS = """
(async () => {
    const image = new Image();
    image.src = "data:image/png;base64,%s";
    await image.decode();
    const [width, height] = [image.width, image.height];
    const context = new OffscreenCanvas(width, height).getContext("2d");
    context.drawImage(image, 0, 0);
    const counts = {};
    for (const pixel of new Uint32Array(context.getImageData(0, 0, width, height).data.buffer)) {
        counts[pixel] = (counts[pixel] ?? 0) + 1;
    }
    const shares = Object.entries(counts).map(([pixel, count]) => [
        [pixel & 255, (pixel >> 8) & 255, (pixel >> 16) & 255].join(" "), count / width / height]);
    return {width, shares: Object.fromEntries(shares)};
})()
"""
"""The width of a PNG, and the share of each of its colours."""
FAILED, PASSED = "201 37 45", "214 242 220"
"""The colours of failed and passed cells in `page.css`."""


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


@pytest.mark.skipif(CHROMIUM is None, reason=WHY_NOT)
def test_the_page_in_the_image_has_cells_of_both_colours(built: Path, repository: Path, tmp_path: Path) -> None:
    made = tmp_path / "report.png"
    script = repository / "docs/site/report_image.py"

    done = subprocess.run([sys.executable, str(script), str(made)], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    (tmp_path / "chromium").mkdir()
    with browser(tmp_path / "chromium") as tab:
        pictures = [
            tab.run(COLOURS % base64.b64encode(path.read_bytes()).decode()) for path in (made, repository / PAGE)
        ]
    assert pictures[0]["width"] == pictures[1]["width"]
    for picture in pictures:
        assert len(picture["shares"]) > 50  # the edges of letters
        assert 0.01 < picture["shares"][FAILED] < 0.04
        assert 0.05 < picture["shares"][PASSED] < 0.2


def test_the_image_of_the_page_is_small(repository: Path) -> None:
    assert (repository / PAGE).stat().st_size < 200_000
    assert f"]({PAGE})" in (repository / "README.md").read_text()

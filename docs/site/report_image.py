"""The image of the page of a build in README.md: `python docs/site/report_image.py docs/images/report.png`.

It is the page that `bk report` writes after the real run of bk that `recorded.py` describes, in a headless Chromium.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import recorded

sys.path.insert(0, str(recorded.ROOT / "tests"))
from browser import CHROMIUM, WHY_NOT, browser

WIDTH = 880
"""The width of the window, in pixels of CSS; the image has twice as many."""
HEIGHT = "Math.ceil(document.querySelector('footer').getBoundingClientRect().bottom) + 16"


def draw(page: Path, file: Path) -> None:
    """Write the whole page as a PNG. Raises AssertionError when the page has a problem in the browser."""
    with (
        tempfile.TemporaryDirectory(prefix="bk-image-", ignore_cleanup_errors=True) as profile,
        browser(Path(profile)) as tab,
    ):
        tab.size(WIDTH, 600, scale=2)
        tab.open(page.as_uri())
        tab.size(WIDTH, tab.run(HEIGHT), scale=2)
        tab.settle()
        tab.picture(file)
        assert tab.problems == [], tab.problems


def main() -> None:
    """Run bk, write its page, and write the image of that."""
    parser = argparse.ArgumentParser(description="Makes the image of the page of a build in README.md.")
    parser.add_argument("file", type=Path, help="the PNG to write")
    arguments = parser.parse_args()
    if CHROMIUM is None:
        sys.exit(f"error: {WHY_NOT}")
    with recorded.workspace() as folder:
        recorded.run_matrix(folder)
        recorded.run(folder, "report")
        arguments.file.parent.mkdir(parents=True, exist_ok=True)
        draw(folder / "bk-out/report.html", arguments.file)


if __name__ == "__main__":
    main()

"""The page of 5,000 cells: how long `bk report` takes to write it, and a headless Chromium to open it.

Usage: python tests/bench/page.py [CELLS]. Prints the median and the least of five openings, in milliseconds from the start of the
navigation until the page is on the screen. A long view is drawn in pieces, so it has a second time: until all cells are there.
A page of one cell takes what the browser needs for itself.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from browser import CHROMIUM, WHY_NOT, Tab, browser
from many_cells import write_many

_OPENINGS = 5
_VIEWS = {
    "": "",
    "#view=grid": "td[data-cell]",
    "#view=list": ".cells [data-cell]",
    "#view=failures": "",
    "#view=times": "",
}
"""The addresses of the views, and what there is in one for each cell."""


def main() -> None:
    """Print the figures."""
    if CHROMIUM is None:
        sys.exit(WHY_NOT)
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        pages = {number: _written(folder / str(number), number) for number in (1, count)}
        (folder / "chromium").mkdir()
        with browser(folder / "chromium") as tab:
            tab.size(1400, 900)
            for number, page in pages.items():
                for view, each in _VIEWS.items() if number > 1 else [("", "")]:
                    openings = [_opened(tab, page.as_uri() + view, each, number) for _ in range(_OPENINGS)]
                    words = _words([opened for opened, _ in openings])
                    words += f"; all cells are there after {_words([whole for _, whole in openings])}" if each else ""
                    print(f"{number} cells, {view.removeprefix('#') or 'as it opens'}: {words}", flush=True)
            assert tab.problems == [], tab.problems


def _written(root: Path, count: int) -> Path:
    """Write a workspace of so many cells and their page. Return the page."""
    write_many(root, count, with_files=True)
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-I", "-m", "bkrules", "report"], cwd=root, check=True, capture_output=True)
    after, seconds = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - began
    page = root / "bk-out/report.html"
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(
        f"{count} cells: written in {seconds:.1f} s, {cpu:.1f} s of CPU; {page.stat().st_size / 1e6:.1f} MB", flush=True
    )
    return page


def _words(times: list[float]) -> str:
    return f"{statistics.median(times):.0f} ms, least {min(times):.0f} ms"


def _opened(tab: Tab, url: str, each: str, count: int) -> tuple[float, float]:
    """Return the milliseconds from the start of the navigation until two frames have been drawn, and until all cells are there."""
    tab.open("about:blank")
    tab.open(url)
    opened = tab.run("performance.now()")
    if each:
        tab.wait(f"document.querySelectorAll({each!r}).length === {count}")
    return float(opened), float(tab.run("performance.now()"))


if __name__ == "__main__":
    main()

"""The page of a build in a real browser: what a reader sees, hears and presses, and what hostile content cannot do."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, WHY_NOT, Tab, browser
from many_cells import write_many

from bkrules.report.kept_reports import all_kept, details_of, page_of
from bkrules.report.page import ASSETS, Page, render
from bkrules.report.page_cells import Details, Document

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&<!--\u2028]]>{{7*7}}\x1b[31m"
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason=WHY_NOT)


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with browser(tmp_path_factory.mktemp("chromium")) as tab:
        yield tab


def cell(test: str, worker: str, status: str = "passed", **more: object) -> Document:
    axes = {"compression": "gzip"}
    defaults: Document = {
        **{
            "matrix": 0,
            "name": f"{test}/worker={worker}/compression=gzip",
            "test": test,
            "worker": worker,
            "axes": axes,
        },
        **{
            "run": None,
            "status": status,
            "cached": False,
            "cache": None,
            "seconds": 1.25,
            "class": None,
            "reason": None,
        },
        **{"egress": [], "isolation": "full", "tainted": [], "unmet_faults": False, "attempts": [], "cases": 0},
        **{
            "phases": {"boot": 0.25, "run": 1.0},
            "pulled": {},
            "last": 1.0,
            "log": None,
            "why": "ran: no earlier run is known",
        },
    }
    return {**defaults, **more}


def small() -> tuple[Page, list[Details]]:
    cells = [
        cell("test_a", "oci"),
        cell(
            "test_a",
            "rootless",
            "failed",
            **{"class": "test", "reason": "t/test_a.py:3: assert 1 == 2"},
            earlier=[["passed", 1.0]],
        ),
        cell("test_b", "oci", cached=True, pulled={"library/bulk": [4, 6_300_000]}),
        cell("test_b", "rootless", "skipped", reason="no FUSE here", egress=[{"who": "curl", "what": "192.0.2.1:80"}]),
    ]
    cells[1]["earlier"] = [["passed", 1.0]]
    cells[1]["leaf"] = {"name": "input/tools/runc", "old": "sha256:aa", "new": "sha256:bb", "more": 2}
    page = Page("//t:m", matrices=[{"label": "//t:m", "exit_code": 3, "remarks": []}], cells=cells)
    details = [Details() for _ in cells]
    details[1] = Details(
        lines=[(5, "buildkitd", 'time="x" level=error msg="boom"'), (7, "cell", "fine")],
        logs={"test.log": "E   assert 1 == 2"},
        spans=[("commands", "buildctl build", 2, 9, "exit status 1")],
        requests=[(4, "GET", "/v2/library/bulk/blobs/sha256:00", 200, 1234)],
        cases=[{"name": "sub/one", "status": "failed", "seconds": 0.1, "reason": "no"}],
        key={"input/tools/runc": "sha256:bb", "salt": "1"},
        was={"input/tools/runc": "sha256:aa"},
    )
    return page, details


def opened(tab: Tab, folder: Path, page: Page, details: list[Details], address: str = "") -> None:
    """Open a page in the tab, which has no problem with it."""
    path = folder / "report.html"
    path.write_bytes(render(page, details).encode(errors="replace"))
    tab.problems.clear()
    tab.size(1280, 900)
    tab.open("about:blank")
    tab.open(path.as_uri() + address)


@needs_chromium
def test_the_grid_has_a_cell_for_each_worker(tab: Tab, tmp_path: Path) -> None:
    opened(tab, tmp_path, *small())
    tree = tab.accessible()
    assert ("heading", "failed //t:m") in tree
    assert [name for role, name in tree if role == "columnheader"] == ["test \\ worker", "oci", "rootless"]
    assert [name for role, name in tree if role == "gridcell"] == [
        "test_a/worker=oci/compression=gzip, passed, 1.25 s",
        "test_a/worker=rootless/compression=gzip, failed, 1.25 s",
        "test_b/worker=oci/compression=gzip, passed, cached",
        "test_b/worker=rootless/compression=gzip, skipped, 1.25 s",
    ]
    assert ("tab", "Grid") in tree and ("grid", "cells") in tree and ("searchbox", "find") in tree
    assert {name for role, name in tree if role == "combobox"} >= {"worker", "status", "columns", "group by"}
    assert not [role for role, name in tree if role in ("button", "link", "tab", "combobox", "searchbox") and not name]
    assert tab.problems == []


@needs_chromium
def test_everything_works_by_the_keyboard(tab: Tab, tmp_path: Path) -> None:
    opened(tab, tmp_path, *small())
    tab.press("n")
    assert tab.run("document.querySelector('dialog.cell').open")
    assert tab.run("document.activeElement.textContent").endswith("test_a/worker=rootless/compression=gzip")
    tab.press("j")
    assert "test_b/worker=oci" in tab.run("document.activeElement.textContent")
    tab.press("Escape")
    assert not tab.run("document.querySelector('dialog.cell').open")
    tab.settle()
    assert tab.run("document.activeElement.dataset.cell") == "2"
    tab.press("ArrowUp", "ArrowRight", "Enter")
    assert "test_a/worker=rootless" in tab.run("document.querySelector('#cell-name').textContent")
    tab.press("Escape", "/")
    assert tab.run("document.activeElement.id") == "q"
    tab.press(*"rootless")
    assert tab.run("document.querySelector('[role=status]').textContent") == "2 of 4 cells: 1 failed, 1 skipped"
    tab.press("Tab")
    tab.run("document.querySelector('[role=tab]').focus()")
    tab.press("ArrowRight", "ArrowRight")
    assert tab.run("document.activeElement.textContent") == "Failures"
    assert "Only with worker=rootless; all" in tab.run("document.querySelector('.view').textContent")
    tab.press("?")
    assert tab.run("document.querySelector('dialog.help').open")
    assert tab.problems == []


@needs_chromium
def test_a_cell_has_its_details(tab: Tab, tmp_path: Path) -> None:
    opened(tab, tmp_path, *small(), address="#cell=1")
    tab.wait("document.querySelector('.lines')")
    text = tab.run("document.querySelector('dialog.cell').textContent")
    for part in (
        "First differing leaf: input/tools/runc",
        "sha256:aa sha256:bb",
        "and 2 more",
        "E   assert 1 == 2",
        'level=error msg="boom"',
        "buildctl build",
        "GET /v2/library/bulk/blobs/sha256:00",
        "Sub-results (1)",
        "bk shell --at_failure '//t:m[test_a/worker=rootless/compression=gzip]'",
    ):
        assert part in text
    assert tab.run("document.querySelectorAll('.tree .new').length") == 1
    assert ("image", "passed 1.00 s, failed 1.25 s") in tab.accessible()
    assert tab.problems == []


@needs_chromium
@pytest.mark.parametrize("view", ["grid", "map", "failures", "list", "times", "pulled", "egress"])
def test_hostile_content_is_only_text(view: str, tab: Tab, tmp_path: Path) -> None:
    page, details = small()
    page.title = HOSTILE
    page.matrices[0].update(label=HOSTILE, remarks=[HOSTILE])
    page.remarks.append(HOSTILE)
    page.cells[1] = cell(
        f"test{HOSTILE}",
        HOSTILE,
        "failed",
        **{"class": HOSTILE, "reason": HOSTILE, "axes": {HOSTILE: HOSTILE, "__proto__": "x"}, "why": HOSTILE},
        egress=[{"who": HOSTILE, "what": HOSTILE}],
        pulled={HOSTILE: [1, 2]},
        attempts=[{"status": "failed", "seconds": 1, "reason": HOSTILE}] * 2,
    )
    details[1] = Details(
        lines=[(1, HOSTILE, HOSTILE)],
        logs={"test.log": HOSTILE, HOSTILE: HOSTILE},
        spans=[(HOSTILE, HOSTILE, 0, 9, HOSTILE)],
        requests=[(1, "GET", HOSTILE, 200, 1)],
        cases=[{"name": HOSTILE, "status": "failed", "seconds": 0, "reason": HOSTILE}],
        key={HOSTILE: HOSTILE, "a/b": "1", "a": "2", "__proto__/x": "3"},
        left_out=HOSTILE,
    )
    opened(tab, tmp_path, page, details, address=f"#view={view}")
    assert "alert(1)" in tab.run("document.querySelector('h1').textContent")
    tab.press("n")
    tab.wait("document.querySelector('.tree')")
    assert tab.run("document.querySelectorAll('img').length") == 0
    assert tab.run("document.querySelectorAll('script:not(.block):not([type])').length") == 1
    assert tab.problems == []


@needs_chromium
def test_a_policy_stops_what_an_escape_would_miss(tab: Tab, tmp_path: Path) -> None:
    opened(tab, tmp_path, *small())
    tab.run("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.bad = 1\">'); 0")
    tab.run("fetch('http://127.0.0.1:9/').catch(() => 'refused')")
    assert tab.run("window.bad") is None
    assert any("Content Security Policy" in problem for problem in tab.problems)


@needs_chromium
def test_a_link_has_the_filters(tab: Tab, tmp_path: Path) -> None:
    opened(tab, tmp_path, *small(), address="#worker=oci&view=list&nonsense=1&group=none")
    assert tab.run("document.querySelector('[role=status]').textContent") == "2 of 4 cells: 2 passed"
    opened(tab, tmp_path, *small(), address="#view=nonsense&columns=nonsense&q=zzz")
    assert tab.run("document.querySelector('[role=status]').textContent") == "No cell matches these filters."
    assert tab.problems == []


@needs_chromium
def test_a_phone_and_the_dark_and_paper(tab: Tab, tmp_path: Path) -> None:
    for view in ("grid", "map", "failures", "list", "times", "pulled"):
        opened(tab, tmp_path, *small(), address=f"#view={view}")
        tab.size(390, 800, dark=True)
        tab.settle()
        assert tab.run("document.documentElement.scrollWidth") <= 390, view
        assert tab.run("getComputedStyle(document.body).backgroundColor") == "rgb(15, 19, 24)"
    assert tab.printed().startswith(b"%PDF-")
    assert tab.problems == []


@needs_chromium
def test_five_thousand_cells_are_all_there(tab: Tab, tmp_path: Path) -> None:
    (kept,) = all_kept(write_many(tmp_path / "many", 5000) / "bk-out")
    page = page_of([kept], str(kept.label), lambda _: None)
    opened(tab, tmp_path, page, list(details_of([kept])))
    assert tab.run("document.querySelectorAll('.square').length") == 5000, "a map at first"
    tab.press("1")
    tab.wait("document.querySelectorAll('td[data-cell]').length === 5000")
    assert tab.run("document.querySelectorAll('th[scope=col]').length") == 11
    tab.run("document.querySelector('.scroll').scrollTop = 3000")
    assert tab.run("document.querySelector('thead th').getBoundingClientRect().top >= 0"), (
        "the heads of the columns stay in view"
    )
    tab.press("4")
    tab.wait("document.querySelectorAll('.part-of-rows > div').length === 5000")
    assert tab.run("document.querySelector('.cells').getAttribute('aria-rowcount')") == "5001"
    assert tab.run("[...document.querySelectorAll('.part-of-rows')].at(-1).lastChild.ariaRowIndex") == "5001"
    tab.run("document.querySelector('.part-of-rows button').focus()")
    tab.press("End")
    assert ("rowheader", page.cells[-1]["name"]) in tab.accessible(), "a row out of view comes into view with the focus"
    tab.press("/", *"-passed")
    others = sum(cell["status"] != "passed" for cell in page.cells)
    tab.wait(f"document.querySelectorAll('.part-of-rows > div').length === {others}")
    assert tab.problems == []


@needs_chromium
def test_the_list_works_by_the_keyboard(tab: Tab, tmp_path: Path) -> None:
    page, details = small()
    for seconds, each in zip((2, 4, 1, 3), page.cells, strict=True):
        each["seconds"] = seconds
    opened(tab, tmp_path, page, details, address="#view=list")
    tab.run("document.querySelectorAll('.heads button')[2].click()")
    tab.settle()
    names = "[...document.querySelectorAll('[role=rowheader]')].map((one) => one.textContent.replace('/compression=gzip', ''))"
    order = ["test_a/worker=rootless", "test_b/worker=rootless", "test_a/worker=oci", "test_b/worker=oci"]
    assert tab.run(names) == order
    assert tab.run("document.querySelector('[aria-sort=descending]').textContent") == "time"
    tab.run("document.querySelector('.part-of-rows button').focus()")
    tab.press("ArrowDown", "Enter")
    heading = "document.querySelector('#cell-name').textContent"
    assert order[1] in tab.run(heading)
    tab.press("j")
    assert order[2] in tab.run(heading), "the next cell is the next row"
    tab.press("Escape")
    assert tab.run("document.activeElement.textContent").startswith(order[2])
    tab.press("End")
    assert tab.run("document.activeElement.textContent").startswith(order[3])
    tab.press("ArrowDown", "Home", "ArrowUp")
    assert tab.run("document.activeElement.textContent").startswith(order[0])
    assert tab.problems == []


@needs_chromium
def test_all_rows_of_a_list_are_printed(tab: Tab, tmp_path: Path) -> None:
    page = Page("//t:m", matrices=[{"label": "//t:m", "exit_code": 0, "remarks": []}])
    page.cells = [cell(f"test_{number}", "oci") for number in range(2000)]
    opened(tab, tmp_path, page, [Details() for _ in page.cells], address="#view=list")
    whole = len(re.findall(rb"/Type /Page\b", tab.printed()))
    tab.press("/", *"test_1999")
    assert len(re.findall(rb"/Type /Page\b", tab.printed())) == 1
    assert whole > 20
    assert tab.run("document.querySelectorAll('.part-of-rows > div').length") == 1


@needs_chromium
@pytest.mark.parametrize(("view", "heads", "count"), [("list", ".cells .heads", 6), ("grid", "thead", 2)])
def test_the_heads_of_columns_are_on_each_printed_page(
    view: str, heads: str, count: int, tab: Tab, tmp_path: Path
) -> None:
    page = Page("//t:m", matrices=[{"label": "//t:m", "exit_code": 0, "remarks": []}])
    page.cells = [cell(f"test_{number}", "oci") for number in range(300)]
    opened(tab, tmp_path, page, [Details() for _ in page.cells], address=f"#view={view}")
    texts = on_each_page(tab.printed())
    tab.run(f"document.querySelector('{heads}').remove()")
    assert len(texts - on_each_page(tab.printed())) >= count, "a word may be in parts"
    assert tab.problems == []


def on_each_page(pdf: bytes) -> set[bytes]:
    """Return the texts that are on all pages of a PDF, as the numbers of their glyphs."""
    streams = [zlib.decompress(one) for one in re.findall(rb"FlateDecode.*?stream\r?\n(.*?)endstream", pdf, re.DOTALL)]
    pages = [set(re.findall(rb"<([0-9A-Fa-f]+)> Tj", one)) for one in streams if b" Tj" in one]
    assert len(pages) > 3
    return set.intersection(*pages)


@needs_chromium
def test_words_are_found_in_logs_too(tab: Tab, tmp_path: Path) -> None:
    """When the reader wants that. The blocks are read one after the other, and a link has the choice."""
    page, details = small()
    details[0].lines = [(1, "buildkitd", "Needle in a line")]
    details[2].logs = {"test.log": "a needle, and more"}
    opened(tab, tmp_path, page, details)
    counts = "document.querySelector('[role=status]').textContent"
    tab.press("/", *"needle")
    assert tab.run(counts) == "No cell matches these filters."
    tab.run("document.getElementById('logs').click()")
    tab.wait(f"{counts} === '2 of 4 cells: 2 passed'")
    assert tab.run("[...document.querySelectorAll('td[data-cell]')].map((one) => one.ariaLabel)") == [
        "test_a/worker=oci/compression=gzip, passed, 1.25 s",
        "test_b/worker=oci/compression=gzip, passed, cached",
    ]
    tab.run("document.querySelector('td[data-cell]').click()")
    tab.wait("document.querySelector('dialog input')?.value === 'needle'")
    tab.press("Escape")  # which leads back to where the reader typed
    tab.press(*" -more")
    tab.wait(f"{counts} === '1 of 4 cells: 1 passed'")
    address = tab.run("location.hash")
    tab.open("about:blank")
    tab.open((tmp_path / "report.html").as_uri() + address)
    tab.wait(f"{counts} === '1 of 4 cells: 1 passed'")
    assert ("checkbox", "in logs too") in tab.accessible()
    assert tab.problems == []


def test_the_page_needs_nothing_from_elsewhere() -> None:
    html = render(*small())
    assert re.findall(r"""(?:src|href)=["']?([^"'\s>]+)""", html) == ["#results"]
    assert "http://www.w3.org/2000/svg" in html  # a name, and no address
    assert re.findall(r"https?://[\w.]+", html) == ["http://www.w3.org"]


def test_the_failures_are_there_without_javascript() -> None:
    html = render(*small())
    static = html[html.index("<noscript>") : html.index("</noscript>")]
    assert "t/test_a.py:3: assert 1 == 2" in static and "4 cells" in static


def test_the_assets_cannot_end_their_element() -> None:
    for name in ("page.js", "page.css"):
        text = (ASSETS / name).read_text()
        assert not re.search(r"</s|<!--|innerHTML|insertAdjacent|document\.write|eval\(", text), name

"""The documents as a site: it builds without a network and without a warning, and its links lead somewhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from bkrules import cli
from bkrules.plugin import spec
from bkrules.testing.sandbox import Sandbox

ROOT = Path(__file__).parents[1]
PARTS = ("Tutorial", "How-to guides", "Reference", "Explanation")


def build(root: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Build the site of a tree, in a network namespace that has no interface but its loopback."""
    command = ["unshare", "--net", sys.executable, str(root / "docs/site/build_site.py"), str(out)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


class Page(HTMLParser):
    """What a page links to, what it loads, and the names of its parts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids.add(found.get("id") or "")
        if tag == "a" and found.get("href"):
            self.links.append(str(found["href"]))
        if found.get("src"):
            self.loads.append(str(found["src"]))
        if tag == "link" and found.get("href"):
            self.loads.append(str(found["href"]))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of this repository."""
    out = tmp_path_factory.mktemp("site")
    done = build(ROOT, out)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_links_lead_to_pages_and_to_their_parts(site: Path) -> None:
    pages = {path: Page(path.read_text()) for path in site.rglob("*.html")}
    assert len(pages) > 50
    lost, count = [], 0
    for path, page in pages.items():
        for link in [*page.links, *page.loads]:
            parts = urlsplit(link)
            if parts.scheme in ("http", "https") and link in page.links:
                continue
            count += 1
            target = Path(os.path.normpath(path.parent / unquote(parts.path))) if parts.path else path
            is_lost = parts.scheme or not target.is_file()
            if is_lost or (parts.fragment and target in pages and parts.fragment not in pages[target].ids):
                lost.append(f"{path.relative_to(site)}: {link}")
    assert lost == []
    assert count > 1000


def test_every_page_is_in_one_of_the_four_parts(site: Path) -> None:
    index = (site / "index.html").read_text()
    captions = re.findall(r'<p class="caption" role="heading"><span class="caption-text">([^<]+)<', index)
    assert captions == list(PARTS)
    sidebar = index[index.index("sidebar-tree") :]
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    pages = [name.removesuffix(".md") + ".html" for name in listed.split() if name != "README.md"]
    assert len(pages) > 40
    assert [name for name in pages if f'href="{name}"' not in sidebar] == []


def test_no_markup_is_left_in_the_text(site: Path) -> None:
    """Code that a bar of a table has cut in two, and links that are none."""
    found = []
    for path in site.rglob("*.html"):
        text = re.sub(r"<(code|pre|script|style|head)\b.*?</\1>", "", path.read_text(), flags=re.DOTALL)
        text = re.sub(r"<[^>]*>", "", text)
        found += [f"{path.relative_to(site)}: {one}" for one in re.findall(r".{0,40}(?:`|\]\().{0,40}", text)]
    assert found == []


def test_a_newcomer_needs_three_clicks_and_five_commands(site: Path) -> None:
    """From the first page to a passing cell, apart from mkdir, cd and cat. `tests/integration/test_first_hour.py` types them."""
    clicks, seen, near = 0, set[Path](), {site / "index.html"}
    while site / "docs/first-hour.html" not in near:
        clicks, seen = clicks + 1, seen | near
        links = [
            (page, urlsplit(link).path) for page in near for link in Page(page.read_text()).links if ":" not in link
        ]
        near = {Path(os.path.normpath(page.parent / path)) for page, path in links if path.endswith(".html")} - seen
        assert clicks <= 3
    sessions = re.findall(
        r"^```console\n(.*?)^```$", (ROOT / "docs/first-hour.md").read_text(), re.MULTILINE | re.DOTALL
    )
    before = "".join(sessions).partition("PASSED")[0]
    commands = [
        line for line in re.findall(r"^\$ (.*)$", before, re.MULTILINE) if line.split()[0] not in ("mkdir", "cd", "cat")
    ]
    assert commands[-1] == "bk test //..."
    assert len(commands) <= 5


def test_the_reference_has_all_that_it_is_made_from(site: Path) -> None:
    def headings(page: str) -> set[str]:
        return set(re.findall(r'<h[23]><code[^>]*><span class="pre">(.*?)</span></code>', _joined(site / page)))

    commands = cli._parser(cli.MODULES)[1]
    assert {f"bk {name}" for name in commands} <= headings("reference/options.html")
    hooks = {name for name, one in vars(spec).items() if hasattr(one, f"{spec.GROUP}_spec")}
    assert len(hooks) > 15
    assert headings("reference/hooks.html") == hooks
    page = (site / "reference/sandbox.html").read_text()
    public = [
        name for name, one in vars(Sandbox).items() if name[0] != "_" and (callable(one) or isinstance(one, property))
    ]
    assert len(public) > 20
    assert [name for name in public if f">{name}<" not in page] == []


def _joined(page: Path) -> str:
    return page.read_text().replace('</span> <span class="pre">', " ")


@pytest.mark.parametrize(
    ("page", "warning"),
    [
        ("[tests](docs/tests.md) and [its part](docs/tests.md#a-part)\n", ""),
        ("[nowhere](docs/none.md)\n", "docs/none.md"),
        ("[no such part](docs/tests.md#none)\n", "none"),
        ("```python\na ? b\n```\n", "'a ? b"),
        ("```{include} none.txt\n```\n", "none.txt"),
    ],
    ids=["whole", "page", "heading", "code", "directive"],
)
def test_a_fault_of_a_page_ends_the_build(tmp_path: Path, page: str, warning: str) -> None:
    shutil.copytree(ROOT / "docs/site", tmp_path / "docs/site", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README", "caching", "hooks"):
        (tmp_path / f"docs/{name}.md").write_text(f"# {name}\n")
    (tmp_path / "docs/tests.md").write_text("# Tests\n\n## A part\n\nText.\n")
    (tmp_path / "README.md").write_text(f"# bk\n\n{page}")

    done = build(tmp_path, tmp_path / "out")

    assert done.returncode == (1 if warning else 0), done.stdout + done.stderr
    assert warning in done.stderr

"""The documents as a site: `python docs/site/build_site.py FOLDER`. It needs no network, and a warning is an error.

The pages are the Markdown files of the repository, at their places, and the reference that `generated.py` makes from the code.
`PARTS` puts them into the four parts of Diátaxis: a page of `docs` that no part names is a how-to guide.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

import generated
from sphinx.cmd.build import build_main

ROOT = Path(__file__).resolve().parents[2]
SITE = Path(__file__).parent
INDEX = "index.md"
PARTS = {
    "Tutorial": ["docs/first-hour.md", "docs/own-daemons.md", "docs/own-dockerfile.md", "docs/own-worker.md"],
    "How-to guides": ["docs/README.md", "docs/install.md", "docs/tests.md"],
    "Reference": [
        "docs/commands.md",
        *(f"reference/{name}.md" for name in generated.PAGES),
        "bkrules/rules/README.md",
        "docs/build-files.md",
        "docs/hooks.md",
        "docs/limits.md",
        "docs/mistakes.md",
        "docs/buildkit-suite.md",
        "bkrules/testing/README.md",
        "plugins/*/README.md",
        "targets/**/README.md",
        "CHANGELOG.md",
    ],
    "Explanation": [
        "docs/comparison.md",
        "docs/buildkit-maintainers.md",
        "docs/performance.md",
        "docs/isolation.md",
        "SECURITY.md",
        "bkrules/README.md",
        "docs/design/**/*.md",
        "tests/**/README.md",
    ],
}
"""The pages of each part, in their order."""
GUIDES = ["docs/*.md", "plugins/README.md", "CONTRIBUTING.md"]
"""The how-to guides after the first ones, which come in the order of docs/README.md."""
_LINK = re.compile(r"(\[(?:[^\[\]]|\[[^\]]*\])*\]\s?)\(([^)#:\s]+)(#[^)\s]*)?\)")


def parts() -> dict[str, list[str]]:
    """Return the pages of each part, as paths relative to the repository, each page once."""
    contents = (ROOT / "docs/README.md").read_text()
    listed = [os.path.normpath(f"docs/{link}") for link in re.findall(r"\(([\w./-]+\.md)", contents)]
    rest = sorted(_found(GUIDES), key=lambda page: listed.index(page) if page in listed else len(listed))
    named = {part: _found(patterns) for part, patterns in PARTS.items()}
    taken = {page for pages in named.values() for page in pages}
    named["How-to guides"] += [page for page in rest if page not in taken]
    return named


def _found(patterns: list[str]) -> list[str]:
    pages = [page for one in patterns for page in (_matches(one) if "*" in one else [one])]
    return [page for page in pages if page.startswith("reference/") or (ROOT / page).is_file()]


def _matches(pattern: str) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in ROOT.glob(pattern))


def collect(folder: Path) -> None:
    """Write the pages of the site into an empty folder, with the files that they link to."""
    pages = [page for part in parts().values() for page in part]
    for page in ["README.md", *pages]:
        if not page.startswith("reference/"):
            _write(folder / _name(page), _linked(page, {"README.md", *pages}, folder))
    for name, text in generated.PAGES.items():
        _write(folder / f"reference/{name}.md", text())
    shutil.copytree(SITE / "_static", folder / "_static")
    shutil.copy(SITE / "conf.py", folder)
    with (folder / INDEX).open("a") as index:
        index.writelines(_contents(part, listed) for part, listed in parts().items())


def _name(page: str) -> str:
    return INDEX if page == "README.md" else page


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _contents(part: str, pages: list[str]) -> str:
    names = "\n".join(page.removesuffix(".md") for page in pages)
    return f"\n```{{toctree}}\n:hidden:\n:caption: {part}\n\n{names}\n```\n"


def _linked(page: str, pages: set[str], folder: Path) -> str:
    """Return the text of a page. Its links to other files lead to copies of them; those to folders become plain text."""

    def link(match: re.Match[str]) -> str:
        text, target, heading = match[1], match[2], match[3] or ""
        file = os.path.normpath(os.path.join(os.path.dirname(page), target))
        if file in pages:
            return f"{text}({os.path.relpath(_name(file), os.path.dirname(page) or '.')}{heading})"
        if (ROOT / file).is_dir():
            return text.strip()[1:-1]
        if (ROOT / file).is_file():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, folder / file)
        return match[0]

    return _LINK.sub(link, (ROOT / page).read_text())


def main() -> int:
    """Build the site. Return Sphinx's exit code, which is 1 after a warning."""
    parser = argparse.ArgumentParser(description="Builds the documents as a site.")
    parser.add_argument("folder", type=Path, help="where to write the site; its first page is index.html")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bk-site-") as pages:
        collect(Path(pages))
        return build_main(["-q", "-W", "--keep-going", "-E", "-d", f"{pages}/.doctrees", pages, str(arguments.folder)])


if __name__ == "__main__":
    sys.exit(main())

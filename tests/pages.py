"""The pages of the documentation as tests run them: their files, and their sessions on a terminal."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from spaces import Space

DOCS = Path(__file__).parents[1] / "docs"


def files_of(page: str, *languages: str) -> dict[str, str]:
    """The files that a page shows, by the names in the first lines of their blocks."""
    text = (DOCS / page).read_text()
    pattern = rf"^```(?:{'|'.join(languages)})\n# (\S+)\n(.*?)^```$"
    return dict(re.findall(pattern, text, re.MULTILINE | re.DOTALL))


def write(space: Space, files: Mapping[str, str]) -> None:
    """Write files of a page into a workspace."""
    for name, text in files.items():
        space.write(name, text)


def commands_of(page: str) -> list[str]:
    """The commands of the blocks of a page that are to be typed into a shell."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bkrules.images import layout
from bkrules.images.layer import Entry, layer


@pytest.fixture
def write() -> Callable[..., Path]:
    """Writes an image of these files, given as path=text, and returns its folder."""

    def run(folder: Path, files: dict[str, str], base: Path | None = None, cmd: tuple[str, ...] = ()) -> Path:
        tar = layer({path: Entry(text.encode()) for path, text in files.items()})
        layout.write_image(folder, tar, architecture="amd64", cmd=cmd, env=(), base=base)
        return folder

    return run

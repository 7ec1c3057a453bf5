"""`wget` of the image alpine: busybox's, with the option that Debian's lacks."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "targets/images/wget"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-q", "-O-", "http://a b/"], "busybox|wget|-q|-O-|http://a b/|"),
        (["-T", "2", "-q", "http://a/"], "timeout|2|busybox|wget|-q|http://a/|"),
        (["-q", "-T2", "http://a/"], "timeout|2|busybox|wget|-q|http://a/|"),
        ([], "busybox|wget|"),
    ],
)
def test_a_limit_becomes_one_of_timeout(tmp_path: Path, words: list[str], said: str) -> None:
    for name in ("busybox", "timeout"):
        (tmp_path / name).write_text('#!/bin/sh\nprintf "%s|" "${0##*/}" "$@"\n')
        (tmp_path / name).chmod(0o755)

    done = subprocess.run(
        ["/bin/sh", SCRIPT, *words], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=True
    )

    assert done.stdout == said

"""The gallery of mistakes: what bk prints is what `docs/mistakes.md` shows. `python tests/mistakes.py` writes the page again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import mistakes
import pytest
from mistakes import PAGE, SECTIONS, Mistake, Started

from bkrules import errors

ALL = [mistake for section in mistakes.sections() for mistake in section.mistakes]
PARTS = {
    part[4 : part.index("\n")]: part.rstrip("\n") + "\n"
    for part in re.split(r"^(?=##+ )", PAGE.read_text(), flags=re.MULTILINE)
    if part.startswith("### ")
}
"""The parts of the page, by the names of their mistakes."""


@pytest.fixture(scope="module")
def bk() -> Iterator[Started]:
    with closing(Started()) as started:
        yield started


@pytest.mark.parametrize("mistake", ALL, ids=lambda mistake: mistake.name)
def test_what_bk_says(mistake: Mistake, tmp_path: Path, bk: Started, request: pytest.FixtureRequest) -> None:
    if mistake.built:
        request.getfixturevalue("built")
    assert mistakes.told(mistake, tmp_path, bk) == PARTS[mistake.name]


def test_the_page_has_every_mistake_in_order() -> None:
    assert len({mistake.name for mistake in ALL}) == len(ALL)
    assert mistakes.page(PARTS) == PAGE.read_text()


def test_every_section_is_in_the_gallery() -> None:
    assert {path.stem for path in (mistakes.REPOSITORY / "tests/gallery").iterdir()} == set(SECTIONS)


@pytest.mark.parametrize("name", PARTS)
def test_a_message_is_for_its_reader(name: str) -> None:
    """It is no traceback, fits on a screen, and says more than what is wrong: where, or what to do."""
    printed = PARTS[name].split("```console\n")[1].split("```")[0].splitlines()
    (code,) = re.findall(r"^Exit code (\d+)\.$", PARTS[name], re.MULTILINE)
    assert int(code) != errors.BUG
    assert "Traceback" not in "\n".join(printed)
    assert len(printed) <= 30
    said = next((number for number, line in enumerate(printed) if re.match(r" *error: |FAILED|warning: ", line)), None)
    assert said is not None
    assert printed[said].startswith("warning: ") or printed[said + 1].startswith("  ")

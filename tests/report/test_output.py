"""What tests print, as blocks and line by line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from spaces import wait_for

from bkrules.execution.result import Result
from bkrules.model import digest
from bkrules.model.action import FileNode
from bkrules.report.output import Follower, block, folder_of

Follow = Callable[[], Follower]


def test_a_log_is_one_block(cell: Callable[..., Result], tmp_path: Path) -> None:
    result = cell("failed", failure="test")
    assert result.action.cell is not None
    log = tmp_path / folder_of(result.action.cell) / "test.log"
    assert block(result, tmp_path) == ""
    log.parent.mkdir(parents=True)
    log.write_text("one\ntwo\n\n")

    first, *lines, last = block(result, tmp_path).splitlines()

    assert first == "==================== Test output for //t:m[test_it/worker=oci/compression=gzip]:"
    assert (lines, last) == (["one", "two"], "=" * 80)


def test_the_log_of_a_hit_is_that_of_the_cache(cell: Callable[..., Result], tmp_path: Path) -> None:
    kept = tmp_path / "blob"
    kept.write_text("kept\n")
    node = FileNode(digest.of_bytes(b"kept\n"), str(kept))
    assert "\nkept\n" in block(replace(cell("passed", cached=True), outputs={"test.log": node}), tmp_path)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "cell/test.log"


@pytest.fixture
def follow(said: list[str], log: Path) -> Iterator[Follow]:
    """Follows the log until the test ends."""
    begun: list[Follower] = []

    def begin() -> Follower:
        begun.append(Follower(log, said.append))
        return begun[-1]

    yield begin
    for follower in begun:
        follower.stop()


def test_each_line_is_said_when_it_is_whole(follow: Follow, said: list[str], log: Path) -> None:
    follow()
    log.parent.mkdir()
    with log.open("a") as file:
        file.write("one\ntw")
        file.flush()
        wait_for(lambda: said == ["one"])
        file.write("o\n\xe4\n")
        file.flush()
        wait_for(lambda: said == ["one", "two", "\xe4"])


def test_the_log_of_another_run_is_not_said(follow: Follow, said: list[str], log: Path) -> None:
    log.parent.mkdir()
    log.write_text("old\n")
    follower = follow()
    log.unlink()
    log.write_text("new\n")
    follower.stop()

    assert said == ["new"]


def test_each_attempt_has_a_log_of_its_own(follow: Follow, said: list[str], log: Path) -> None:
    log.parent.mkdir()
    follower = follow()
    log.write_text("first\nwithout an end")
    wait_for(lambda: said == ["first"])
    log.rename(log.with_name("attempt_1"))
    log.write_text("second\n")
    follower.stop()

    assert said == ["first", "without an end", "second"]


def test_the_output_of_a_test_in_a_class_is_found(cell: Callable[..., Result], tmp_path: Path) -> None:
    result = cell("failed")
    assert result.action.cell is not None
    in_class = replace(result.action.cell, test="TestIt::test_it")
    log = tmp_path / in_class.matrix.package / in_class.matrix.name / in_class.folder / "test.log"
    log.parent.mkdir(parents=True)
    log.write_text("said")

    assert "\nsaid\n" in block(replace(result, action=replace(result.action, cell=in_class)), tmp_path)

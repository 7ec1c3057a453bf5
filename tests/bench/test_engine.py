"""The engine's bench is right: its graphs are what they should be, its checks fail when they should, its table is whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from bench import engine
from bench.graphs import Graph
from bench.kinds import Failed
from bench.peers import TOOLS
from bench.tools import Ninja

from bkrules.plugin import host


def built(folder: Path, size: int = 3) -> Graph:
    graph = Graph(folder, size)
    graph.write_inputs()
    for source, made in graph.pairs():
        shutil.copy(folder / source, folder / made)
    return graph


def test_every_input_is_another(tmp_path: Path) -> None:
    graph = built(tmp_path, 205)

    texts = {(tmp_path / source).read_text() for source, _ in graph.pairs()}

    assert len(texts) == 205
    assert {len(text) for text in texts} == {64}
    assert [len(names) for names in graph.packages().values()] == [100, 100, 5]


def test_a_copy_that_is_right_passes(tmp_path: Path) -> None:
    graph = built(tmp_path)

    before = graph.stamps()
    graph.check_bytes()
    graph.check_untouched(before)


@pytest.mark.parametrize(
    "harm",
    [
        lambda made: made.unlink(),
        lambda made: made.write_text("other"),
    ],
)
def test_a_copy_that_is_missing_or_other_is_seen(tmp_path: Path, harm: Callable[[Path], object]) -> None:
    graph = built(tmp_path)
    harm(tmp_path / "p000/f00001.out")

    with pytest.raises(Failed, match=r"f00001\.out"):
        graph.check_bytes()


def test_a_null_build_that_writes_is_seen(tmp_path: Path) -> None:
    graph = built(tmp_path)
    before = graph.stamps()
    os.utime(tmp_path / "p000/f00002.out", (1, 1))

    with pytest.raises(Failed, match="was touched"):
        graph.check_untouched(before)
    graph.check_untouched(before, but="p000/f00002.out")


def test_an_edit_that_did_not_arrive_is_seen(tmp_path: Path) -> None:
    graph = built(tmp_path)

    assert graph.edit(1, 1) == "p000/f00001.out"

    with pytest.raises(Failed, match="has not the bytes"):
        graph.check_bytes()


def test_every_tool_is_told_of_every_copy(tmp_path: Path) -> None:
    for kind in TOOLS:
        tool = kind("/nowhere")
        graph = tool.graph(tmp_path, 3)
        described = "".join(
            file.read_text() for file in graph.folder.rglob("*") if file.is_file() and file.suffix != ".in"
        )
        assert [f"{name}.out" in described for name in ("f00000", "f00001", "f00002", "f00003")] == [*[True] * 3, False]
        assert tool.command(graph)[0] == "/nowhere"


@pytest.mark.skipif(bool(host.probe().lacks()), reason="this machine cannot run cells")
def test_the_table_has_every_race(capsys: pytest.CaptureFixture[str]) -> None:
    assert engine.main(["--sizes", "2,3", "--clean", "3", "--rounds", "1", "--tools", "bk"]) == 0

    said = capsys.readouterr().out
    for row in ("null build, 2 ", "null build, 3 ", "one change of 3 ", "clean build, 3 ", "all from cache, 3 "):
        assert said.count(f"\n{row}") == 3  # wall, processor, memory
    assert "python -c pass" in said


@pytest.mark.skipif(bool(host.probe().lacks()), reason="this machine cannot run cells")
def test_a_tool_that_fails_ends_the_bench(tmp_path: Path) -> None:
    with engine.cgroup() as group, pytest.raises(Failed, match=r"[\d.]+ [\d.]+ \d+ 1\n"):
        engine.Bench(tmp_path, group, [Ninja("/bin/false")], [1], 1).prepare()

"""Tests of the timeline of a cell."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bkrules.execution import timeline

LONG = "x" * 200_000


def test_logs_are_merged_by_their_times(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps({"began": 1_790_000_000.5}))
    (tmp_path / "buildkitd.log").write_text(
        'time="2026-09-21T14:13:21Z" level=info msg=one\nno own time\ntime="2026-09-21T14:13:23Z" msg=late\n'
    )
    (tmp_path / "stargz.log").write_text(f'{{"level":"info","msg":"{LONG}","time":"2026-09-21T14:13:21.250000000Z"}}\n')
    (tmp_path / "cell.log").write_text('time="2026-09-21T16:13:21.125000+02:00" level=info msg="$ buildctl"\n')
    (tmp_path / "test.log").write_text("not a part of it\n")

    timeline.write(tmp_path)

    lines = (tmp_path / "timeline.log").read_text().split("\n")
    assert [line[:20].split() for line in lines[:-1]] == [
        ["0.500", "buildkitd"],
        ["0.500", "buildkitd"],
        ["0.625", "cell"],
        ["0.750", "stargz"],
        ["2.500", "buildkitd"],
    ]
    assert lines[1].endswith("no own time")
    assert LONG in lines[3]
    timeline.write(tmp_path)
    assert (tmp_path / "timeline.log").read_text().split("\n") == lines, "it is no part of itself"


def test_times_never_go_back_in_a_log(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text('time="2026-09-21T14:13:21Z" b\ntime="2026-09-21T14:13:20Z" a\n')
    assert list(timeline.lines(tmp_path)) == [
        '    0.000  a  time="2026-09-21T14:13:21Z" b',
        '    0.000  a  time="2026-09-21T14:13:20Z" a',
    ]


def test_only_a_line_feed_ends_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_bytes("one\u2028still one\x0band \x00\xff\r\n".encode("latin-1", "ignore"))
    assert len(list(timeline.lines(tmp_path))) == 1


def test_no_logs_make_no_lines(tmp_path: Path) -> None:
    assert list(timeline.lines(tmp_path)) == []


def test_what_is_no_log_is_not_read(tmp_path: Path) -> None:
    """A bk that was killed has not cleaned the folder of its cell."""
    (tmp_path / "host").write_text("a secret\n")
    (tmp_path / "cell").mkdir()
    (tmp_path / "cell/a.log").symlink_to(tmp_path / "host")
    (tmp_path / "cell/b.log").mkdir()
    os.mkfifo(tmp_path / "cell/c.log")
    (tmp_path / "cell/d.log").write_text("kept\n")

    assert [path.name for path in timeline.kept(tmp_path / "cell", "*.log")] == ["d.log"]
    assert [line.split()[-1] for line in timeline.lines(tmp_path / "cell")] == ["kept"]


@pytest.mark.parametrize(
    "time", ["2026-99-99T99:99:99Z", "0001-01-01T00:00:00+23", "2026-09-21T:::Z", "9999-12-31T23:59:59.-"]
)
def test_digits_that_are_no_time(tmp_path: Path, time: str) -> None:
    (tmp_path / "a.log").write_text(f'time="{time}" msg\n')
    assert [line.split()[-1] for line in timeline.lines(tmp_path)] == ["msg"]

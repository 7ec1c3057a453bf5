"""The whole table: its ratios and intervals, the comparison with an earlier run, the chart, and a run at the smallest size."""

from __future__ import annotations

import json
from fnmatch import fnmatch
from pathlib import Path
from xml.etree import ElementTree

import pytest
from bench import __main__ as whole
from bench import pull
from bench.chart import svg
from bench.rows import Measured, Row, from_file, text, to_file, worse

from bkrules.plugin import host

_CANNOT = pytest.mark.skipif(bool(host.probe().lacks()), reason="this machine cannot run cells")
_STARTS = "bk --version*;null build, 2 */ python*"


def measured(*ratios: float, work: str = "null build", peer: str = "ninja", goal: float = 1.3) -> Measured:
    return Measured(Row(work, peer, goal), ratios, [1.0] * len(ratios))


def test_the_ratio_is_that_of_the_rounds() -> None:
    """A slow minute meets both sides: the medians of each side would give 3."""
    one = Measured(Row("null build", "ninja", 1), [2.0, 20.0, 6.0], [1.0, 10.0, 2.0])

    assert one.ratio == 2.0
    assert one.interval() == (2.0, 3.0)


def test_an_interval_of_equal_rounds_is_a_point_and_that_of_others_holds_the_ratio() -> None:
    assert measured(2.0, 2.0, 2.0).interval() == (2.0, 2.0)

    one = measured(1.0, 1.1, 1.2, 1.3, 4.0)
    low, high = one.interval()

    assert 1.0 <= low < one.ratio < high <= 4.0
    assert one.interval() == (low, high)


def test_a_row_that_is_more_than_5_percent_worse_is_marked(tmp_path: Path) -> None:
    file = tmp_path / "before.json"
    to_file(file, [measured(1.0, work="a"), measured(1.0, work="b"), measured(1.0, work="gone")], ["here"])
    now = [measured(1.04, work="a"), measured(1.06, work="b"), measured(9.0, work="new")]

    before = from_file(file)

    assert worse(now, before) == ["b / ninja"]
    lines = text(now, before).splitlines()
    assert ["worse" in line for line in lines] == [False, False, True, False]
    assert "worse" not in text(now, {})


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"schema": 2, "rows": []}', '{"schema": 1}', '{"schema": 1, "rows": [{"work": "a"}]}']
)
def test_another_file_is_refused(tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "before.json"
    file.write_text(content)

    assert whole.main([f"--compare={file}"]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_rows_that_do_not_exist_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert whole.main(["--rows=null bild*"]) == 2
    assert "null build, 10,000 / ninja" in capsys.readouterr().err


def test_each_row_is_in_the_chart() -> None:
    rows = [measured(0.5, 0.6, work="less <than> before"), measured(30.0, goal=5)]

    tree = ElementTree.fromstring(svg(rows))

    name = "{http://www.w3.org/2000/svg}"
    dots = [float(dot.attrib["cx"]) for dot in tree.iter(f"{name}circle")]
    assert len(dots) == 2
    assert dots[0] < dots[1]
    texts = [one.text for one in tree.iter(f"{name}text")]
    assert {"less <than> before / ninja", "null build / ninja", "0.55", "30.00"} <= set(texts)


@_CANNOT
def test_it_works_at_the_smallest_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is installed for these rows. A planted file of an earlier run, in which bk was faster than light, fails it."""
    file, picture = tmp_path / "now.json", tmp_path / "chart.svg"

    assert whole.main(["--small", f"--rows={_STARTS}", f"--json={file}", f"--chart={picture}"]) == 0

    document = json.loads(file.read_text())
    assert [row["work"] for row in document["rows"]] == ["bk --version", "null build, 2"]
    assert all(seconds > 0 for row in document["rows"] for seconds in (*row["bk"], *row["other"]))
    ElementTree.fromstring(picture.read_text())
    for row in document["rows"]:
        row["other"] = [1e9]
    file.write_text(json.dumps(document))
    capsys.readouterr()
    assert whole.main(["--small", f"--rows={_STARTS}", f"--compare={file}"]) == 1
    assert capsys.readouterr().out.count("  worse") == 2


@pytest.mark.soak
@_CANNOT
@pytest.mark.parametrize("names", ["bk*;null*;one*;clean*;all*;mirror*", "pull*", "20 cells*, 4 at a time*"])
def test_each_row_is_measured_or_its_peer_is_named(
    tmp_path: Path, names: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "now.json"

    assert whole.main(["--small", f"--rows={names}", f"--json={file}"]) == 0

    found = {f"{row['work']} / {row['peer']}" for row in json.loads(file.read_text())["rows"]}
    said = capsys.readouterr().out
    wanted = [row for row in whole.rows(whole.SMALL) if any(fnmatch(row.name, name) for name in names.split(";"))]
    assert wanted
    assert all(row.name in found or f"not here: {row.peer}: " in said for row in wanted)
    assert not {row.name for row in wanted if row.peer in (whole.PYTHON, pull.SIDES[1])} - found


def test_a_first_build_is_a_row_only_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert whole.main(["--rows=first*"]) == 2
    assert "no row has such a name" in capsys.readouterr().err
    assert "first build of the tools / go build, one by one" in {
        row.name for row in whole.rows(whole.SMALL, first_build=True)
    }


@_CANNOT
def test_a_large_null_build_is_a_row_only_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "now.json"
    words = ["--small", "--rows=null build, 5 / ninja", f"--json={file}"]

    assert whole.main(words) == 2
    assert "no row has such a name" in capsys.readouterr().err
    assert whole.main([*words, "--large"]) == 0

    found = [(row["work"], len(row["bk"]), len(row["other"])) for row in json.loads(file.read_text())["rows"]]
    assert found == [("null build, 5", 1, 1)] or "not here: ninja: " in capsys.readouterr().out


def test_works_that_begin_with_a_number_are_aligned_as_text() -> None:
    lines = text([measured(0.5, work="20 cells"), measured(10.0, work="a longer name")], {}).splitlines()

    assert lines[1].startswith("20 cells ")

"""The requests of a cell to its mirror, as they are kept: a log and sums."""

from __future__ import annotations

from pathlib import Path

from bkrules.execution import timeline
from bkrules.mirror.record import Counted
from bkrules.runners.pulled import LOG, keep, pulled

REQUESTS = [
    Counted("HEAD", "/v2/library/busybox/manifests/latest", 200, 0, at=1796008966.5),
    Counted("GET", "/v2/library/busybox/blobs/sha256:00", 206, None, 700, at=1796008966.75),
    Counted("GET", "/v2/a/b/c/manifests/x", 200, 5, at=1796008967.0),
    Counted("GET", "/v2/", 200, 2, at=1796008967.0),
]


def test_sums_are_by_repository() -> None:
    assert pulled(REQUESTS) == {"library/busybox": (2, 700), "a/b/c": (1, 5)}
    many = [Counted("GET", f"/v2/{number}/blobs/x", 200, 1) for number in range(500)]
    assert len(pulled(many)) == 100


def test_the_log_is_part_of_the_timeline(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"began": 1796008966}')
    keep(REQUESTS, str(tmp_path))
    assert [entry[:2] for entry in timeline.entries(tmp_path)] == [
        (0.5, "mirror"),
        (0.75, "mirror"),
        (1.0, "mirror"),
        (1.0, "mirror"),
    ]
    assert timeline.entries(tmp_path)[1][2].endswith('msg="GET /v2/library/busybox/blobs/sha256:00 206 700"')


def test_a_log_that_a_test_wrote_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("kept")
    folder = tmp_path / "cell"
    folder.mkdir()
    keep([], str(folder))
    assert not (folder / LOG).exists()
    (folder / LOG).symlink_to(target)
    keep([], str(folder))
    assert (folder / LOG).read_text() == "" and target.read_text() == "kept"


def test_a_path_cannot_end_its_line(tmp_path: Path) -> None:
    keep([Counted("GET", '/v2/a"\n\u2028/blobs/x', 200, 1, at=0)], str(tmp_path))
    assert len((tmp_path / LOG).read_text().splitlines()) == 1

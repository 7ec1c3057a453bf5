from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bkrules.cache.action_cache import ActionCache, ActionResult
from bkrules.cache.cas import Cas
from bkrules.cache.maintenance import Maintenance, Removed, in_use, shown, size, span, touch
from bkrules.model import digest
from bkrules.model.action import DirectoryNode, FileNode
from bkrules.model.digest import Digest

DAY = 86_400.0


@pytest.fixture
def work(tmp_path: Path, cas: Cas) -> Maintenance:
    return Maintenance(str(tmp_path), cas)


@pytest.fixture
def keep(actions: ActionCache) -> Callable[..., Digest]:
    """Stores a result with these output files, last used so many days ago."""

    def store(name: str, *contents: bytes, days: float = 0) -> Digest:
        key = digest.of_bytes(name.encode())
        files = {}
        for number, data in enumerate(contents):
            blob = actions.cas.put(data)
            files[f"out/{number}"] = FileNode(blob, actions.cas.path(blob))
        actions.put(key, ActionResult({"out": DirectoryNode(files)}, 1.0))
        used = time.time() - days * DAY
        os.utime(actions.path(key), (used, used))
        return key

    return store


def test_stats_count_what_is_there(work: Maintenance, actions: ActionCache, keep: Callable[..., Digest]) -> None:
    keep("a", b"x" * 1000, b"y" * 500)
    actions.cas.put(b"loose")

    stats = work.stats()

    assert (stats.results, stats.blobs, stats.loose, stats.loose_size) == (
        1,
        4,
        1,
        5,
    )  # two files, their tree, one loose
    assert stats.size > 1505


def test_what_was_not_used_for_long_goes(work: Maintenance, actions: ActionCache, keep: Callable[..., Digest]) -> None:
    old, young = keep("old", b"old", b"both", days=40), keep("young", b"young", b"both", days=2)

    removed = work.collect(max_age=30 * DAY)

    assert (removed.results, removed.blobs) == (1, 2)  # its own file and its tree; the shared one stays
    assert actions.get(old) is None
    assert actions.get(young) is not None


def test_the_longest_unused_go_first_until_the_rest_fits(
    work: Maintenance, actions: ActionCache, keep: Callable[..., Digest]
) -> None:
    keys = [keep(str(days), bytes([days]) * 10_000, days=days) for days in (3, 1, 2)]

    work.collect(max_size=25_000)

    assert [actions.get(key) is not None for key in keys] == [False, True, True]
    assert work.stats().size <= 25_000


def test_everything_fits(work: Maintenance, actions: ActionCache, keep: Callable[..., Digest]) -> None:
    key = keep("a", b"a", days=300)
    actions.cas.put(b"loose")

    assert work.collect(max_size=1 << 30) == Removed(0, 1, 5)

    assert actions.get(key) is not None


def test_verify_removes_what_is_damaged_and_what_needs_it(
    work: Maintenance, actions: ActionCache, keep: Callable[..., Digest]
) -> None:
    good, flipped, cut, garbage = (
        keep("good", b"good"),
        keep("flipped", b"flipped"),
        keep("cut", b"cut"),
        keep("garbage"),
    )
    for data, bad in ((b"flipped", b"fl1pped"), (b"cut", b"cu")):
        path = Path(actions.cas.path(digest.of_bytes(data)))
        path.chmod(0o644)
        path.write_bytes(bad)
    Path(actions.path(garbage)).write_bytes(b"\xff\xff")

    removed = work.verify()

    assert (removed.blobs, removed.results) == (2, 3)
    assert [actions.get(key) is not None for key in (good, flipped, cut, garbage)] == [True, False, False, False]
    assert work.verify() == Removed(0, 0, 0)


def test_what_a_killed_writer_left_goes_when_it_is_old(tmp_path: Path, work: Maintenance) -> None:
    old, young = tmp_path / "cas/ab/abc.1.tmp", tmp_path / "cas/ab/abc.2.tmp"
    old.parent.mkdir(parents=True)
    old.write_text("half")
    young.write_text("half")
    os.utime(old, (1, 1))

    work.collect(max_age=DAY)

    assert (old.exists(), young.exists()) == (False, True)


def test_locks_of_earlier_versions_go(tmp_path: Path, work: Maintenance) -> None:
    old, others = tmp_path / "locks" / ("ab" * 32), [tmp_path / "locks" / name for name in ("keys", "run", "ab" * 31)]
    old.parent.mkdir()
    for path in (old, *others):
        path.write_text("")

    work.collect(max_age=DAY)

    assert [path.exists() for path in (old, *others)] == [False, True, True, True]


def test_nothing_goes_while_a_build_runs(tmp_path: Path, work: Maintenance, keep: Callable[..., Digest]) -> None:
    keep("a", b"a", days=300)
    done = threading.Event()

    def collect() -> None:
        work.collect(max_age=DAY)
        done.set()

    with in_use(str(tmp_path)), in_use(str(tmp_path)):
        thread = threading.Thread(target=collect)
        thread.start()
        assert not done.wait(0.2)
        assert work.stats().results == 1
    thread.join()
    assert work.stats().results == 0


def test_a_hit_counts_as_use_to_the_day(actions: ActionCache, keep: Callable[..., Digest]) -> None:
    today, before = keep("today", b"a", days=0.5), keep("before", b"b", days=20)
    seen = os.stat(actions.path(today)).st_mtime_ns

    assert actions.get(today)
    assert actions.get(before)

    assert os.stat(actions.path(today)).st_mtime_ns == seen
    assert time.time() - os.stat(actions.path(before)).st_mtime < 60


def test_a_cache_that_cannot_be_written_needs_no_lock(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with in_use(str(tmp_path / "file")):
        touch(str(tmp_path / "file/ac/none"))


def test_measures() -> None:
    assert [size(text) for text in ("10", "2k", "500M", "3G")] == [10, 2048, 500 << 20, 3 << 30]
    assert [span(text) for text in ("45s", "2m", "12h", "30d", "1w")] == [45, 120, 43_200, 30 * DAY, 7 * DAY]
    assert [shown(count) for count in (0, 1023, 1536, 5 << 30)] == ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]
    for read in (size, span):
        for text in ("", "G", "-1d", "1.5G", "10x", "d"):
            with pytest.raises(ValueError, match="must be a"):
                read(text)

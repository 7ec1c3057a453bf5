"""Each part of a stamp tells something that the others do not."""

from __future__ import annotations

import marshal
import os
import signal
import time
from array import array
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fresh import in_fresh_process

from bkrules.cache.file_digests import FileDigests
from bkrules.incremental import null_build, stamps
from bkrules.incremental.stamps import FIELDS, Stamp
from bkrules.model.digest import of_bytes

CTIME, MTIME, SIZE, INODE, DEVICE, MODE = range(FIELDS)
SECOND = 10**9
DAY = 86_400 * SECOND


def of(path: Path) -> Stamp:
    found = stamps.of(str(path))
    assert found is not None
    return found


def differing(one: Stamp, other: Stamp) -> set[int]:
    return {number for number in range(FIELDS) if one[number] != other[number]}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"before")
    os.utime(path, (1, 1))
    return path


def test_the_ctime_alone_tells_of_a_write_that_hides(file: Path) -> None:
    before = of(file)
    while differing(before, of(file)) != {CTIME}:  # where the clock moves in ticks, the first writes may fall into one
        file.write_bytes(b"after!")
        os.utime(file, (1, 1))


@pytest.mark.parametrize("field", ["st_ctime_ns", "st_mtime_ns", "st_size", "st_ino", "st_dev", "st_mode"])
def test_each_field_tells_on_its_own(field: str) -> None:
    """Two changes that fall into one tick of a clock, or two mounts that number their files alike, differ in little."""
    one = status(**{field: 1})
    assert stamps.of_status(one) != stamps.of_status(status(**{field: 2}))
    assert stamps.of_status(one) == stamps.of_status(status(**{field: 1}))


def status(**fields: int) -> os.stat_result:
    names = ("st_mode", "st_ino", "st_dev", "st_nlink", "st_uid", "st_gid", "st_size")
    times = {name: fields.get(name, 0) for name in ("st_atime_ns", "st_mtime_ns", "st_ctime_ns")}
    return os.stat_result([*(fields.get(name, 0) for name in names), 0, 0, 0], times)


def test_the_null_build_compares_what_a_stamp_has(file: Path) -> None:
    """It works the stamp out itself, since there may be tens of thousands."""
    packed = array("q", of(file))
    for number in range(FIELDS):
        other = array("q", packed)
        other[number] ^= 1
        assert null_build._changed([("", None, str(file), other.tobytes())]) == {0}
    assert null_build._changed([("", None, str(file), packed.tobytes())]) == set()


def test_as_many_names_as_stamps(file: Path) -> None:
    """A damaged answer could otherwise vouch for a file that nobody has looked at."""
    packed = array("q", of(file)).tobytes()
    for names in (f"{file}\0{file}", f"{file}\0"):
        with pytest.raises(ValueError, match="a name has no stamp"):
            null_build._changed([("", None, names, packed)])


@pytest.mark.parametrize("children", ["SIG_DFL", "SIG_IGN"])
@pytest.mark.parametrize("broken", ["", "dump", "fork"])
def test_processes_share_the_look_at_many_files(file: Path, children: str, broken: str) -> None:
    """A file that has changed has the same number, whichever process looks at it."""
    in_fresh_process(share, str(file), children, broken)  # null builds fork, and other tests have threads here


def share(path: str, children: str, broken: str) -> None:
    file, read = Path(path), []

    def fail(*_arguments: object) -> None:
        raise OSError("no")

    def loads(data: bytes) -> Any:
        read.append(data)
        return marshal.loads(data)

    signal.signal(signal.SIGCHLD, getattr(signal, children))
    count = 4 * null_build._MANY
    good, bad = array("q", of(file)), array("q", [*of(file)[:-1], 0])
    changed = {0, 5, count // 3 - 1, count // 3, 2 * count // 3, count - 2}
    rows = [(bad if number in changed else good).tobytes() for number in range(count)]
    parent = f"{file.parent}/"
    folders: list[null_build.Folder] = [
        (parent, None, "\0".join(["file"] * 7), b"".join(rows[:7])),
        (parent, stamps.of(parent), "a\0b", b"".join(rows[:2])),
        (parent, None, "\0".join(["file"] * (count - 7)), b"".join(rows[7:])),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
        patch.setattr(
            null_build, "marshal", SimpleNamespace(dump=fail if broken == "dump" else marshal.dump, loads=loads)
        )
        if broken == "fork":
            patch.setattr(os, "fork", fail)
        assert null_build._changed(folders) == {number if number < 7 else number + 2 for number in changed}
    assert len(read) == (0 if broken else 2)


def test_what_is_not_there_has_no_stamp(tmp_path: Path) -> None:
    for name in ("none", "n" * 300, "a\0b", "file/below"):
        assert stamps.of(f"{tmp_path}/{name}") is None


@pytest.mark.parametrize(
    ("ctime", "mtime", "racy"),
    [(97, 97, False), (99, 1, True), (1, 99, True), (100, 1, True), (200, 1, True), (1, 200, True), (98, 98, False)],
)
def test_a_change_just_before_the_look_is_racy(ctime: int, mtime: int, *, racy: bool) -> None:
    stamp = (ctime * SECOND, mtime * SECOND, 1, 1, 1, 1)
    assert stamps.is_racy(stamp, 100 * SECOND) is racy


def test_a_write_in_the_tick_of_the_look_is_seen(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system whose clock moves in steps of a day; without the rule, the digest from before would be remembered."""
    real = stamps.of_status

    def coarse(found: os.stat_result) -> Stamp:
        stamp = real(found)
        return (stamp[CTIME] // DAY * DAY, *stamp[1:])

    monkeypatch.setattr(stamps, "of_status", coarse)
    monkeypatch.setattr(stamps, "RACY_NS", 2 * DAY)
    store = str(tmp_path / "digests")
    digests = FileDigests(store)
    digests.of(str(file))
    digests.save()
    file.write_bytes(b"after!")
    os.utime(file, (1, 1))
    assert FileDigests(store).of(str(file)) == of_bytes(b"after!")


@pytest.mark.parametrize("step", [-3600, 3600])
def test_a_clock_that_is_set_is_noticed(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not stamps.clock_was_set()
    now = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() + step * SECOND)
    assert stamps.clock_was_set()

from __future__ import annotations

import marshal
import subprocess
import sys
from pathlib import Path

import pytest
from spaces import Space

from bkrules.cache.history import History


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "state" / "history"


def test_what_never_ran_has_no_seconds_and_did_not_fail(store: Path) -> None:
    history = History(str(store))
    assert history.seconds("a") is None
    assert not history.failed_last("a")


def test_runs_are_known_at_once_and_in_the_next_build(store: Path) -> None:
    history = History(str(store))
    history.note("a", 1.5, failed=False)
    history.note("b", 0.25, failed=True)
    assert history.seconds("a") == 1.5
    history.save()

    again = History(str(store))
    assert [again.seconds("a"), again.failed_last("a")] == [1.5, False]
    assert [again.seconds("b"), again.failed_last("b")] == [0.25, True]


def test_a_failure_does_not_say_how_long_a_pass_takes(store: Path) -> None:
    history = History(str(store))
    history.note("a", 20, failed=False)
    history.save()
    history = History(str(store))
    history.note("a", 0.1, failed=True)
    assert [history.seconds("a"), history.failed_last("a")] == [20, True]
    history.note("a", 10, failed=False)
    assert [history.seconds("a"), history.failed_last("a")] == [10, False]


def test_nothing_is_written_when_nothing_ran(store: Path) -> None:
    History(str(store)).save()
    assert not store.exists()


def test_two_builds_at_once_do_not_forget_what_the_other_ran(store: Path) -> None:
    one, other = History(str(store)), History(str(store))
    assert one.seconds("a") is other.seconds("a") is None
    one.note("a", 1, failed=False)
    other.note("b", 2, failed=False)
    one.save()
    other.save()
    assert [History(str(store)).seconds(name) for name in ("a", "b")] == [1, 2]


@pytest.mark.parametrize(
    "data", [b"", b"no marshal", marshal.dumps([1]), marshal.dumps({"a": 1}), marshal.dumps({"a": ("x", 0)})]
)
def test_a_damaged_store_is_as_good_as_none(store: Path, data: bytes) -> None:
    store.parent.mkdir()
    store.write_bytes(data)
    history = History(str(store))
    assert history.seconds("a") is None
    history.note("a", 1, failed=False)
    history.save()
    assert History(str(store)).seconds("a") == 1


def test_what_ran_longest_ago_is_forgotten_first(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bkrules.cache.history._KEPT", 2)
    for name in ("a", "b", "a", "c"):
        history = History(str(store))
        history.note(name, 1, failed=False)
        history.save()
    assert [History(str(store)).seconds(name) for name in ("a", "b", "c")] == [1, None, 1]


OPENED = """
import os, sys
opened = []
sys.addaudithook(lambda event, values: opened.append(str(values[0])) if event == "open" else None)
import bkrules.cli
bkrules.cli.main(%r)
print("history" if any(path.endswith("/.state/history") for path in opened) else "no history")
"""


def test_a_build_keeps_what_ran_and_a_cached_one_does_not_look(space: Space) -> None:
    space.write("p/BUILD.py", "from bkrules import image\nimage(name = 'a')\n")
    code = OPENED % space.command("build", "//p:a")[4:]
    said = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-I", "-c", code], cwd=space.root, capture_output=True, text=True, check=True
        )
        said.append(done.stdout.splitlines()[-1])
    assert said == ["history", "no history"]

    kept = History(str(space.root / "bk-out/.state/history"))
    assert kept.seconds("//p:a Image") is not None
    assert not kept.failed_last("//p:a Image")


def test_a_build_keeps_that_an_action_failed(space: Space) -> None:
    space.write(
        "p/BUILD.py",
        "from bkrules import genrule, host_binary\nhost_binary(name = 'false')\n"
        "genrule(name = 'a', outs = ['x'], tools = [':false'], cmd = ['$(location :false)'])\n",
    )
    assert space.bk("build", "//p:a").returncode == 1
    assert History(str(space.root / "bk-out/.state/history")).failed_last("//p:a Genrule")

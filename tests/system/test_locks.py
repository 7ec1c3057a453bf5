"""Locks that end with their holder."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bkrules.system.locks import hold, locked, tried


def test_who_comes_second_waits_and_says_so(tmp_path: Path) -> None:
    path, order, waits = f"{tmp_path}/a/lock", [], threading.Event()

    def second() -> None:
        with locked(path, waiting=waits.set):
            order.append("second")

    thread = threading.Thread(target=second)
    with locked(path):
        thread.start()
        assert waits.wait(30)
        order.append("first")
    thread.join()

    assert order == ["first", "second"]


def test_shared_holders_do_not_wait_for_each_other(tmp_path: Path) -> None:
    waited: list[str] = []
    with (
        locked(f"{tmp_path}/lock", shared=True),
        locked(f"{tmp_path}/lock", shared=True, waiting=lambda: waited.append("x")),
    ):
        assert waited == []
        descriptor = os.open(tmp_path / "lock", os.O_RDWR)
        assert not tried(descriptor)
        assert tried(descriptor, shared=True)
        os.close(descriptor)


def test_a_killed_holder_leaves_no_lock(tmp_path: Path) -> None:
    text = "import sys\nfrom bkrules.system.locks import locked\nwith locked(sys.argv[1]):\n print(flush=True)\n sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", text, f"{tmp_path}/lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout and holder.stdout.readline()
    descriptor = os.open(tmp_path / "lock", os.O_RDWR)
    assert not tried(descriptor)
    holder.kill()
    holder.communicate()

    hold(descriptor)
    os.close(descriptor)


def test_a_folder_in_the_place_of_a_lock_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError), locked(str(tmp_path)):
        pass


def test_a_link_that_leads_nowhere_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "missing/lock")
    with pytest.raises(OSError, match="the link leads nowhere") as caught, locked(f"{tmp_path}/lock"):
        pass
    assert caught.value.errno == errno.ELOOP

"""Locks that end with their holder."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bkrules.system.locks import hold, locked, tried, tried_name


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


def test_one_of_two_holds_a_name(tmp_path: Path) -> None:
    path, name, other = f"{tmp_path}/a/keys", "ab" * 32, "ac" * 32
    first, second = tried_name(path, name), tried_name(path, other)
    assert first is not None
    assert second is not None
    assert tried_name(path, name) is None
    assert _tried_elsewhere(path, name, other, "ad" * 32) == [False, False, True]

    os.close(first)

    assert _tried_elsewhere(path, name, other) == [True, False]
    third = tried_name(path, name)
    assert third is not None
    os.close(second)
    os.close(third)
    assert os.stat(path).st_size == 0


@pytest.mark.parametrize("name", ["0", "f" * 15, "f" * 64, "0" * 15 + "1" * 49])
def test_any_digest_can_be_locked(tmp_path: Path, name: str) -> None:
    held = tried_name(f"{tmp_path}/keys", name)
    assert held is not None
    assert tried_name(f"{tmp_path}/keys", name) is None
    os.close(held)


def test_a_killed_holder_leaves_no_name_locked(tmp_path: Path) -> None:
    text = (
        "import sys\nfrom bkrules.system.locks import tried_name\n"
        "print(tried_name(sys.argv[1], 'ab'), flush=True)\nsys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", text, f"{tmp_path}/keys"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout and holder.stdout.readline() != b"None\n"
    assert tried_name(f"{tmp_path}/keys", "ab") is None
    holder.kill()
    holder.communicate()

    held = tried_name(f"{tmp_path}/keys", "ab")
    assert held is not None
    os.close(held)


def _tried_elsewhere(path: str, *names: str) -> list[bool]:
    """Whether another process can lock each name."""
    text = (
        "import sys\nfrom bkrules.system.locks import tried_name\n"
        "print([tried_name(sys.argv[1], name) is not None for name in sys.argv[2:]])"
    )
    done = subprocess.run([sys.executable, "-c", text, path, *names], capture_output=True, text=True, check=True)
    return [word.strip(" []\n") == "True" for word in done.stdout.split(",")]

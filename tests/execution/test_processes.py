"""Commands through a real zygote, which may be killed at any time."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fresh import in_fresh_process
from spaces import wait_for

from bkrules.errors import ActionFailed, Interrupted
from bkrules.sandbox.spawner import CommandSandbox, Processes
from bkrules.sandbox.started import Started

SOON = 20


@pytest.fixture
def processes() -> Iterator[Processes]:
    if os.geteuid() != 0:
        pytest.skip("not root")
    made = Processes()
    yield made
    made.close()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def zygotes() -> list[int]:
    """The children of this process that have not ended; one that is about to may still take a request."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [int(pid) for pid in children if Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"]


def shell(processes: Processes, script: str, log: Path) -> int:
    return processes.run(["/bin/sh", "-c", script], "/", {"GREETING": "hello"}, str(log))


def test_a_command_has_an_exit_code_a_folder_an_environment_and_a_log(processes: Processes, log: Path) -> None:
    log.write_text("before\n")

    assert shell(processes, "echo $GREETING; pwd >&2; exit 7", log) == 7

    assert log.read_text() == "before\nhello\n/\n"


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("kill -9 $$", 137), ("exec /nowhere", 127)])
def test_exit_codes(processes: Processes, log: Path, script: str, code: int) -> None:
    assert shell(processes, script, log) == code


def test_a_command_that_cannot_be_started_says_so_in_its_log(processes: Processes, log: Path) -> None:
    assert processes.run(["/nowhere"], "/", {}, str(log)) == 127

    assert log.read_text() == "/nowhere: No such file or directory\n"


def test_there_is_one_zygote_and_none_before_it_is_needed(processes: Processes, log: Path) -> None:
    assert zygotes() == []

    assert [shell(processes, "true", log) for _ in range(3)] == [0, 0, 0]
    assert len(zygotes()) == 1

    processes.close()
    assert zygotes() == []


def test_a_zygote_that_was_killed_is_replaced(processes: Processes, log: Path) -> None:
    shell(processes, "true", log)
    (first,) = zygotes()

    os.kill(first, signal.SIGKILL)
    wait_for(lambda: not zygotes(), SOON)

    assert shell(processes, "echo again", log) == 0
    assert log.read_text() == "again\n"
    (second,) = zygotes()
    assert second != first
    assert not Path(f"/proc/{first}").exists()  # it was waited for


def test_what_runs_survives_the_zygote_it_came_from(processes: Processes, log: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with processes.command(["/bin/sh", "-c", f"echo; cat {tmp_path}/fifo"], "/", dict(os.environ), str(log)) as started:
        wait_for(lambda: log.read_text() == "\n", SOON)
        for zygote in zygotes():
            os.kill(zygote, signal.SIGKILL)
        wait_for(lambda: not zygotes(), SOON)

        assert not started.has_ended()
        (tmp_path / "fifo").write_text("still here")

        assert started.next(SOON) == ({"event": "result", "exit_code": 0}, [])
    assert log.read_text() == "\nstill here"


def a_zygote_that_cannot_be_started(folder: str) -> None:
    processes = Processes()
    processes.zygote_command = [f"{folder}/nothing"]
    before = os.listdir("/proc/self/fd")

    with pytest.raises(FileNotFoundError):
        processes.run(["true"], "/", {}, f"{folder}/log")

    assert os.listdir("/proc/self/fd") == before


def test_a_zygote_that_cannot_be_started_leaves_no_descriptor(tmp_path: Path) -> None:
    in_fresh_process(a_zygote_that_cannot_be_started, str(tmp_path))


def test_a_process_whose_channel_has_a_high_descriptor_is_waited_for() -> None:
    """select() takes none from 1024 on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    near, far = socket.socketpair()
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
        with near, far, socket.socket(fileno=fcntl.fcntl(near, fcntl.F_DUPFD_CLOEXEC, 2000)) as channel:
            started = Started(channel, -1)
            assert not started.has_ended()
            far.close()
            assert started.has_ended(20)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_command_ends_with_its_context_and_all_that_it_started(processes: Processes, log: Path) -> None:
    with processes.command(["/bin/sh", "-c", "sleep 1000 & echo; sleep 1000"], "/", {}, str(log)) as started:
        wait_for(lambda: log.read_text() == "\n", SOON)
        assert not started.has_ended()

    # Both sleepers have the log open for as long as they live.
    assert holders(log) == []


def holders(path: Path) -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*/fd"):
        if folder.parent.name == str(os.getpid()):
            continue
        try:
            found += [str(folder) for link in folder.iterdir() if os.readlink(link) == str(path)]
        except OSError:
            continue  # it has ended
    return found


def test_a_command_that_was_killed_from_outside_has_failed(processes: Processes, log: Path) -> None:
    shell(processes, "true", log)
    (zygote,) = zygotes()
    os.kill(zygote, signal.SIGSTOP)  # it takes no request any more
    killer = threading.Timer(0.2, os.kill, (zygote, signal.SIGKILL))
    killer.start()

    with pytest.raises(ActionFailed):
        shell(processes, "true", log)
    killer.join()


def test_after_an_interrupt_nothing_is_started(processes: Processes, log: Path) -> None:
    with processes.command(["/bin/sleep", "1000"], "/", {}, str(log)) as started:
        processes.interrupt()
        assert started.has_ended(SOON)

    assert processes.interrupted
    with pytest.raises(Interrupted):
        shell(processes, "true", log)


@pytest.fixture
def sandbox(tmp_path: Path) -> CommandSandbox:
    (tmp_path / "root").mkdir()
    folders = [folder for folder in ("/bin", "/usr", "/lib", "/lib64") if os.path.isdir(folder)]
    return CommandSandbox(str(tmp_path / "root"), tuple((folder, folder, False) for folder in folders))


def in_sandbox(processes: Processes, script: str, log: Path, sandbox: CommandSandbox) -> list[str]:
    log.write_text("")
    ended = processes.run_in_sandbox(["sh", "-c", script], "/", {"PATH": "/bin"}, str(log), sandbox)
    assert (ended.code, ended.over) == (0, ""), log.read_text()
    return log.read_text().split()


def test_commands_in_sandboxes_share_nothing(processes: Processes, log: Path, sandbox: CommandSandbox) -> None:
    """One process runs them all, so what one leaves must be gone when the next one starts."""
    look = "ls / /tmp; hostname; cat /proc/[0-9]*/comm; tail -n +2 /proc/sysvipc/shm; readlink /proc/self/ns/pid"
    leave = "sleep 1000 & echo x > /tmp/left; echo x > /left; ipcmk -M 64 > /dev/null; "

    first = in_sandbox(processes, leave + look, log, sandbox)
    second = in_sandbox(processes, look, log, sandbox)

    assert first[-1] == second[-1]
    assert {"left", "sleep", "64"} <= set(first)
    assert not {"left", "sleep", "64"}.intersection(second)
    assert os.listdir(sandbox.root) == []
    assert holders(log) == []


def test_commands_in_sandboxes_run_side_by_side(
    processes: Processes, log: Path, tmp_path: Path, sandbox: CommandSandbox
) -> None:
    (tmp_path / "shared").mkdir()
    os.mkfifo(tmp_path / "shared/fifo")
    both = CommandSandbox(sandbox.root, (*sandbox.binds, (str(tmp_path / "shared"), "/shared", True)))
    writer = threading.Thread(target=in_sandbox, args=(processes, "echo met > /shared/fifo", tmp_path / "other", both))
    writer.start()

    assert in_sandbox(processes, "cat /shared/fifo", log, both) == ["met"]
    writer.join()


def test_an_interrupt_ends_commands_in_sandboxes(processes: Processes, log: Path, sandbox: CommandSandbox) -> None:
    in_sandbox(processes, "true", log, sandbox)
    timer = threading.Timer(0.5, processes.interrupt)
    timer.start()

    with pytest.raises(Interrupted):
        in_sandbox(processes, "sleep 1000 & sleep 1000", log, sandbox)
    timer.join()

    assert holders(log) == []
    with pytest.raises(Interrupted):
        in_sandbox(processes, "true", log, sandbox)


def test_a_sandbox_that_cannot_be_made_says_so(processes: Processes, log: Path, sandbox: CommandSandbox) -> None:
    broken = CommandSandbox(sandbox.root, (*sandbox.binds, ("/nowhere", "/nowhere", False)))

    ended = processes.run_in_sandbox(["sh", "-c", "true"], "/", {"PATH": "/bin"}, str(log), broken)
    assert ended.code == 127

    assert "the sandbox cannot be made" in log.read_text()
    assert in_sandbox(processes, "echo again", log, sandbox) == ["again"]


def test_nothing_is_left_of_sandboxes(processes: Processes, log: Path, sandbox: CommandSandbox) -> None:
    [namespace] = in_sandbox(processes, "readlink /proc/self/ns/pid", log, sandbox)

    processes.close()

    assert namespace not in {os.readlink(found) for found in Path("/proc").glob("[0-9]*/ns/pid") if found.is_symlink()}

"""The inside of an action's sandbox: what tries to leave it, with a real kernel."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from bkrules.model.resources import Limits
from bkrules.sandbox import command_groups, outputs
from bkrules.sandbox.command import MOST_OUTPUT
from bkrules.sandbox.run_folder import RunFolder
from bkrules.sandbox.spawner import CommandSandbox, Ended, Processes

ATTACKS = Path(__file__).with_name("attacks.py")
WATCHED = ("kernel/core_pattern", "kernel/modprobe", "kernel/sysrq", "user/max_user_namespaces", "vm/overcommit_memory")


@pytest.fixture(params=["own user namespace", "none", "masked"])
def processes(request: pytest.FixtureRequest) -> Iterator[Processes]:
    """The second is as on a machine that forbids user namespaces, the third as in a container that hides parts of /proc."""
    if os.geteuid() != 0:
        pytest.skip("not root")
    made = Processes()
    if request.param == "none":
        forbid_user_namespaces(made)
    elif request.param == "masked":
        script = 'mount --make-rprivate / && mount -t tmpfs none /proc/irq && exec "$@"'
        made.zygote_command = ("unshare", "-m", "sh", "-c", script, "sh", *made.zygote_command)
    yield made
    made.close()


def forbid_user_namespaces(processes: Processes) -> None:
    """Have the zygote believe that no user namespace can be made."""
    code = (
        "import errno, runpy, sys\n"
        "from bkrules.sandbox import syscalls\n"
        "clone = syscalls.clone3\n"
        "def refused(flags, cgroup=None):\n"
        "    if flags & syscalls.CLONE_NEWUSER: raise OSError(errno.ENOSPC, 'no more of them')\n"
        "    return clone(flags, cgroup)\n"
        "syscalls.clone3 = refused\n"
        "sys.argv = ['zygote', *sys.argv[1:]]\n"
        "from bkrules.cell.zygote import main\n"
        "main(int(sys.argv[1]))\n"
    )
    processes.zygote_command = (sys.executable, "-I", "-c", code)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def interpreter() -> tuple[tuple[str, str, bool], ...]:
    """What Python needs: its own folders and the machine's libraries."""
    folders = {os.path.realpath(sys.executable).rpartition("/bin/")[0], sysconfig.get_path("stdlib"), "/usr"}
    folders |= {folder for folder in ("/bin", "/lib", "/lib64") if os.path.isdir(folder)}
    outer = [one for one in folders if not any(one.startswith(f"{other}/") for other in folders)]
    return tuple((folder, folder, False) for folder in sorted(outer))


def box(tmp_path: Path, *more: tuple[str, str, bool], **settings: object) -> CommandSandbox:
    (tmp_path / "root").mkdir(exist_ok=True)
    binds = (*interpreter(), *more)
    return CommandSandbox(str(tmp_path / "root"), binds, folders=("/work/out",), out="/work/out", **settings)  # type: ignore[arg-type]


def python(processes: Processes, sandbox: CommandSandbox, log: Path, *words: str) -> Ended:
    command = [os.path.realpath(sys.executable), "-I", "-S", *words]
    ended = processes.run_in_sandbox(command, "/work", {"PATH": "/usr/bin:/bin"}, str(log), sandbox)
    if ended.out is not None:
        os.close(ended.out)
    return ended


def test_nothing_leaves_a_sandbox(processes: Processes, log: Path, tmp_path: Path) -> None:
    for name in ("source", "tool"):
        (tmp_path / name).write_text(name)
    sandbox = box(
        tmp_path,
        (str(tmp_path / "source"), "/work/src/source", False),
        (str(tmp_path / "tool"), "/work/tools/tool", False),
        (str(ATTACKS), "/work/attacks.py", False),
    )
    before = settings()
    stats = {name: (tmp_path / name).stat() for name in ("source", "tool")}

    ended = python(processes, sandbox, log, "attacks.py", "/work/src/source", "/work/tools/tool")

    lines = log.read_text().splitlines()
    assert ended.code == 0, log.read_text()
    tried = [line for line in lines if ": refused: " in line or line.endswith(": DONE")]
    assert len(tried) > 150
    assert [line for line in lines if line.endswith(": DONE")] == []
    assert [line.split()[1] for line in lines if line.startswith("Cap")] == ["0000000000000000"] * 5
    assert {"NoNewPrivs: 1", "seen: 1 2"} < set(lines)
    assert settings() == before
    for name, kept in stats.items():
        assert (tmp_path / name).read_text() == name
        now = (tmp_path / name).stat()
        assert (now.st_mode, now.st_uid, now.st_ctime_ns) == (kept.st_mode, kept.st_uid, kept.st_ctime_ns)
    assert python(processes, sandbox, log, "-c", "").code == 0  # the process that made the sandbox is well


def settings() -> list[str]:
    return [path.read_text() for name in WATCHED if (path := Path("/proc/sys", name)).exists()]


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[Processes]:
    if os.geteuid() != 0:
        pytest.skip("not root")
    folder = RunFolder(str(tmp_path / "cache"))
    made = Processes(command_groups.maker(folder))
    yield made
    made.close()
    assert list((folder.path / "ledger").iterdir()) == []
    folder.close()


BOMB = "import os, time\nfor _ in range(200):\n    os.fork() or time.sleep(1000)\nos._exit(1)"
FORKS = "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass"
HOG = "held = []\nwhile True:\n    held.append(bytes(1 << 20))"
FULL = "file = open('{}', 'wb')\nwhile True:\n    file.write(bytes(1 << 16))\n    file.flush()"
DEAF = "import signal, time\nfor number in range(1, 65):\n    try:\n        signal.signal(number, signal.SIG_IGN)\n"
DEAF += "    except (OSError, ValueError):\n        pass\nprint('deaf', flush=True)\ntime.sleep(1000)"
ORPHAN = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    os.fork()\ntime.sleep(1000)"
PRINTS = "while True:\n    print('y' * 4095)"


@pytest.mark.parametrize(
    ("script", "limits", "over"),
    [
        (DEAF, Limits(timeout=2), "timeout"),
        (ORPHAN, Limits(timeout=2), "timeout"),
        (FORKS, Limits(pids=40, timeout=5), "timeout"),
        (BOMB, Limits(pids=40), "pids"),
        (HOG, Limits(memory=100), "memory"),
        (FULL.format("/tmp/file"), Limits(memory=100), "memory"),
        (FULL.format("/tmp/file"), Limits(disk=10), "disk"),
        (FULL.format("/work/out/file"), Limits(disk=10), "disk"),
        (FULL.format("/new"), Limits(disk=10), "disk"),
        (PRINTS, Limits(), "output"),
        ("import os; os.kill(os.getpid(), 9)", Limits(), ""),
    ],
    ids=["deaf", "orphan", "forks", "bomb", "hog", "memory-as-disk", "tmp", "out", "root", "prints", "none"],
)
def test_a_runaway_command_ends(
    limited: Processes, tmp_path: Path, log: Path, script: str, limits: Limits, over: str
) -> None:
    ended = python(limited, box(tmp_path, limits=limits), log, "-c", script)

    assert ended.code != 0
    assert ended.over == over
    assert log.stat().st_size <= MOST_OUTPUT
    after = python(limited, box(tmp_path, limits=limits), log, "-c", "print('well')")
    assert after.code == 0
    assert not after.over
    assert log.read_bytes().endswith(b"well\n")


def test_what_a_command_leaves_in_its_folder_can_be_read_when_its_root_is_gone(
    processes: Processes, tmp_path: Path, log: Path
) -> None:
    sandbox = box(tmp_path)
    command = [os.path.realpath(sys.executable), "-I", "-S", "-c", "open('/work/out/a', 'w').write('made')"]

    ended = processes.run_in_sandbox(command, "/work", {}, str(log), sandbox)
    again = processes.run_in_sandbox(
        [*command[:-1], "import os; print(os.listdir('/work/out'))"], "/work", {}, str(log), sandbox
    )

    assert ended.out is not None
    assert again.out is not None
    with outputs.file(ended.out, "a") as descriptor:
        assert os.read(descriptor, 10) == b"made"
    assert log.read_text() == "[]\n"
    os.close(ended.out)
    os.close(again.out)


@pytest.mark.parametrize("how", ["removed", "linked", "covered"])
def test_the_folder_of_outputs_is_the_one_that_was_made(
    processes: Processes, tmp_path: Path, log: Path, how: str
) -> None:
    """A command may do what it likes to the path: what is read afterwards is what that folder holds."""
    script = {
        "removed": "os.rmdir('/work/out'); os.mkdir('/work/out'); open('/work/out/a', 'w')",
        "linked": "os.rename('/work/out', '/work/other'); os.symlink('/etc', '/work/out')",
        "covered": "os.rename('/work/out', '/work/other'); os.mkdir('/work/out'); open('/work/out/a', 'w')",
    }[how]
    command = [os.path.realpath(sys.executable), "-I", "-S", "-c", f"import os; {script}"]

    ended = processes.run_in_sandbox(command, "/work", {}, str(log), box(tmp_path))

    assert (ended.code, log.read_text()) == (0, "")
    assert ended.out is not None
    assert os.listdir(ended.out) == []
    os.close(ended.out)

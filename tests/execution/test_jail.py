"""Cells with `isolation = "jail"`: what root in an ordinary cell can still do to the machine, root in a jail cannot."""

from __future__ import annotations

import json
import os
import re
import shutil
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bare_cells import BareCells
from escapes import TRY, shown

from bkrules.cell import confine, jail
from bkrules.plugin.host import Host

ATTEMPTS = {
    "devtmpfs": "mount('d', '/d', 'devtmpfs')",
    "a node of a disk": "os.mknod('/node', 0o060600, os.makedev(DISK_MAJOR, DISK_MINOR))",
    "a node of a harmless device": "os.mknod('/harmless', 0o020600, os.makedev(1, 3))",
    "a new proc": "mount('p', '/d', 'proc')\nos.open('/d/sys/kernel/core_pattern', os.O_RDWR)",
    "core_pattern": "mount(None, '/proc/sys', None, REMOUNT | BIND)\nos.open('/proc/sys/kernel/core_pattern', os.O_RDWR)",
    "modprobe": "mount('p', '/d', 'proc')\nos.open('/d/sys/kernel/modprobe', os.O_RDWR)",
    "settings of memory": "mount('p', '/d', 'proc')\nos.open('/d/sys/vm/overcommit_memory', os.O_RDWR)",
    "sysrq": "mount('p', '/d', 'proc')\nos.open('/d/sysrq-trigger', os.O_WRONLY)",
    "a new sysfs": "mount('s', '/d', 'sysfs')\nopen_writable('/d/kernel')",
    "remount of sysfs": "mount(None, '/sys', None, REMOUNT | BIND)\nopen_writable('/sys/kernel')",
    "debugfs": "mount('f', '/d', 'debugfs')",
    "tracefs": "mount('f', '/d', 'tracefs')",
    "securityfs": "mount('f', '/d', 'securityfs')",
    "the list of FUSE connections": "mount('f', '/d', 'fusectl')",
    "all groups by a new cgroup2": "mount('c', '/d', 'cgroup2')\nassert_host(any(n.startswith('bk-') for n in os.listdir('/d')))",
    "limits of its group": "mount('c', '/d', 'cgroup2')\nopen_writable('/d', ('cgroup.max.depth', 'cgroup.max.descendants'))",
    "a disk larger than allowed": "mount(None, '/', None, REMOUNT, 'size=1g')",
    "an /out larger than allowed": "mount(None, '/out', None, REMOUNT, 'size=1g')",
    "a view that is made writable": "mount(None, '/opt/bk/bin', None, REMOUNT | BIND)",
    "a view that is moved": "mount('/opt/bk/bin', '/d', None, MOVE)",
    "a view that is unmounted": "check(libc.umount2(b'/opt/bk/bin', 2))",
    "a view in another namespace": "check(libc.unshare(0x20000))\nmount(None, '/opt/bk/bin', None, REMOUNT | BIND)",
    "a view without its neighbours": "mount('/', '/d', None, BIND)",
    "a file of the machine's root": "open('/opt/bk/bin/secret').read()",
    "a program with the rights of its owner": """
        os.setresgid(7, 7, 7)
        os.setresuid(7, 7, 7)
        if os.spawnv(os.P_WAIT, '/opt/bk/bin/privileged', ['cat', '/opt/bk/bin/secret']):
            raise PermissionError(errno.EACCES, "it could not")
    """,
    "files in memory": "os.open('/proc/self/map_files/' + os.listdir('/proc/self/map_files')[0], os.O_RDONLY)",
    "programs in the kernel": "call(321, 11, struct.pack('=IIII', 0, 0, 0, 0), 16)",
    "perf events": "os.close(call(298, struct.pack('=II', 1, 112) + bytes(104), -1, 0, -1, 0))",
    "priority": "os.nice(-5)",
    "real time": "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))",
    "attributes that overlays trust": "os.setxattr('/d', 'trusted.overlay.opaque', b'y')",
}
GROUPS_OF_VERSION_1 = {
    "a group of another hierarchy": """
        mount('c', '/d', 'cgroup', 0, 'memory')
        os.open('/d/memory.limit_in_bytes', os.O_RDWR)
        os.open('/d/cgroup.procs', os.O_RDWR)
    """,
    "a program at the end of a group": """
        mount('c', '/d', 'cgroup', 0, 'memory')
        assert_host(os.path.exists('/d/release_agent'))
        os.open('/d/release_agent', os.O_RDWR)
    """,
}
IN_A_CELL = '''
import json, socket

def assert_host(reached):
    if not reached:
        raise OSError(errno.EPERM, "nothing of the machine is here")

def open_writable(folder, names=()):
    """Open a file for writing, one that the machine's root may write to."""
    for parent, _, found in os.walk(folder):
        for name in sorted(names or found):
            path = f"{parent}/{name}"
            if os.path.lexists(path) and stat.S_ISREG(os.lstat(path).st_mode) and os.lstat(path).st_mode & 0o200:
                return os.open(path, os.O_WRONLY)
    raise AssertionError("nothing to try")

def outcome(code):
    """How the attempt ends, in a new process and mount namespace."""
    near, far = socket.socketpair()
    if os.fork() == 0:
        said = "worked"
        try:
            check(libc.unshare(0x20000))
            mount(None, "/", None, REC | 1 << 18)
            exec(code, dict(globals()))
        except OSError as error:
            said = errno.errorcode.get(error.errno, repr(error))
        except BaseException as error:
            said = repr(error)
        far.sendall(said.encode())
        os._exit(0)
    far.close()
    said = b""
    while part := near.recv(4096):
        said += part
    os.wait()
    return said.decode()

def outcomes(attempts):
    os.makedirs("/d", exist_ok=True)
    return {name: outcome(code) for name, code in attempts.items()}

def nested(attempts):
    """The same in a user namespace of the jail's own, with all other namespaces."""
    near, far = socket.socketpair()
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        check(libc.unshare(0x10000000 | 0x20000 | 0x20000000 | 0x40000000 | 0x2000000 | 0x8000000 | 0x4000000))
        os.write(ready[1], b"x")
        os.read(go[0], 1)
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        if os.fork() == 0:
            mount("proc", "/proc", "proc")
            far.sendall(json.dumps(outcomes(attempts)).encode())
            os._exit(0)
        os.wait()
        os._exit(0)
    far.close()
    os.read(ready[0], 1)
    for kind in ("uid", "gid"):
        open(f"/proc/{child}/{kind}_map", "w").write("0 0 1000000")
    os.write(go[1], b"x")
    said = b""
    while part := near.recv(65536):
        said += part
    os.wait()
    return json.loads(said)
'''


ABSENT = ("ENOENT", "ENODEV")
"""What this kernel does not have."""


@pytest.fixture
def cells(tmp_path: Path) -> Iterator[BareCells]:
    with made(tmp_path) as found:
        yield found


@contextmanager
def made(folder: Path) -> Iterator[BareCells]:
    """Cells that see a tool, a secret and a program with the rights of its owner."""
    if os.geteuid() != 0:
        pytest.skip("not root")
    cells = BareCells(folder)
    tools = folder / "tools"
    tools.mkdir()
    (tools / "buildctl").write_text("a tool")
    (tools / "buildctl").chmod(0o755)
    (tools / "secret").write_text("of the machine's root")
    (tools / "secret").chmod(0o600)
    shutil.copy("/bin/cat", tools / "privileged")
    (tools / "privileged").chmod(0o4755)
    try:
        yield cells
    finally:
        cells.close()


def attempts() -> dict[str, str]:
    """What is tried on this machine."""
    disk = os.stat("/").st_dev
    found = {**ATTEMPTS, **(GROUPS_OF_VERSION_1 if os.path.isdir("/sys/fs/cgroup/memory") else {})}
    numbers = {"DISK_MAJOR": str(os.major(disk)), "DISK_MINOR": str(os.minor(disk))}
    for name, code in found.items():
        for word, number in numbers.items():
            code = code.replace(word, number)
        found[name] = textwrap.dedent(code).strip()
    return found


def run(cells: BareCells, isolation: str, how: str = "outcomes") -> dict[str, str]:
    """How each attempt ends."""
    test = (
        f"{textwrap.dedent(TRY)}{IN_A_CELL}\n"
        f"def test_it(sandbox):\n    open('/out/found.json', 'w').write(json.dumps({how}({attempts()!r})))\n"
    )
    result = cells.run(test, isolation=isolation)
    assert result["status"] == "passed", (result, (result["out"] / "test.log").read_text())
    found: dict[str, str] = json.loads((result["out"] / "found.json").read_text())
    return found


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """How each attempt ends in an ordinary cell, where all work that this kernel has."""
    with made(tmp_path_factory.mktemp("usual")) as cells:
        return run(cells, "cell")


def test_the_attempts_work_in_an_ordinary_cell(usual: dict[str, str]) -> None:
    """Else the tests below would say nothing."""
    assert {name: said for name, said in usual.items() if said not in ("worked", *ABSENT)} == {}
    assert sum(said == "worked" for said in usual.values()) > 20


@pytest.mark.parametrize("how", ["outcomes", "nested"])
def test_no_attempt_works_in_a_jail(cells: BareCells, usual: dict[str, str], how: str) -> None:
    before = shown()

    found = run(cells, "jail", how)

    wrong = {name: said for name, said in found.items() if said not in ("EPERM", "EACCES", "EINVAL", "EROFS")}
    assert {
        name: said for name, said in wrong.items() if (said, usual[name]) not in zip(ABSENT, ABSENT, strict=True)
    } == {}
    assert set(found) == set(usual)
    assert shown() == before


CAPABLE = """
import errno, os
from bkrules.sandbox import syscalls

def refused(number, *words):
    return syscalls._libc.syscall(number, *words) < 0

def test_it(sandbox):
    effective, permitted, _ = syscalls.capabilities()
    assert effective & DROPPED == permitted & DROPPED == DROPPED
    for path in ("/proc/kcore", "/proc/kmsg", "/dev/kmsg"):
        try:
            os.close(os.open(path, os.O_RDONLY))
        except OSError:
            continue
        raise AssertionError(path)
    assert refused(103, 5, None, 0)  # syslog, which empties the kernel's log
    assert refused(305, 0, (1).to_bytes(4, "little") + bytes(204))  # clock_adjtime, with an offset
    assert refused(153)  # vhangup
    assert refused(163, b"/d")  # acct
    assert refused(175, b"", 0, b"") and refused(313, 0, b"", 0)  # modules
    assert refused(169, 0xFEE1DEAD, 0x28121969, 0x01234567, None)  # reboot
    assert refused(304, -100, None, 0)  # handles of files
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of x86-64")
def test_all_capabilities_reach_nothing_of_the_machine(cells: BareCells) -> None:
    wanted = sum(1 << number for number in confine.DROPPED.values())

    result = cells.run(CAPABLE.replace("DROPPED", hex(wanted)), isolation="jail")

    assert result["status"] == "passed", (result, (result["out"] / "test.log").read_text())


ABLE = Host(True, True, frozenset(), 1000, 1 << 32, "", frozenset({"user", "cgroup"}))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"user_namespaces": 0}, "no user namespaces"),
        ({"namespaces": frozenset({"user"})}, "no cgroup namespaces"),
        ({"mapped_ids": 65536}, "no ids"),
    ],
)
def test_what_a_machine_lacks(tmp_path: Path, change: dict[str, Any], what: str) -> None:
    assert [lack.what for lack in jail.lacks(replace(ABLE, **change), f"{tmp_path}/")] == [what]


@pytest.mark.parametrize(
    ("name", "line", "taken"),
    [
        ("passwd", "a:x:1879048192:1::/:/bin/sh", True),
        ("passwd", "a:x:1879048191:1879048192::/:/bin/sh", False),
        ("passwd", "a:x:1883242495:1::/:/bin/sh", True),
        ("group", "a:x:1883242496:", False),
        ("group", "a:x:1879048193:", True),
        ("subuid", "a:1879000000:65536", True),
        ("subgid", "a:1000:4294967295", True),
        ("subuid", "a:1878982656:65536", False),
        ("subgid", "a::\n\n:x:y\n#", False),
    ],
)
def test_ids_that_are_taken(tmp_path: Path, name: str, line: str, taken: bool) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / name).write_text(f"root:0:1\n{line}\n")

    lacks = jail.lacks(ABLE, f"{tmp_path}/")

    assert [lack.what for lack in lacks] == ([f"ids that are taken by /etc/{name}"] if taken else [])


WRITABLE = re.compile(
    r"/proc/sys/(net|user|fs/mqueue)/.*"
    r"|/proc/sys/kernel/(auto_msgmni|msg.*|sem|sem_next_id|shm.*|ns_last_pid|pid_max)"
    r"|/proc/pressure/.*"
    r"|/sys/fs/cgroup/(init/)?cgroup\.(procs|threads|subtree_control)"
)
"""Settings of the network, user, IPC and PID namespaces, which are the jail's, its groups, and what is everybody's."""


def test_what_of_the_kernel_opens_for_writing_is_the_jails_own(cells: BareCells) -> None:
    test = """
        import json, os, stat
        def test_it(sandbox):
            found = []
            for top in ("/proc", "/sys"):
                for parent, folders, files in os.walk(top):
                    folders[:] = [name for name in folders if parent != "/proc" or not (name.isdigit() or "self" in name)]
                    for path in (f"{parent}/{name}" for name in files):
                        try:
                            if stat.S_ISREG(os.lstat(path).st_mode):
                                os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
                                found.append(path)
                        except OSError:
                            pass
            open("/out/found.json", "w").write(json.dumps(found))
    """
    result = cells.run(test, isolation="jail")

    found = json.loads((result["out"] / "found.json").read_text())
    assert [path for path in found if not WRITABLE.fullmatch(path)] == []
    assert "/sys/fs/cgroup/cgroup.procs" in found

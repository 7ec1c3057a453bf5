"""The trial of a machine: what bk does for each cell, done once in a process that ends at once.

A uid or a set of capabilities does not tell whether a machine can run cells: a filter of system calls, a security module,
a read-only cgroup or the file system below the interpreter can each prevent it. So bk makes the namespaces, mounts and
devices of a cell, in a few milliseconds, when the first action of a build that has cells must run, and in `bk doctor`.
"""

from __future__ import annotations

import errno
import functools
import os
import signal
import stat
import sys
import sysconfig
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace

from bkrules.plugin import container
from bkrules.plugin.host import Host, Lack
from bkrules.sandbox import syscalls
from bkrules.sandbox.devices import DEVICES
from bkrules.system.files import text_or_nothing

MACHINES = tuple(sorted(syscalls.NUMBERS))
COVERED = ("/proc", "/sys", "/out", "/opt/bk", "/dev/pts")
"""The folders in whose place a cell has its own: it does not see those of the machine."""
_NEEDED = {"CAP_SYS_ADMIN": 21, "CAP_NET_ADMIN": 12, "CAP_MKNOD": 27}
_FIRST_USERS = "user:[4026531837]"
"""The kernel's first user namespace, whose root is root of the machine."""
_PASSING = (errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.EINTR)
"""Faults of the moment. A cell that meets them says so itself."""
_SECONDS = 10
"""The limit of a trial. It ends in milliseconds, unless the machine does not answer."""
_FUSE = "open /dev/fuse"
_PLACE = "/dev"
"""A folder of every machine, on which the trial mounts, in a new mount namespace."""


def tried(host: Host) -> Host:
    """Return the facts of this machine after its trial, which takes place once in a process."""
    lacks, can_fuse = _answers(host.cgroup, host.container)
    return replace(host, tried=lacks, fuse=host.fuse and can_fuse)


@functools.cache
def _answers(cgroup: str, kind: str) -> tuple[tuple[Lack, ...], bool]:
    """Return the lacks of this machine for every cell, and whether a cell can open /dev/fuse."""
    machine = os.uname().machine
    machine = f"{machine} with a Python of 32 bits" if machine in MACHINES and sys.maxsize < 1 << 32 else machine
    if machine not in MACHINES:
        why = f"bk knows the system calls of {' and '.join(MACHINES)}"
        remedy = "use such a machine, and a system and a Python of 64 bits"
        return (Lack(f"the architecture {machine}", why, remedy),), False
    faults = dict(_try(cgroup))
    can_fuse = _FUSE not in faults
    faults.pop(_FUSE, None)
    lacks = [_diagnosis(step, number, kind) for step, number in faults.items()][:1]
    return (*lacks, *_covered()), can_fuse


def _covered() -> Iterator[Lack]:
    """Yield a lack when the interpreter lies where a cell has another folder."""
    for path in dict.fromkeys((os.path.realpath(sys.executable), sys.prefix, sysconfig.get_path("stdlib"))):
        for folder in COVERED:
            if path == folder or path.startswith(f"{folder}/"):
                why = f"a cell runs this Python, and has its own {folder}"
                yield Lack(f"an interpreter that cells cannot see: {path}", why, "make the environment elsewhere")
                return


def _try(cgroup: str) -> Iterator[tuple[str, int]]:
    """Yield the steps that failed in this machine's trial, the first one first, and the number of each error."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # bk has threads; the child calls the kernel and ends
        child = os.fork()
    if child == 0:
        try:
            signal.alarm(_SECONDS)
            _outside(writer)
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as file:
        lines = file.read().splitlines()
    os.waitpid(child, 0)
    for line in lines:
        number, _, step = line.partition(" ")
        if int(number) not in _PASSING:
            yield step, int(number)
    if cgroup and not os.access(cgroup, os.W_OK):
        yield f"make a group in {cgroup}", errno.EROFS if os.statvfs(cgroup).f_flag & os.ST_RDONLY else errno.EACCES


def _outside(report: int) -> None:
    """Do what a supervisor does for its cell."""
    if not _done(report, "make a network", syscalls.leave_network):
        return
    flags = syscalls.CLONE_NEWNS | syscalls.CLONE_NEWUTS | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWPID
    pid = 0

    def fork() -> None:
        nonlocal pid
        pid = syscalls.clone3(flags)

    if not _done(report, "make namespaces", fork):
        return
    if pid:
        os.waitpid(pid, 0)
        return
    try:
        syscalls.die_with_parent()
        _inside(report)
    finally:
        os._exit(0)


def _inside(report: int) -> None:
    """Do what the first process of a cell does."""
    below = os.path.realpath(sys.prefix)

    def mount() -> None:
        syscalls.mount("", "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
        syscalls.mount("bk", _PLACE, "tmpfs", 0, "mode=755,size=1m")
        for name in ("empty", "view", "proc"):
            os.mkdir(f"{_PLACE}/{name}")

    steps: dict[str, Callable[[], object]] = {
        "mount a tmpfs": mount,
        "make a device": functools.partial(_device, "null"),
        f"show {below} by an overlay": functools.partial(syscalls.overlay, below, f"{_PLACE}/empty", f"{_PLACE}/view"),
        "mount /proc": functools.partial(syscalls.mount, "proc", f"{_PLACE}/proc", "proc"),
    }
    if all(_done(report, step, work) for step, work in steps.items()):
        _done(report, _FUSE, functools.partial(_device, "fuse"))


def _device(name: str) -> None:
    """Make a device, and open it, which a container may be forbidden."""
    path = f"{_PLACE}/{name}"
    os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(*DEVICES[name]))
    os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))


def _done(report: int, step: str, work: Callable[[], object]) -> bool:
    """Do a step. Return whether it succeeded; a failure is reported."""
    try:
        work()
    except OSError as error:
        os.write(report, f"{error.errno or errno.EIO} {step}\n".encode())
        return False
    return True


def _diagnosis(step: str, number: int, kind: str) -> Lack:
    """Return what a failed step says about this machine, and what helps there."""
    why = f"bk cannot {step} ({os.strerror(number)}), as it does for each cell"
    if number == errno.ENOSPC:
        remedy = "allow more of them: `sysctl user` lists the limits, as user.max_net_namespaces"
        return Lack("no more namespaces", why, remedy)
    if number == errno.ENOSYS:
        remedy = container.all_privileges(kind) if kind else "use Linux 5.7 or newer"
        return Lack("an old kernel, or a filter of system calls", why, remedy)
    if number == errno.EROFS:
        what, remedy = "a read-only cgroup2", "make it writable:  mount -o remount,rw /sys/fs/cgroup"
    else:
        what, remedy = _refused()
    return Lack(what, why, _of_container(kind) if kind else remedy)


def _of_container(kind: str) -> str:
    """Return how this container gets what cells need."""
    remedy = container.all_privileges(kind, in_user_namespace=_is_in_user_namespace())
    return remedy if os.geteuid() == 0 else f"{remedy}, and run bk as its root"


def _refused() -> tuple[str, str]:
    """Return who this process is that may not do what cells do, and what helps outside of containers."""
    if os.geteuid() != 0:
        return "not root", "run bk as root, for instance with sudo; the cells of rootless workers begin as root too"
    if _is_in_user_namespace():
        return "root of a user namespace only", "run bk outside of it, as root of the machine"
    effective, _, _ = syscalls.capabilities()
    missing = [name for name, bit in _NEEDED.items() if not effective >> bit & 1]
    if missing:
        remedy = (
            "start bk with all capabilities: what started it gave some away, as systemd's CapabilityBoundingSet does"
        )
        return f"root without {', '.join(missing)}", remedy
    if "\nSeccomp:\t2" in text_or_nothing("/proc/self/status"):
        return "root under a filter of system calls", "start bk without that filter"
    profile = text_or_nothing("/proc/self/attr/current").strip("\0\n")
    if profile and profile != "unconfined":
        return f"root under the security profile {profile}", "start bk unconfined"
    return "a machine that refuses it", "look at the kernel's log, which may name who refuses it"


def _is_in_user_namespace() -> bool:
    return os.readlink("/proc/self/ns/user") != _FIRST_USERS

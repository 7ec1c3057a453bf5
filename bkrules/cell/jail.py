"""Jails: cells in a user namespace, whose root has capabilities over the cell's own namespaces and over nothing else.

Ids in a jail map to unused ids of the machine. So files of the machine's root belong to no user of the jail, and files
that only their owner may write, such as the settings in /proc/sys, are read-only there. The supervisor makes the root
before it makes the namespace: then the kernel locks each mount of the root, and a jail can neither uncover, move nor
unmount one, nor make it writable.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from bkrules.cell.protocol import CellSpec
from bkrules.plugin.host import Host, Lack
from bkrules.sandbox import syscalls

ISOLATION = "jail"
FIRST, IDS = 0x70000000, 1 << 22
"""The machine's ids to which a jail's ids from 0 map. Users, containers of systemd and foreign images have others."""
_NAMESPACES = (
    syscalls.CLONE_NEWUSER
    | syscalls.CLONE_NEWNS
    | syscalls.CLONE_NEWUTS
    | syscalls.CLONE_NEWIPC
    | syscalls.CLONE_NEWPID
    | syscalls.CLONE_NEWNET
)
_DELEGATED = ("", "/cgroup.procs", "/cgroup.threads", "/cgroup.subtree_control")
_PRIVILEGED = stat.S_ISUID | stat.S_ISGID
_GIVEN = {"etc/passwd": (2, None), "etc/group": (2, None), "etc/subuid": (1, 2), "etc/subgid": (1, 2)}
"""Files that assign ids to users: the place of the first id in a line, and of the number of ids if it is not one."""
_QUIET = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
_PR_SET_DUMPABLE = 4


def lacks(host: Host, root: str = "/") -> tuple[Lack, ...]:
    """Return the lacks of a machine, whose files are below `root`, for jails."""
    found = []
    missing = {"user", "cgroup"} - host.namespaces
    if missing or not host.user_namespaces:
        what = f"no {', '.join(sorted(missing or {'user'}))} namespaces"
        found.append(Lack(what, "a jail is one", "allow them:  sysctl user.max_user_namespaces=15000"))
    if host.mapped_ids < FIRST + IDS:
        why = f"a jail maps the ids from {FIRST} to {FIRST + IDS - 1}, and bk is in a user namespace that has not all of them"
        found.append(Lack("no ids", why, "run bk outside of it, or give it more ids"))
    taken = [f"/{name}" for name in _GIVEN if any(_is_taken(ids) for ids in _given(f"{root}{name}", *_GIVEN[name]))]
    if taken:
        why = f"a jail maps the ids from {FIRST} to {FIRST + IDS - 1}, which must be unused"
        found.append(Lack(f"ids that are taken by {' and '.join(taken)}", why, "assign other ids to these users"))
    return tuple(found)


def _is_taken(ids: range) -> bool:
    return ids.start < FIRST + IDS and ids.stop > FIRST


def _given(path: str, first: int, count: int | None) -> Iterator[range]:
    """Return the ids that a file assigns to users."""
    with suppress(OSError):
        for line in Path(path).read_text(errors="replace").splitlines():
            words = line.split(":")
            with suppress(ValueError, IndexError):
                yield range(int(words[first]), int(words[first]) + (1 if count is None else int(words[count])))


def begin(spec: CellSpec, lay_out: Callable[[CellSpec], None]) -> int:
    """Fork into a jail. Return 0 in its first process, which must `enter` it once the parent has called `admit`. Raises OSError.

    `lay_out` mounts the cell's root. This process must have one thread.
    """
    home = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    group = os.open(spec.cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount("", "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
        try:
            _lay_out(spec, lay_out)
            pid = syscalls.clone3(_NAMESPACES, group)
        except BaseException:
            syscalls.enter_mounts(home)
            raise
        if pid:
            syscalls.enter_mounts(home)
        return pid
    finally:
        os.close(home)
        os.close(group)


def _lay_out(spec: CellSpec, lay_out: Callable[[CellSpec], None]) -> None:
    """Make the root. Everything in it that is not a mount of the machine belongs to the jail's root.

    A setuid helper gains the privileges of its owner: so the jail has copies that belong to its root.
    """
    root = spec.root
    helpers = [(source, target) for source, target in spec.binds if _gains(source)]
    binds = tuple(pair for pair in spec.binds if pair not in helpers)
    copies = (*spec.copies, *((source, target, True) for source, target in helpers))
    lay_out(replace(spec, binds=binds, copies=copies))
    own = {os.lstat(path).st_dev for path in (root, f"{root}/out")}
    _give(root)
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if os.lstat(f"{folder}/{name}").st_dev in own]
        for name in (*folders, *files):
            path = f"{folder}/{name}"
            status = os.lstat(path)
            if status.st_dev in own and not stat.S_ISCHR(status.st_mode):
                _give(path)
    for source, target in helpers:
        os.chmod(root + target, stat.S_IMODE(os.stat(source).st_mode))
    for folder in (spec.cgroup, f"{spec.cgroup}/init"):
        for name in _DELEGATED:
            if os.path.exists(folder + name):
                _give(folder + name)


def _gains(path: str) -> bool:
    status = os.stat(path)
    return stat.S_ISREG(status.st_mode) and bool(status.st_mode & _PRIVILEGED)


def _give(path: str) -> None:
    os.chown(path, FIRST, FIRST, follow_symlinks=False)


def admit(pid: int) -> None:
    """Map a jail's ids, and move this process to the jail's network, whose loopback is up. Raises OSError."""
    for kind in ("uid", "gid"):
        Path(f"/proc/{pid}/{kind}_map").write_text(f"0 {FIRST} {IDS}\n")
    syscalls.enter_network(pid)
    syscalls.loopback_up()


def enter(root: str) -> None:
    """Become the jail's root, in the prepared root. Raises OSError."""
    syscalls.unshare(syscalls.CLONE_NEWCGROUP)
    syscalls.mount("", "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
    syscalls.mount(
        root, root, flags=syscalls.MS_BIND | syscalls.MS_REC
    )  # only the copy is not locked, so it can become the root
    syscalls.mount("devpts", f"{root}/dev/pts", "devpts", 0, "newinstance,ptmxmode=0666,mode=620")
    syscalls.mount("proc", f"{root}/proc", "proc", _QUIET)
    syscalls.mount("sysfs", f"{root}/sys", "sysfs", _QUIET | syscalls.MS_RDONLY)
    syscalls.mount("cgroup", f"{root}/sys/fs/cgroup", "cgroup2", _QUIET)
    syscalls.pivot_root(root)
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    syscalls.prctl(_PR_SET_DUMPABLE, 1)  # otherwise its own files in /proc belong to the machine's root
    syscalls.die_with_parent()  # which a change of ids resets
    Path("/sys/fs/cgroup/init/cgroup.procs").write_text("0")

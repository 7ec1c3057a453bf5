"""The system calls that Python has no function for."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x04000000, 0x08000000
CLONE_NEWPID, CLONE_NEWNET, CLONE_INTO_CGROUP = 0x20000000, 0x40000000, 0x200000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND = 1, 2, 4, 8, 32, 4096
MS_REC, MS_PRIVATE, MS_SLAVE = 16384, 1 << 18, 1 << 19
FUSE_CONNECTIONS = "/sys/fs/fuse/connections"
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}[os.uname().machine]
_SYS_BPF = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
_SYS_CLONE3 = 435
_SYS_OPENAT2 = 437
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15
_RESOLVE_NO_XDEV, _RESOLVE_NO_MAGICLINKS, _RESOLVE_NO_SYMLINKS, _RESOLVE_BENEATH = 1, 2, 4, 8
_MNT_DETACH = 2
_IN_CREATE = 0x100
_SIOCSIFFLAGS = 0x8914

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2). Raises OSError that names the source and the target."""
    encoded = [word.encode() if word else None for word in (source, target, kind, data)]
    result = _libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3])
    _check(result, f"mount {source or kind} on {target}")


def bind(source: str, target: str, *, read_only: bool = True) -> None:
    """Show `source` at `target`, which is made when it is missing."""
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "a"):
            pass
    mount(source, target, flags=MS_BIND)
    if read_only:
        mount("", target, flags=MS_BIND | MS_REMOUNT | MS_RDONLY)


def pivot_root(root: str) -> None:
    """Make `root`, a mount point, the root of this mount namespace, and let go of the old one."""
    os.chdir(root)
    _check(_libc.syscall(_SYS_PIVOT_ROOT, b".", b"."), f"pivot_root to {root}")
    _check(_libc.umount2(b".", _MNT_DETACH), "umount of the old root")
    os.chdir("/")


def clone3(flags: int, cgroup: int | None = None) -> int:
    """fork(2) into new namespaces, and straight into the cgroup of that folder descriptor. Not for a process with threads."""
    if cgroup is not None:
        flags |= CLONE_INTO_CGROUP
    arguments = struct.pack("11Q", flags, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, cgroup or 0)
    buffer = ctypes.create_string_buffer(arguments, len(arguments))
    return _check(_libc.syscall(_SYS_CLONE3, buffer, ctypes.c_size_t(len(arguments))), "clone3")


def die_with_parent() -> None:
    """Ask for SIGKILL when the parent ends."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL), "prctl")


def set_name(name: str) -> None:
    """Name this process, as `ps` shows it; at most 15 bytes."""
    _check(_libc.prctl(_PR_SET_NAME, name.encode()), "prctl")


def leave_network() -> None:
    """Move this process to a new network namespace, whose loopback is up."""
    unshare(CLONE_NEWNET)
    loopback_up()


def unshare(flags: int) -> None:
    """Move this process to new namespaces."""
    _check(_libc.unshare(flags), "unshare")


def open_beneath(folder: int, path: str | bytes, flags: int) -> int:
    """Open what lies beneath a folder descriptor (openat2): over no link, out of it by no `..`, into no other mount.

    Raises OSError: ELOOP for a link, EXDEV for a way out, ENOSYS below Linux 5.6.
    """
    resolve = _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS | _RESOLVE_NO_XDEV
    how = struct.pack("3Q", flags | os.O_CLOEXEC, 0, resolve)
    name = os.fsencode(path)
    result = _libc.syscall(_SYS_OPENAT2, folder, name, how, ctypes.c_size_t(len(how)))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), os.fsdecode(path))
    return int(result)


def enter_mounts(namespace: int) -> None:
    """Move this process, which has one thread, to the mount namespace of a descriptor, and to its root."""
    _check(_libc.setns(namespace, CLONE_NEWNS), "setns")


def own_mounts() -> None:
    """Move this process to a mount namespace of its own, which still sees what is mounted outside later."""
    unshare(CLONE_NEWNS)
    mount("", "/", flags=MS_REC | MS_SLAVE)


def bpf(command: int, attributes: bytes) -> int:
    """bpf(2)."""
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    return _check(_libc.syscall(_SYS_BPF, command, buffer, len(attributes)), "bpf")


@contextmanager
def watch_folder(path: str) -> Iterator[int | None]:
    """A descriptor that becomes readable when something is made in a folder (inotify); none when the user's are used up."""
    descriptor = _libc.inotify_init1(os.O_CLOEXEC)
    if descriptor < 0 and ctypes.get_errno() in (errno.EMFILE, errno.ENFILE):
        yield None
        return
    _check(descriptor, "inotify_init1")
    try:
        _check(_libc.inotify_add_watch(descriptor, path.encode(), _IN_CREATE), f"inotify_add_watch of {path}")
        yield descriptor
    finally:
        os.close(descriptor)


def loopback_up() -> None:
    """Bring `lo` of this network namespace up."""
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh", b"lo", 0x1 | 0x40))

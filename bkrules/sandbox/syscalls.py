"""System calls that Python has no function for."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x04000000, 0x08000000
NOT_FOUND = 127
"""The exit code of a missing command, as in shells."""
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID, CLONE_NEWNET, CLONE_INTO_CGROUP = 0x20000000, 0x40000000, 0x200000000
CLONE_NEWCGROUP = 0x02000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND = 1, 2, 4, 8, 32, 4096
MS_REC, MS_PRIVATE, MS_SLAVE = 16384, 1 << 18, 1 << 19
FUSE_CONNECTIONS = "/sys/fs/fuse/connections"
NUMBERS = {"x86_64": (155, 321, 250), "aarch64": (41, 280, 219)}
"""The numbers of the system calls that differ: pivot_root, bpf, keyctl. On other machines bk starts no process that calls them."""
_SYS_PIVOT_ROOT, _SYS_BPF, _SYS_KEYCTL = NUMBERS.get(os.uname().machine, (-1, -1, -1))
_SYS_CLONE3 = 435
_SYS_MOVE_MOUNT, _SYS_FSOPEN, _SYS_FSCONFIG, _SYS_FSMOUNT = 429, 430, 431, 432
_CLOEXEC, _SET_FLAG, _SET_STRING, _CREATE, _EMPTY_PATH = 1, 0, 1, 6, 4
_JOIN_SESSION_KEYRING = 1
_SYS_OPENAT2 = 437
_SYS_MOUNT_SETATTR = 442
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 24, 38, 47, 4
_PROGRAM_LOAD, _PROGRAM_ATTACH, _ALLOW_MULTI = 5, 8, 2
_PR_SET_SECCOMP, _SECCOMP_FILTER, _SECCOMP_ERRNO, _SECCOMP_ALLOW = 22, 2, 0x50000, 0x7FFF0000
_CAPABILITIES = 64
_CAPABILITY_VERSION = 0x20080522
_KEYCTL_JOIN_SESSION_KEYRING = 1
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_KEPT = {2: 2, 4: 4, 8: 8, 1024: 1024, 2048: 2048, 4096: 1 << 21}
"""The flags of a mount by those of statvfs."""
_RESOLVE_NO_XDEV, _RESOLVE_NO_MAGICLINKS, _RESOLVE_NO_SYMLINKS, _RESOLVE_BENEATH = 1, 2, 4, 8
_MNT_DETACH = 2
_IN_CREATE = 0x100
_SIOCSIFFLAGS, _SIOCSIFADDR, _SIOCSIFNETMASK = 0x8914, 0x8916, 0x891C
_TUNSETIFF, _TUNSETPERSIST, _IFF_TUN, _IFF_UP = 0x400454CA, 0x400454CB, 0x0001, 0x1

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Call mount(2). Raises OSError that names the source and the target."""
    encoded = [word.encode() if word else None for word in (source, target, kind, data)]
    result = _libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3])
    _check(result, f"mount {source or kind} on {target}")


def new_mount(kind: str, options: Mapping[str, str], flags: Sequence[str] = ()) -> int:
    """Mount a new file system in no place yet. Return the descriptor of the mount, which goes with it. Raises OSError."""
    context = _check(_libc.syscall(_SYS_FSOPEN, kind.encode(), _CLOEXEC), f"open a file system {kind}")
    try:
        for name, value in options.items():
            found = _libc.syscall(_SYS_FSCONFIG, context, _SET_STRING, name.encode(), value.encode(), 0)
            _check(found, f"{kind}: {name}={value}")
        for name in flags:
            _check(_libc.syscall(_SYS_FSCONFIG, context, _SET_FLAG, name.encode(), None, 0), f"{kind}: {name}")
        _check(_libc.syscall(_SYS_FSCONFIG, context, _CREATE, None, None, 0), f"make a file system {kind}")
        return _check(_libc.syscall(_SYS_FSMOUNT, context, _CLOEXEC, 0), f"mount a file system {kind}")
    finally:
        os.close(context)


def move_mount(mounted: int, target: str) -> None:
    """Show the mount of a descriptor at `target`. Raises OSError."""
    result = _libc.syscall(_SYS_MOVE_MOUNT, mounted, b"", _AT_FDCWD, target.encode(), _EMPTY_PATH)
    _check(result, f"move a mount to {target}")


def bind(source: str, target: str, *, read_only: bool = True) -> None:
    """Bind `source` at `target`, which is created when it is missing."""
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "a"):
            pass
    mount(source, target, flags=MS_BIND)
    if read_only:
        mount("", target, flags=MS_BIND | MS_REMOUNT | MS_RDONLY)


def show(source: str, target: str, *, read_only: bool) -> None:
    """Bind a file, or a folder with all mounts in it, at `target`, which is created when it is missing.

    No program gains privileges by its mode there, and no device in it opens. This works in a user namespace too, where
    the flags of the source must stay.
    """
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_CLOEXEC, 0o644))
    mount(source, target, flags=MS_BIND | MS_REC)
    restrict(target, MS_NOSUID | MS_NODEV | (MS_RDONLY if read_only else 0))


def restrict(target: str, flags: int) -> None:
    """Add flags, of MS_RDONLY, MS_NOSUID, MS_NODEV and MS_NOEXEC, to a mount and all mounts in it."""
    attributes = struct.pack("4Q", flags, 0, 0, 0)
    done = _libc.syscall(
        _SYS_MOUNT_SETATTR, _AT_FDCWD, target.encode(), _AT_RECURSIVE, attributes, ctypes.c_size_t(len(attributes))
    )
    if done < 0 and ctypes.get_errno() != errno.ENOSYS:
        _check(done, f"mount_setattr of {target}")
    elif done < 0:  # below Linux 5.12: this mount alone
        has = os.statvfs(target).f_flag
        kept = sum(flag for bit, flag in _KEPT.items() if has & bit)
        mount("", target, flags=MS_BIND | MS_REMOUNT | kept | flags)


def give_up_privileges() -> None:
    """Ensure that no program that this process starts has a capability, or gains one by a file's mode; this process keeps its own.

    Such a program shares no keyring with others either.
    """
    for capability in range(_CAPABILITIES):
        if _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
            break  # the kernel knows no higher numbers
    effective, permitted, _ = capabilities()
    set_capabilities(effective, permitted, 0)
    _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    _libc.syscall(_SYS_KEYCTL, _KEYCTL_JOIN_SESSION_KEYRING, None)


def refuse_user_namespaces() -> None:
    """Ensure that neither this process nor its children make a user namespace (seccomp).

    clone3 hides its flags, and programs of another architecture use other numbers, so both calls fail as unknown.
    """
    unshare_number, clone_number = {"x86_64": (272, 56), "aarch64": (97, 220)}[os.uname().machine]
    architecture = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}[os.uname().machine]
    load, equal, above, has, end = 0x20, 0x15, 0x35, 0x45, 0x06
    program = [
        (load, 0, 0, 4),  # the architecture
        (equal, 0, 7, architecture),
        (load, 0, 0, 0),  # the number of the call
        (above, 5, 0, 1 << 30),  # of x32
        (equal, 4, 0, _SYS_CLONE3),
        (equal, 1, 0, unshare_number),
        (equal, 0, 3, clone_number),
        (load, 0, 0, 16),  # its first argument, the flags
        (has, 2, 1, CLONE_NEWUSER),
        (end, 0, 0, _SECCOMP_ERRNO | errno.ENOSYS),
        (end, 0, 0, _SECCOMP_ALLOW),
        (end, 0, 0, _SECCOMP_ERRNO | errno.EPERM),
    ]
    install_filter(b"".join(filter_step(operation, value, yes, no) for operation, yes, no, value in program))


def filter_step(operation: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    """Return an instruction of classic BPF, whose jumps skip `yes` or `no` instructions."""
    return struct.pack("HBBI", operation, yes, no, value)


def install_filter(code: bytes) -> None:
    """Install a seccomp filter of such instructions for this process and all that it starts. Raises OSError."""
    buffer = ctypes.create_string_buffer(code, len(code))
    prctl(_PR_SET_SECCOMP, _SECCOMP_FILTER, struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer)))


def map_all_ids(pid: int) -> None:
    """Map all ids of this process into a new user namespace, each to itself."""
    for kind in ("uid", "gid"):
        with open(f"/proc/self/{kind}_map") as file:
            rows = [line.split() for line in file]
        with open(f"/proc/{pid}/{kind}_map", "w") as file:
            file.write("".join(f"{inner} {inner} {count}\n" for inner, _, count in rows))


def overlay(source: str, empty: str, target: str) -> None:
    """Mount the folder `source` at `target` through a read-only overlay. `empty` is an empty folder.

    Descriptors name both, so the mount reveals no path of the machine, and no path needs escaping.
    """
    folders = [os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) for path in (source, empty)]
    try:
        lower = ":".join(f"/proc/self/fd/{folder}" for folder in folders)
        mount("bk", target, "overlay", MS_RDONLY | MS_NODEV, f"redirect_dir=nofollow,metacopy=off,lowerdir={lower}")
    finally:
        for folder in folders:
            os.close(folder)


def pivot_root(root: str) -> None:
    """Make `root`, a mount point, the root of this mount namespace, and detach the old one."""
    os.chdir(root)
    _check(_libc.syscall(_SYS_PIVOT_ROOT, b".", b"."), f"pivot_root to {root}")
    _check(_libc.umount2(b".", _MNT_DETACH), "umount of the old root")
    os.chdir("/")


def unmount(target: str) -> None:
    """Detach a mount from this mount namespace."""
    _check(_libc.umount2(os.fsencode(target), _MNT_DETACH), f"umount of {target}")


def clone3(flags: int, cgroup: int | None = None) -> int:
    """Call clone3(2): fork into new namespaces, and straight into the cgroup of a folder descriptor. Not for a process
    with threads.
    """
    if cgroup is not None:
        flags |= CLONE_INTO_CGROUP
    arguments = struct.pack("11Q", flags, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, cgroup or 0)
    buffer = ctypes.create_string_buffer(arguments, len(arguments))
    return _check(_libc.syscall(_SYS_CLONE3, buffer, ctypes.c_size_t(len(arguments))), "clone3")


def prctl(option: int, value: int, pointer: bytes | None = None) -> None:
    """Call prctl(2)."""
    _check(_libc.prctl(option, ctypes.c_ulong(value), pointer, 0, 0), f"prctl {option}")


def capabilities() -> tuple[int, int, int]:
    """Return the effective, permitted and inheritable capabilities of this process, a bit for each number."""
    data = ctypes.create_string_buffer(24)
    _check(_libc.capget(struct.pack("=II", _CAPABILITY_VERSION, 0), data), "capget")
    low = struct.unpack("=6I", data.raw)
    return low[0] | low[3] << 32, low[1] | low[4] << 32, low[2] | low[5] << 32


def set_capabilities(effective: int, permitted: int, inheritable: int) -> None:
    """Set the capabilities, in the form that `capabilities` returns."""
    sets = (effective, permitted, inheritable)
    data = struct.pack("=6I", *(one & 0xFFFFFFFF for one in sets), *(one >> 32 for one in sets))
    _check(_libc.capset(struct.pack("=II", _CAPABILITY_VERSION, 0), data), "capset")


def die_with_parent() -> None:
    """Request SIGKILL when the parent ends."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL), "prctl")


def set_name(name: str) -> None:
    """Name this process, as `ps` shows it; at most 15 bytes."""
    _check(_libc.prctl(_PR_SET_NAME, name.encode()), "prctl")


def set_domain_name(name: str) -> None:
    """Set the NIS domain of this host name namespace."""
    _check(_libc.setdomainname(name.encode(), len(name)), "setdomainname")


def set_personality(persona: int) -> None:
    """Call personality(2): 0 is plain Linux, with a randomised address space."""
    _check(_libc.personality(ctypes.c_ulong(persona)), "personality")


def new_session_keyring() -> None:
    """Leave the session keyring with which bk was started, which a kernel without keys does not have. Raises OSError."""
    if _libc.syscall(_SYS_KEYCTL, _JOIN_SESSION_KEYRING, None) < 0 and ctypes.get_errno() != errno.ENOSYS:
        _check(-1, "keyctl")


def leave_network() -> None:
    """Move this process to a new network namespace, whose loopback is up."""
    unshare(CLONE_NEWNET)
    loopback_up()


def unshare(flags: int) -> None:
    """Move this process to new namespaces."""
    _check(_libc.unshare(flags), "unshare")


def open_beneath(folder: int, path: str | bytes, flags: int) -> int:
    """Open a path beneath a folder descriptor (openat2), over no link, no `..` out of it, and no other mount.

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


def enter_network(pid: int) -> None:
    """Move this process, which has one thread, to the network namespace of another one."""
    namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(namespace, CLONE_NEWNET), "setns")
    finally:
        os.close(namespace)


def own_mounts() -> None:
    """Move this process to a new mount namespace, which still receives later mounts from outside."""
    unshare(CLONE_NEWNS)
    mount("", "/", flags=MS_REC | MS_SLAVE)


def bpf(command: int, attributes: bytes) -> int:
    """Call bpf(2)."""
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    return _check(_libc.syscall(_SYS_BPF, command, buffer, len(attributes)), "bpf")


def program_step(operation: int, target: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    """Return an instruction of eBPF; `target` and `source` are registers."""
    return struct.pack("=BBhi", operation, source << 4 | target, offset, value)


def attach_program(cgroup: int, code: bytes, kind: int, point: int, name: bytes) -> None:
    """Load an eBPF program and attach it to the cgroup of a folder descriptor. `kind` and `point` are those of linux/bpf.h.

    Raises OSError when the kernel has no eBPF for cgroups or does not allow it.
    """
    buffer, license_ = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(b"Apache-2.0")
    head = (kind, len(code) // 8, ctypes.addressof(buffer), ctypes.addressof(license_), 0, 0, 0, 0, 0)
    program = bpf(_PROGRAM_LOAD, struct.pack("=IIQQIIQII16sII", *head, name, 0, point))
    try:
        bpf(_PROGRAM_ATTACH, struct.pack("=IIII", cgroup, program, point, _ALLOW_MULTI))
    finally:
        os.close(program)


@contextmanager
def watch_folder(path: str) -> Iterator[int | None]:
    """Yield a descriptor that becomes readable when a file appears in a folder (inotify); None at the user's limit."""
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


def add_interface(name: str, address: str, mask: str) -> None:
    """Make an interface of this network namespace that leads nowhere, and bring it up. Raises OSError."""
    with open("/dev/net/tun", "r+b", buffering=0) as tun:
        fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN))
        fcntl.ioctl(tun, _TUNSETPERSIST, 1)
    with socket.socket() as any_socket:
        for request, value in ((_SIOCSIFADDR, address), (_SIOCSIFNETMASK, mask)):
            place = struct.pack("16sH2x4s16x", name.encode(), socket.AF_INET, socket.inet_aton(value))
            fcntl.ioctl(any_socket, request, place)
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH22x", name.encode(), _IFF_UP))

"""Runs in the sandbox of an action and tries to get out: a line for each way, `NAME: refused: WHY` or `NAME: DONE`.

`python attacks.py SOURCE TOOL`: a file of the workspace and a tool that the action sees.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
import struct
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

NUMBERS = {
    "x86_64": {"mount": 165, "umount2": 166, "pivot_root": 155, "setns": 308, "unshare": 272, "ptrace": 101, "bpf": 321}
    | {"name_to_handle_at": 303, "open_by_handle_at": 304, "keyctl": 250, "add_key": 248, "perf": 298, "reboot": 169}
    | {"swapon": 167, "acct": 163, "kexec_load": 246, "init_module": 175, "settimeofday": 164, "process_vm_readv": 310}
    | {"sethostname": 170, "syslog": 103, "quotactl": 179, "iopl": 172},
    "aarch64": {"mount": 40, "umount2": 39, "pivot_root": 41, "setns": 268, "unshare": 97, "ptrace": 117, "bpf": 280}
    | {"name_to_handle_at": 264, "open_by_handle_at": 265, "keyctl": 219, "add_key": 217, "perf": 241, "reboot": 142}
    | {"swapon": 224, "acct": 89, "kexec_load": 104, "init_module": 105, "settimeofday": 170, "process_vm_readv": 270}
    | {"sethostname": 161, "syslog": 116, "quotactl": 60, "iopl": 999},
}[os.uname().machine]
BOTH = {"open_tree": 428, "move_mount": 429, "fsopen": 430, "pidfd_open": 434, "clone3": 435, "pidfd_getfd": 438}
BOTH |= {"mount_setattr": 442, "fsmount": 432}
libc = ctypes.CDLL(None, use_errno=True)
BIND, REC, REMOUNT, MOVE = 4096, 16384, 32, 8192
NAMESPACES = {"user": 0x10000000, "mnt": 0x20000, "net": 0x40000000, "pid": 0x20000000, "cgroup": 0x2000000}
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
WRITTEN = (
    "sys/kernel/core_pattern",
    "sys/kernel/modprobe",
    "sys/kernel/hostname",
    "sys/kernel/sysrq",
    "sys/vm/drop_caches",
    "sys/vm/overcommit_memory",
    "sys/fs/binfmt_misc/register",
    "sys/net/ipv4/ip_forward",
    "sys/user/max_user_namespaces",
    "sysrq-trigger",
    "irq/default_smp_affinity",
    "1/oom_score_adj",
    "1/coredump_filter",
    "self/oom_score_adj",
    "self/attr/current",
    "scsi/scsi",
    "mtrr",
    "bus/pci/devices",
)
READ = ("1/root/etc/passwd", "1/cwd/etc/passwd", "1/mem", "1/environ", "1/maps", "1/fd/0", "1/stack", "kmsg")


def call(name: str, *arguments: object) -> int:
    words = [one.encode() if isinstance(one, str) else one for one in arguments]
    sized: list[Any] = [ctypes.c_long(one) if isinstance(one, int) else one for one in words]
    result = int(libc.syscall(ctypes.c_long({**NUMBERS, **BOTH}[name]), *sized))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def write(path: str, data: str = "x") -> None:
    with open(path, "w") as file:
        file.write(data)


def reopened(path: str) -> None:
    """Open for reading, then the descriptor's own name for writing."""
    descriptor = os.open(path, os.O_RDONLY)
    write(f"/proc/self/fd/{descriptor}")


def read(path: str) -> None:
    os.read(os.open(path, os.O_RDONLY), 1)


def enter(name: str) -> None:
    call("setns", os.open(f"/proc/1/ns/{name}", os.O_RDONLY), 0)


def by_handle(path: str) -> None:
    handle = ctypes.create_string_buffer(struct.pack("Ii", 128, 0) + bytes(128))
    mount = ctypes.create_string_buffer(4)
    call("name_to_handle_at", AT_FDCWD, path, handle, mount, 0)
    base = os.open(os.path.dirname(path), os.O_RDONLY)
    descriptor = call("open_by_handle_at", base, handle, os.O_RDWR)
    os.write(descriptor, b"x")


def suid() -> None:
    """A file with its owner's and a capability's rights, for a later start."""
    write("/tmp/suid", "")
    os.chmod("/tmp/suid", 0o6755)
    os.setxattr("/tmp/suid", "security.capability", struct.pack("<5I", 0x02000001, 0xFFFFFFFF, 0, 0xFFFFFFFF, 0))


def immutable() -> None:
    write("/tmp/kept", "")
    with open("/tmp/kept") as file:
        flags = ctypes.c_long(0x10)
        if libc.ioctl(file.fileno(), ctypes.c_ulong(0x40086602), ctypes.byref(flags)) < 0:
            raise OSError(ctypes.get_errno(), "FS_IOC_SETFLAGS")


def raised_limit() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY and most == resource.RLIM_INFINITY:
        raise OSError("there is no limit to raise")
    resource.setrlimit(resource.RLIMIT_NOFILE, (files + 1, files + 1))


def stolen() -> None:
    """A descriptor of the first process, by pidfd."""
    for number in range(30):
        try:
            call("pidfd_getfd", call("pidfd_open", 1, 0), number, 0)
        except OSError as error:
            if error.errno == 9:
                continue
            raise
        return


def ways(source: str, tool: str) -> dict[str, Callable[[], object]]:
    """All that is tried, by name. What is in the list and exists must be refused."""
    buffer = ctypes.create_string_buffer(256)
    attributes = struct.pack("4Q", 0, 1, 0, 0)
    tries: dict[str, Callable[[], object]] = {}
    for path in (source, tool, "/dev/null", "/proc", "/proc/sys", "/", "/dev", "/proc/kcore"):
        tries |= {
            f"remount {path}": partial(call, "mount", "", path, 0, REMOUNT | BIND, 0),
            f"remount the whole of {path}": partial(call, "mount", "", path, 0, REMOUNT, 0),
            f"mount_setattr {path}": partial(call, "mount_setattr", AT_FDCWD, path, AT_RECURSIVE, attributes, 32),
            f"umount {path}": partial(call, "umount2", path, 0),
            f"detach {path}": partial(call, "umount2", path, 2),
            f"move {path}": partial(call, "mount", path, "/tmp", 0, MOVE, 0),
            f"bind {path}": partial(call, "mount", path, "/tmp", 0, BIND | REC, 0),
            f"clone the mount {path}": partial(call, "open_tree", AT_FDCWD, path, 1),
        }
    for path in (source, tool):
        tries |= {
            f"write {path}": partial(write, path),
            f"write {path} by /proc/self/fd": partial(reopened, path),
            f"write {path} by /proc/self/root": partial(write, f"/proc/self/root{path}"),
            f"truncate {path}": partial(os.truncate, path, 0),
            f"chmod {path}": partial(os.chmod, path, 0o777),
            f"chown {path}": partial(os.chown, path, 1, 1),
            f"touch {path}": partial(os.utime, path, (1, 1)),
            f"remove {path}": partial(os.unlink, path),
            f"replace {path}": partial(os.rename, "/tmp", path),
            f"link {path}": partial(os.link, path, "/tmp/link"),
            f"label {path}": partial(os.setxattr, path, "user.x", b"x"),
            f"handle of {path}": partial(by_handle, path),
        }
    for path in WRITTEN:
        tries[f"write /proc/{path}"] = partial(write, f"/proc/{path}", "1")
    for path in READ:
        tries[f"read /proc/{path}"] = partial(read, f"/proc/{path}")
    for name, flag in NAMESPACES.items():
        tries[f"unshare {name}"] = partial(call, "unshare", flag)
        tries[f"enter the first process's {name}"] = partial(enter, name)
    for kind in (
        "tmpfs",
        "proc",
        "sysfs",
        "cgroup2",
        "cgroup",
        "devpts",
        "mqueue",
        "overlay",
        "ext4",
        "bpf",
        "debugfs",
    ):
        tries[f"mount {kind}"] = partial(call, "mount", "none", "/tmp", kind, 0, 0)
        tries[f"fsopen {kind}"] = partial(call, "fsopen", kind, 0)
    return tries | {
        "a disk's node": lambda: os.mknod("/tmp/disk", 0o060600, os.makedev(254, 0)),
        "a memory's node": lambda: os.mknod("/tmp/mem", 0o020600, os.makedev(1, 1)),
        "a node of zeros": lambda: os.mknod("/work/out/zero", 0o020600, os.makedev(1, 5)),
        "chroot": lambda: os.chroot("/tmp"),
        "pivot_root": lambda: call("pivot_root", "/tmp", "/tmp"),
        "chmod /dev/null": lambda: os.chmod("/dev/null", 0),
        "remove /dev/null": lambda: os.unlink("/dev/null"),
        "ptrace": lambda: call("ptrace", 16, 1, 0, 0),
        "read its memory": lambda: call(
            "process_vm_readv", 1, struct.pack("PN", ctypes.addressof(buffer), 8), 1, struct.pack("PN", 4096, 8), 1, 0
        ),
        "take its descriptor": stolen,
        "setuid": lambda: os.setuid(1),
        "setgid": lambda: os.setgid(1),
        "setgroups": lambda: os.setgroups([1]),
        "setresuid": lambda: os.setresuid(1, 2, 3),
        "a file with a capability": suid,
        "an immutable file": immutable,
        "a raw socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
        "a packet socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
        "a low port": lambda: socket.socket().bind(("127.0.0.1", 80)),
        "the host's name": lambda: call("sethostname", "evil", 4),
        "the clock": lambda: call("settimeofday", struct.pack("qq", 1, 0), 0),
        "a priority": lambda: os.setpriority(os.PRIO_PROCESS, 0, -20),
        "a real-time priority": lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)),
        "a limit": raised_limit,
        "bpf": lambda: call("bpf", 5, bytes(120), 120),
        "perf events of all": lambda: call("perf", struct.pack("IIQ", 0, 112, 0) + bytes(96), -1, 0, -1, 0),
        "restart": lambda: call("reboot", 0xFEE1DEAD, 672274793, 0x89ABCDEF, 0),
        "swap": lambda: call("swapon", "/tmp/disk", 0),
        "accounts": lambda: call("acct", "/tmp/acct"),
        "a kernel": lambda: call("kexec_load", 0, 0, 0, 0),
        "a module": lambda: call("init_module", bytes(8), 8, ""),
        "the kernel's log, cleared": lambda: call("syslog", 5, 0, 0),
        "quota": lambda: call("quotactl", 0x80000700, "/dev/vda", 0, buffer),
        "ports": lambda: call("iopl", 3),
    }


def report(name: str, attempt: Callable[[], object]) -> None:
    try:
        attempt()
    except (OSError, ValueError) as error:
        print(f"{name}: refused: {getattr(error, 'strerror', '') or error}")
    else:
        print(f"{name}: DONE")


def main(source: str, tool: str) -> None:
    """Try everything."""
    for name, attempt in ways(source, tool).items():
        sys.stdout.flush()
        if os.fork() == 0:  # what one changes of itself must not help the next
            report(name, attempt)
            sys.stdout.flush()
            os._exit(0)
        os.wait()
    for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM):
        os.kill(1, number)  # it may be sent, and means nothing to the first process of a namespace
    print("seen:", *sorted(name for name in os.listdir("/proc") if name.isdigit()))
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith(("Cap", "NoNewPrivs", "Uid")):
                print(*line.split())


if __name__ == "__main__":
    main(*sys.argv[1:])

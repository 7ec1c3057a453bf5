"""The confinement of a cell's processes, although they are root and have the capabilities of a worker.

The capabilities that no worker needs are dropped before the first daemon starts, so that no process in the cell ever
has them; in a jail they have no power over the machine, and stay. A filter refuses the system calls by which a process
with CAP_SYS_ADMIN reaches the machine around its mounts. A program on the cell's cgroup refuses every device but the
harmless ones, also to processes that make a node of the disk or mount devtmpfs. The kernel's settings are read-only,
except those of the cell's own network. `SECURITY.md` describes what all this does not prevent.
"""

from __future__ import annotations

import errno
import os

from bkrules.sandbox import syscalls
from bkrules.sandbox.devices import DEVICES

DROPPED = {
    **{"CAP_DAC_READ_SEARCH": 2, "CAP_LINUX_IMMUTABLE": 9, "CAP_SYS_MODULE": 16, "CAP_SYS_RAWIO": 17},
    **{"CAP_SYS_PACCT": 20, "CAP_SYS_BOOT": 22, "CAP_SYS_TIME": 25, "CAP_SYS_TTY_CONFIG": 26, "CAP_LEASE": 28},
    **{"CAP_AUDIT_CONTROL": 30, "CAP_MAC_OVERRIDE": 32, "CAP_MAC_ADMIN": 33, "CAP_SYSLOG": 34, "CAP_WAKE_ALARM": 35},
    **{"CAP_BLOCK_SUSPEND": 36, "CAP_AUDIT_READ": 37},
}
"""The capabilities that no worker needs, by their numbers."""

REFUSED = {
    "x86_64": {
        **{"kexec_load": 246, "kexec_file_load": 320, "init_module": 175, "finit_module": 313, "delete_module": 176},
        **{"open_by_handle_at": 304, "swapon": 167, "swapoff": 168, "reboot": 169, "iopl": 172, "ioperm": 173},
        **{"acct": 163, "settimeofday": 164, "clock_settime": 227},
    },
    "i386": {
        **{"kexec_load": 283, "init_module": 128, "finit_module": 350, "delete_module": 129, "open_by_handle_at": 342},
        **{"swapon": 87, "swapoff": 115, "reboot": 88, "iopl": 110, "ioperm": 101, "acct": 51, "stime": 25},
        **{"settimeofday": 79, "clock_settime": 264, "clock_settime64": 404},
    },
    "aarch64": {
        **{"kexec_load": 104, "kexec_file_load": 294, "init_module": 105, "finit_module": 273, "delete_module": 106},
        **{"open_by_handle_at": 265, "swapon": 224, "swapoff": 225, "reboot": 142, "acct": 89, "settimeofday": 170},
        **{"clock_settime": 112},
    },
    "arm": {
        **{"kexec_load": 347, "kexec_file_load": 401, "init_module": 128, "finit_module": 379, "delete_module": 129},
        **{"open_by_handle_at": 371, "swapon": 87, "swapoff": 115, "reboot": 88, "acct": 51, "settimeofday": 79},
        **{"clock_settime": 262, "clock_settime64": 404},
    },
}
"""The refused system calls, with EPERM, by the names of the kernel's ABIs."""
_ABIS = {
    "x86_64": {"x86_64": 0xC000003E, "i386": 0x40000003},
    "aarch64": {"aarch64": 0xC00000B7, "arm": 0x40000028},
}
_X32 = 0x40000000

READ_ONLY = ("proc/sys", "proc/sysrq-trigger", "proc/irq", "proc/bus", "proc/acpi")
"""The files of the kernel that no process may write to, in addition to /sys."""
WRITABLE = ("proc/sys/net", "proc/sys/user")
"""Settings below them that belong to the cell's own namespaces."""
PRISTINE = "opt/bk/pristine"
"""A covered folder; below it is a /proc without covers."""

_PR_CAPBSET_DROP = 24
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000
_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_NUMBER, _ARCHITECTURE = 0, 4

_CGROUP_DEVICE, _AT_DEVICE, _CHARACTER, _MKNOD = 15, 6, 2, 1
_TERMINALS = ((5, 1), (5, 2), *((major, None) for major in range(136, 144)))
# eBPF's operations; r0 has the result, r1 the context
_WORD, _MOVE, _SET, _SHIFT, _AND = 0x61, 0xBF, 0xB7, 0x77, 0x57
_JUMP_EQUAL, _JUMP_OTHER, _END = 0x15, 0x55, 0x95


def drop_capabilities() -> None:
    """Drop the capabilities in DROPPED for this process and its children. Raises OSError."""
    for number in DROPPED.values():
        syscalls.prctl(_PR_CAPBSET_DROP, number)
    effective, permitted, inheritable = syscalls.capabilities()
    kept = ~sum(1 << number for number in DROPPED.values())
    syscalls.set_capabilities(effective & kept, permitted & kept, inheritable & kept)


def refuse_calls() -> None:
    """Refuse the calls in REFUSED to this process and its children. Raises OSError.

    This needs CAP_SYS_ADMIN, since it must not set "no new privileges", which would disable a rootless worker's
    helpers.
    """
    syscalls.install_filter(_filter())


def _filter() -> bytes:
    """Return the filter in the kernel's classic BPF: a block for each ABI of the machine."""
    step = syscalls.filter_step
    machine = os.uname().machine
    code = step(_LOAD, _ARCHITECTURE)
    for name, architecture in _ABIS[machine].items():
        numbers = sorted(REFUSED[name].values())
        if name == "x86_64":  # the same calls of the ABI x32
            numbers += [number | _X32 for number in numbers]
        block = step(_LOAD, _NUMBER)
        for place, number in enumerate(numbers):
            block += step(_IF_EQUAL, number, len(numbers) - place, 0)
        block += step(_RETURN, _ALLOW) + step(_RETURN, _ERROR | errno.EPERM)
        code += step(_IF_EQUAL, architecture, 0, len(block) // 8) + block
    return code + step(_RETURN, _ERROR | errno.ENOSYS)


def cover(root: str) -> None:
    """Make the files in READ_ONLY of the cell's /proc and /sys read-only. Raises OSError.

    The kernel lets a user namespace mount a new /proc only where it sees one without covers, which rootless workers
    need. So there is one, out of reach.
    """
    quiet = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
    pristine = f"{root}/{PRISTINE}"
    os.makedirs(f"{pristine}/proc")
    syscalls.mount("proc", f"{pristine}/proc", "proc", quiet)
    for path in READ_ONLY:
        if os.path.exists(f"{root}/{path}"):
            syscalls.mount(f"{root}/{path}", f"{root}/{path}", flags=syscalls.MS_BIND)
            syscalls.mount(
                "", f"{root}/{path}", flags=syscalls.MS_BIND | syscalls.MS_REMOUNT | syscalls.MS_RDONLY | quiet
            )
    for path in WRITABLE:
        syscalls.mount(f"{pristine}/{path}", f"{root}/{path}", flags=syscalls.MS_BIND)
    syscalls.mount("bk", pristine, "tmpfs", quiet | syscalls.MS_RDONLY, "mode=0,size=4096")
    syscalls.mount("", f"{root}/sys", flags=syscalls.MS_BIND | syscalls.MS_REMOUNT | syscalls.MS_RDONLY | quiet)


def limit_devices(cgroup: str) -> None:
    """Refuse a cgroup's processes every device but the harmless ones. Raises OSError when the kernel cannot."""
    folder = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syscalls.attach_program(folder, _device_program(), _CGROUP_DEVICE, _AT_DEVICE, b"bk_devices")
    finally:
        os.close(folder)


def _device_program() -> bytes:
    """Return a program that allows making any node, and opening the character devices of a cell."""
    step = syscalls.program_step
    allow = [step(_SET, 0, value=1), step(_END)]
    steps = [
        step(_WORD, 2, 1, 0),
        step(_WORD, 4, 1, 4),
        step(_WORD, 5, 1, 8),
        step(_MOVE, 3, 2),
        step(_SHIFT, 3, value=16),
    ]
    steps += [step(_JUMP_OTHER, 3, 0, 2, _MKNOD), *allow]
    steps += [step(_AND, 2, value=0xFFFF), step(_JUMP_EQUAL, 2, 0, 2, _CHARACTER), step(_SET, 0, value=0), step(_END)]
    for major, minor in (*sorted(DEVICES.values()), *_TERMINALS):
        if minor is None:
            steps += [step(_JUMP_OTHER, 4, 0, 2, major), *allow]
        else:
            steps += [step(_JUMP_OTHER, 4, 0, 3, major), step(_JUMP_OTHER, 5, 0, 2, minor), *allow]
    return b"".join([*steps, step(_SET, 0, value=0), step(_END)])

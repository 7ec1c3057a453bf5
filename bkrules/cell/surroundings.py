"""The surroundings that a process inherits, which must be the same in every cell, however bk was started.

The supervisor resets them for its cell. It keeps what only affects speed: niceness, scheduling, processors. A limit
that bk may not raise stays lower, and is then in the key (`kernel.LIMITS`).
"""

from __future__ import annotations

import os
import resource
import signal
from contextlib import suppress
from pathlib import Path

from bkrules.sandbox import syscalls

UMASK = 0o022
_INFINITE = resource.RLIM_INFINITY
LIMITS = {
    "AS": (_INFINITE, _INFINITE),
    "CORE": (0, 0),
    "CPU": (_INFINITE, _INFINITE),
    "DATA": (_INFINITE, _INFINITE),
    "FSIZE": (_INFINITE, _INFINITE),
    "MEMLOCK": (8 << 20, 8 << 20),
    "MSGQUEUE": (819200, 819200),
    "NICE": (0, 0),
    "NOFILE": (1024, 16384),
    "NPROC": (_INFINITE, _INFINITE),
    "RSS": (_INFINITE, _INFINITE),
    "RTPRIO": (0, 0),
    "SIGPENDING": (16384, 16384),
    "STACK": (8 << 20, _INFINITE),
}
"""The soft and the hard limit of a process in a cell, by their names in getrlimit(2); cgroups limit its memory and processes."""
_NETWORK = {
    "ipv4/ip_forward": "0",
    **{
        f"ipv4/conf/{which}/{name}": "0"
        for which in ("all", "default", "lo")
        for name in ("route_localnet", "rp_filter")
    },
}
"""The settings that a new network inherits from the machine's first one, with the kernel's defaults."""


def reset() -> None:
    """Give this process the umask and the signal dispositions of all processes of bk, whatever `nohup` has set."""
    os.umask(UMASK)
    for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}:  # Python ignores these itself, everywhere
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def reset_for_cell() -> None:
    """Give this process and its children the surroundings of a cell. Raises OSError."""
    for name, (soft, hard) in LIMITS.items():
        number = getattr(resource, f"RLIMIT_{name}")
        try:
            resource.setrlimit(number, (soft, hard))
        except (OSError, ValueError):  # raising a limit needs a right that root may lack in a container
            _, most = resource.getrlimit(number)
            resource.setrlimit(number, (_least(soft, most), _least(hard, most)))
    with suppress(PermissionError):  # in a user namespace without that right
        os.setgroups([])
    syscalls.set_personality(0)
    syscalls.new_session_keyring()
    with suppress(PermissionError):  # the same right, below the value with which bk was started
        Path("/proc/self/oom_score_adj").write_text("0")


def _least(one: int, other: int) -> int:
    """Return the lower of two limits."""
    return min((one, other), key=lambda limit: float("inf") if limit == _INFINITE else limit)


def reset_network() -> None:
    """Give the network of this process the kernel's default settings. Settings that this kernel lacks are skipped."""
    for name, value in _NETWORK.items():
        path = Path("/proc/sys/net", name)
        if path.exists():
            path.write_text(value)

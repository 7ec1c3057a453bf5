"""The facts of this machine's kernel that can change what happens in a cell.

Each build reads them, a null build too, so this module reads as little as possible and imports only `os`.
"""

from __future__ import annotations

import os

SERIES, RELEASE, NONE = "series", "release", "none"
KEYS = (SERIES, RELEASE, NONE)
"""The values of `--kernel_key`: how much of the kernel is in the keys of cells."""

FILES = (
    "proc/filesystems",
    "proc/self/uid_map",
    "proc/sys/user/max_user_namespaces",
    "proc/sys/kernel/unprivileged_userns_clone",
    "proc/sys/kernel/apparmor_restrict_unprivileged_userns",
    "proc/sys/kernel/yama/ptrace_scope",
    "sys/kernel/security/lsm",
    "sys/fs/selinux/enforce",
    "proc/self/attr/current",
)
RELEASES, MOUNTS = "release", "mounts"
_MOUNTS = "proc/self/mountinfo"
_KINDS = (" - cgroup", " - binfmt_misc ")
_BINFMT = "proc/sys/fs/binfmt_misc"
_STATUS = "proc/self/status"
_RIGHTS = ("NoNewPrivs:", "Seccomp:")
_LIMITS = "proc/self/limits"
LIMITS = {"open files": 16384, "file size": None, "address space": None, "data size": None, "stack size": None}
"""Hard limits of processes in cells, by their names in /proc/PID/limits; None means unlimited."""
_IPV6 = "proc/self/net/if_inet6"
_CONTROLLERS = ("cgroup.controllers", "cgroup.subtree_control")
_NOT_A_HANDLER = ("register", "status")

Texts = dict[str, str]


def texts(root: str = "/") -> Texts:
    """Return the relevant texts of the kernel by their paths; a missing one is empty."""
    system = os.uname()
    found = {RELEASES: f"{system.release} {system.version}"}
    for path in FILES:
        found[path] = read(root + path)
    status = read(root + _STATUS).splitlines()
    found[_STATUS] = "\n".join(line for line in status if line.startswith(_RIGHTS))
    names = tuple(f"Max {name}" for name in LIMITS)
    found[_LIMITS] = "\n".join(line for line in read(root + _LIMITS).splitlines() if line.startswith(names))
    found[_IPV6] = "yes" if os.path.exists(root + _IPV6) else "no"
    # Without the numbers of mounts and devices, which differ in each mount namespace and for each mount.
    lines = [
        line.split(" ", 3)[3] for line in read(root + _MOUNTS).splitlines() if any(kind in line for kind in _KINDS)
    ]
    found[MOUNTS] = "\n".join(lines)
    for line in lines:
        before, _, kind = line.partition(" - ")
        folder = before.split(" ")[1].lstrip("/")
        if kind.startswith("cgroup2 "):
            for name in _CONTROLLERS:
                found[f"{folder}/{name}"] = read(f"{root}{folder}/{name}")
    try:
        handlers = sorted(os.listdir(root + _BINFMT))
    except OSError:
        handlers = []
    for name in handlers:
        if name != "register":
            found[f"{_BINFMT}/{name}"] = read(f"{root}{_BINFMT}/{name}")
    return found


def read(path: str) -> str:
    """Return the text of a small file of the kernel, or an empty text when it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        parts = []
        while part := os.read(descriptor, 1 << 16):
            parts.append(part)
        return b"".join(parts).decode("utf-8", "replace")
    except OSError:
        return ""
    finally:
        os.close(descriptor)


def properties(found: Texts, key: str) -> dict[str, str]:
    """Return the kernel as properties of a platform, each with a name that begins with `kernel`; `key` is one of KEYS."""
    if key == NONE or not found:
        return {}
    release = found[RELEASES]
    properties = {
        "kernel-release": release if key == RELEASE else series(release),
        "kernel-lsm": _lsm(found),
        "kernel-rights": _rights(found),
        "kernel-ipv6": found[_IPV6],
        "kernel-cgroup": cgroup_mode(found),
        "kernel-controllers": _controllers(found),
        "kernel-user-namespaces": _user_namespaces(found),
        "kernel-ptrace-scope": found["proc/sys/kernel/yama/ptrace_scope"].strip() or "none",
    }
    lower = _lower_limits(found)
    return {**properties, **({"kernel-limits": lower} if lower else {}), **_handlers(found)}


def series(release: str) -> str:
    """Return the series of a release, `6.12` of `6.12.48+deb13-amd64`, within which the kernel's maintainers keep
    compatibility.
    """
    numbers = release.split(".")[:2]
    return ".".join(number[: len(number) - len(number.lstrip("0123456789"))] for number in numbers)


def cgroup_mode(found: Texts) -> str:
    """Return `v1`, `v2`, `hybrid` or `none`, systemd's words for how a machine mounts its cgroups."""
    kinds = {line.partition(" - ")[2].split(" ")[0] for line in found[MOUNTS].splitlines()}
    modes = {("cgroup",): "v1", ("cgroup2",): "v2", ("cgroup", "cgroup2"): "hybrid"}
    return modes.get(tuple(sorted(kinds & {"cgroup", "cgroup2"})), "none")


def _lsm(found: Texts) -> str:
    """Return the active security modules, and how they confine this process: the profile, or the domain."""
    modules = found["sys/kernel/security/lsm"].strip() or "unknown"
    label = found["proc/self/attr/current"].strip("\0\n ")
    domain = label.split(":")[2] if label.count(":") > 2 else label  # of SELinux without user, role and level
    enforcing = {"0": "permissive", "1": "enforcing"}.get(found["sys/fs/selinux/enforce"].strip(), "")
    return " ".join(word for word in (modules, domain, enforcing) if word)


def _rights(found: Texts) -> str:
    """Return whether a filter of system calls or such limits bk, as in a container.

    bk's capabilities do not count: without those of root it runs no cell, and may use the results of cells that ran
    elsewhere.
    """
    said = dict(line.split(":\t", 1) for line in found[_STATUS].splitlines() if ":\t" in line)
    more = {"no new privileges": said.get("NoNewPrivs"), "system calls filtered": said.get("Seccomp")}
    return ", ".join(words for words, value in more.items() if value not in (None, "0")) or "all"


def _lower_limits(found: Texts) -> str:
    """Return the limits of bk itself that are lower than those of a cell, since not every root may raise them."""
    lower = []
    for line in found[_LIMITS].splitlines():
        name = next(name for name in LIMITS if line.startswith(f"Max {name}"))
        hard = line.removeprefix(f"Max {name}").split()[1]
        wanted = LIMITS[name]
        if hard != "unlimited" and (wanted is None or int(hard) < wanted):
            lower.append(f"{name} {hard}")
    return ", ".join(lower)


def _controllers(found: Texts) -> str:
    """Return the cgroup2 controllers of cells: those that the root cgroup enables, and those that bk enables there."""
    handed = {word for path, text in found.items() if path.endswith("/cgroup.subtree_control") for word in text.split()}
    there = {word for path, text in found.items() if path.endswith("/cgroup.controllers") for word in text.split()}
    return " ".join(sorted(handed | (there & {"memory", "pids"}))) or "none"


def _user_namespaces(found: Texts) -> str:
    """Return whether a process without privileges gets a user namespace, and of which kind."""
    if found["proc/sys/user/max_user_namespaces"].strip() in ("", "0"):
        return "none"
    if found["proc/sys/kernel/unprivileged_userns_clone"].strip() == "0":
        return "for root"
    return "restricted" if found["proc/sys/kernel/apparmor_restrict_unprivileged_userns"].strip() == "1" else "for all"


def _handlers(found: Texts) -> dict[str, str]:
    """Return the binary formats of the kernel (binfmt_misc), each by its name: interpreter, flags, and the bytes that
    it matches.

    Of the interpreter's path only the name counts: a cell sees none of the machine's, and one that was opened at
    registration (flag F) is the same wherever it was.
    """
    handlers = {}
    if found.get(f"{_BINFMT}/status", "").strip() == "disabled":
        return {}
    for path, text in found.items():
        name = path.rpartition("/")[2]
        lines = text.splitlines()
        if not path.startswith(f"{_BINFMT}/") or name in _NOT_A_HANDLER or lines[:1] != ["enabled"]:
            continue
        interpreter = next((line.split("/")[-1] for line in lines if line.startswith("interpreter ")), "")
        rest = [line for line in lines[1:] if not line.startswith("interpreter ")]
        handlers[f"kernel-binfmt-{name}"] = " ".join([interpreter, *rest])
    return handlers

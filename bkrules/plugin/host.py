"""The facts of this machine for workers."""

from __future__ import annotations

import os
import platform
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bkrules.plugin import container
from bkrules.system import files, kernel

CONTROLLERS = ("memory", "pids")
SUBORDINATE_IDS = 65536
FUSE_DEVICE, TUN_DEVICE, LOOP_CONTROL = os.makedev(10, 229), os.makedev(10, 200), os.makedev(10, 237)
_DRIVERS = {"/dev/fuse": ("fuse", FUSE_DEVICE), "/dev/net/tun": ("tun", TUN_DEVICE)}
_MAKERS = ("usr/sbin/mke2fs", "sbin/mke2fs")


@dataclass(frozen=True)
class Lack:
    """A lack of this machine: what, why it is needed, and how to fix it.

    A remedy that ends in a command has two spaces before it: `load it:  modprobe fuse`.
    """

    what: str
    why: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}: {self.why}; {self.remedy}"

    @property
    def command(self) -> str:
        """The command of the remedy, or an empty text."""
        return command_of(self.remedy)


def command_of(remedy: str) -> str:
    """Return the command at the end of a remedy, or an empty text."""
    return remedy.partition(":  ")[2]


@dataclass(frozen=True)
class Host:
    """Facts about the kernel and the user, probed without starting anything."""

    root: bool
    fuse: bool
    filesystems: frozenset[str]
    user_namespaces: int
    mapped_ids: int
    cgroup: str
    namespaces: frozenset[str] = field(default=frozenset())
    machine: str = ""
    tun: bool = False
    mke2fs: str = ""
    """The command that makes an ext4; empty when a cell's root cannot be one, in memory."""

    controllers: Mapping[str, str] = field(default_factory=dict)
    """The folder below which a cell's group gets a limit of `memory` or `pids`; the same as `cgroup` with cgroup2."""

    kernel: Mapping[str, str] = field(default_factory=dict)
    """The texts of the kernel: see `bkrules.system.kernel`."""

    folder: str = "/"
    """The folder below which the facts are read; ends in a slash."""

    container: str = ""
    """The maker of the container in which bk runs, such as docker; empty outside of one."""

    tried: tuple[Lack, ...] | None = None
    """The lacks for every cell that bk met when it tried what cells do; None before it has."""

    def read(self, path: str) -> str:
        """Return the text of a file of this machine, as the function `read` does."""
        return read(path, self.folder)

    @property
    def features(self) -> dict[str, str]:
        """Return the facts, besides the kernel's own, that can change a result, for the key of a cell."""
        names = ("fuse", "overlay")
        yes = {f"filesystem-{name}": "yes" if name in self.filesystems else "no" for name in names}
        return {"OSFamily": "Linux", "ISA": self.machine, **yes}

    def platform(self, kernel_key: str) -> dict[str, str]:
        """Return all facts that can change a result, with the kernel's part by `kernel_key`, one of `kernel.KEYS`."""
        return {**self.features, **kernel.properties(dict(self.kernel), kernel_key)}

    def unlimited(self) -> tuple[str, ...]:
        """Return the limits of a cell that this machine cannot apply: without one of them it is not fully isolated."""
        return tuple(name for name in CONTROLLERS if name not in self.controllers)

    def lacks(self) -> tuple[Lack, ...]:
        """Return the lacks of this machine for every cell."""
        found = list(self.tried or ())
        if self.tried is None and not self.root:
            found.append(
                Lack(
                    "not root",
                    "a cell makes namespaces, mounts and device nodes",
                    "run bk as root, for instance with sudo",
                )
            )
        missing = {"mnt", "pid", "net", "ipc", "uts"} - self.namespaces
        if missing:
            found.append(
                Lack(
                    f"no {', '.join(sorted(missing))} namespaces",
                    "a cell is isolated by them",
                    "use a kernel that has them",
                )
            )
        if not self.cgroup:
            found.append(
                Lack("no cgroup2", "a cell is contained by one", "mount one:  mount -t cgroup2 none /sys/fs/cgroup")
            )
        if "overlay" not in self.filesystems:
            found.append(
                Lack("no overlay filesystem", "the overlayfs snapshotter mounts it", self.driver_remedy("overlay"))
            )
        return tuple(found)

    def driver_remedy(self, name: str) -> str:
        """Return how this machine gets a driver of the kernel."""
        if self.container:
            return f"load it on the machine of this {self.container} container: `modprobe {name}`"
        if not os.path.isdir(f"{self.folder}lib/modules/{platform.release()}"):
            return f"use a kernel that has it: {platform.release()} has no modules here"
        return f"load it:  modprobe {name}"

    def device_remedy(self, path: str) -> str:
        """Return how this machine gets a device: /dev/fuse or /dev/net/tun."""
        driver, number = _DRIVERS[path]
        if self.container:
            return container.device(self.container, path)
        if driver not in files.text_or_nothing(f"{self.folder}proc/misc").split():
            return self.driver_remedy(driver)
        return f"make it:  mknod -m 666 {path} c {os.major(number)} {os.minor(number)}"


def goarch() -> str:
    """Return Go's name of this machine's architecture, which images and BuildKit use too: `amd64`."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def probe(root: str = "/") -> Host:
    """Return the facts of this machine, read below `root`."""
    mounts = _mounts(files.text_or_nothing(f"{root}proc/self/mountinfo"))
    cgroup = next((mount.point for mount in mounts if mount.kind == "cgroup2"), "")
    return Host(
        root=os.geteuid() == 0 and _mapped(root) > 1,
        fuse=_is_device(f"{root}dev/fuse", FUSE_DEVICE),
        filesystems=frozenset(
            line.split()[-1] for line in files.text_or_nothing(f"{root}proc/filesystems").splitlines() if line.strip()
        ),
        user_namespaces=int(files.text_or_nothing(f"{root}proc/sys/user/max_user_namespaces").strip() or 0),
        mapped_ids=_mapped(root),
        cgroup=cgroup,
        namespaces=frozenset(_names(f"{root}proc/self/ns")),
        machine=platform.machine(),
        # A node suffices, since the kernel loads the driver at its first use; and so does the driver, since cells make nodes.
        tun=_is_device(f"{root}dev/net/tun", TUN_DEVICE) or "tun" in files.text_or_nothing(f"{root}proc/misc").split(),
        mke2fs=_mke2fs(root),
        controllers=_controllers(root, cgroup, mounts),
        kernel=kernel.texts(root),
        folder=root,
        container=container.container(root),
    )


_notice: Callable[[str], object] | None = None


def notice_reads(notice: Callable[[str], object]) -> None:
    """Call `notice` with the path of each file that `read` returns from now on, before it is read."""
    global _notice
    _notice = notice


def read(path: str, below: str = "/") -> str:
    """Return the text of a file of this machine, empty when it does not exist; bytes that are not UTF-8 are replaced.

    The answer of a build depends on each file that is read: the next build notices when one changes, appears or
    disappears. `path` is absolute, and searched in the folder `below`. Raises ValueError for a relative path, OSError
    for anything but a file.
    """
    if not path.startswith("/") or "\0" in path:
        raise ValueError(f"a file of the machine has an absolute path, but was {path!r}")
    place = f"{below}{path.lstrip('/')}"
    if _notice is not None:
        _notice(place)
    try:
        return files.read_text(place)
    except (FileNotFoundError, NotADirectoryError):
        return ""


def _names(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def _is_device(path: str, number: int) -> bool:
    try:
        found = os.stat(path)
    except OSError:
        return False
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == number


def _mke2fs(root: str) -> str:
    can_mount = "ext4" in files.text_or_nothing(f"{root}proc/filesystems").split()
    if not can_mount or not _is_device(f"{root}dev/loop-control", LOOP_CONTROL):
        return ""
    return next((f"/{path}" for path in _MAKERS if os.access(f"{root}{path}", os.X_OK)), "")


def _mapped(root: str) -> int:
    """Return how many user ids this process may map: all of them, unless it is in a user namespace."""
    return sum(int(line.split()[2]) for line in files.text_or_nothing(f"{root}proc/self/uid_map").splitlines())


@dataclass(frozen=True)
class _Mount:
    """A line of mountinfo, as far as cgroups need it."""

    kind: str
    inner: str
    point: str
    options: frozenset[str]


def _mounts(mountinfo: str) -> list[_Mount]:
    found = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        inner, point = before.split()[3:5]
        kind, _, options = after.split(" ")[:3]  # the source, between them, may be empty
        found.append(_Mount(kind, inner, point, frozenset(options.split(","))))
    return found


def _controllers(root: str, cgroup: str, mounts: list[_Mount]) -> dict[str, str]:
    """Return the place of each controller: in cgroup2, or in a separate hierarchy, below the group of this process."""
    found: dict[str, str] = {}
    if cgroup:
        # Only the real root may hold processes and enable controllers; it alone has no cgroup.type.
        base = f"{root}{cgroup.lstrip('/')}"
        may_enable = not os.path.exists(f"{base}/cgroup.type")
        words = files.text_or_nothing(f"{base}/cgroup.subtree_control") + (
            files.text_or_nothing(f"{base}/cgroup.controllers") if may_enable else ""
        )
        found |= {name: cgroup for name in CONTROLLERS if name in words.split()}
    own = dict(line.split(":", 2)[1:] for line in files.text_or_nothing(f"{root}proc/self/cgroup").splitlines())
    for mount in mounts:
        for name in CONTROLLERS:
            if mount.kind == "cgroup" and name in mount.options:
                inner = own.get(name, "/").removeprefix(mount.inner.rstrip("/"))
                folder = f"{mount.point}{inner}".rstrip("/")
                found[name] = folder if os.path.isdir(f"{root}{folder.lstrip('/')}") else mount.point
    return found


def subordinate_range(text: str, user: str) -> tuple[int, int] | None:
    """Return the first range of at least 65,536 ids of `user` in /etc/subuid or /etc/subgid: its start and length."""
    for line in text.splitlines():
        name, _, rest = line.strip().partition(":")
        start, _, count = rest.partition(":")
        if name == user and start.isdigit() and count.isdigit() and int(count) >= SUBORDINATE_IDS:
            return int(start), int(count)
    return None

"""Snapshotters that need more than buildkitd: their tools, and their lacks."""

from __future__ import annotations

from bkrules.plugin.host import Host, Lack

FUSE_OVERLAYFS, STARGZ = "fuse-overlayfs", "stargz"


def tools(snapshotter: str) -> tuple[str, ...]:
    """Return the pinned binaries that a snapshotter runs. containerd mounts fuse-overlayfs by a helper of that name."""
    return ("mount.fuse3",) if snapshotter == FUSE_OVERLAYFS else ()


def host_tools(snapshotter: str) -> tuple[str, ...]:
    """Return the commands of the machine that a snapshotter runs: fuse-overlayfs is in C, and is linked with the
    machine's libfuse3.
    """
    return (FUSE_OVERLAYFS,) if snapshotter == FUSE_OVERLAYFS else ()


def lacks(snapshotter: str, host: Host) -> tuple[Lack, ...]:
    """Return the lacks of this machine for a snapshotter, besides the commands of `host_tools`."""
    if host.fuse or snapshotter not in (FUSE_OVERLAYFS, STARGZ):
        return ()
    why = f"the {snapshotter} snapshotter mounts layers through it"
    return (Lack("no /dev/fuse", why, host.device_remedy("/dev/fuse")),)


def no_jail(snapshotter: str) -> str:
    """Return why a snapshotter does not run in a jail; empty when it does."""
    return f"{FUSE_OVERLAYFS} is untested in jails" if snapshotter == FUSE_OVERLAYFS else ""

"""A file system in memory that is no tmpfs: ext4 on a loop device, whose file has no name.

Nothing is left of it when the last process that sees it ends, however that comes about: the mount goes with the mount
namespace, the device is freed with the mount, and the memory with the device.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct

from bkrules.sandbox import syscalls

KIND = "ext4"
_FEATURES = "none,dir_index,dir_nlink,ext_attr,extent,extra_isize,filetype,flex_bg,huge_file,large_file,sparse_super"
_SEED = "626b0000-0000-4000-8000-000000000000"
"""The identity of each file system, and the seed of the order of its folders, which is the same in every cell."""
_BLOCK, _BYTES_OF_INODE = 4096, 16384
_GET_FREE, _CONFIGURE, _AUTOCLEAR = 0x4C82, 0x4C0A, 4
_MAJOR = 7
_INFORMATION = "5Q4I64s64s32s2Q"
_TRIES = 100


def ext4(size: int, maker: str, folder: str, name: str) -> int:
    """Make an empty file system of `size` bytes by the command `maker`. Return the descriptor of its mount, for
    `syscalls.move_mount`.

    The kernel calls the file by `name`. Where the machine has no node of a loop device, it is in `folder` for a moment.
    Raises OSError.
    """
    file = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        os.truncate(file, size - size % _BLOCK)
        _format(file, maker)
        device = _attach(file, folder)
    finally:
        os.close(file)
    try:
        mounted = syscalls.new_mount(KIND, {"source": f"/proc/self/fd/{device}"}, ("discard",))
    finally:
        os.close(device)
    os.rmdir("lost+found", dir_fd=mounted)
    return mounted


def _format(file: int, maker: str) -> None:
    shape = ["-O", _FEATURES, "-b", str(_BLOCK), "-I", "256", "-i", str(_BYTES_OF_INODE), "-m", "0", "-U", _SEED]
    more = f"lazy_itable_init=1,nodiscard,root_owner=0:0,hash_seed={_SEED}"
    arguments = [maker, "-q", "-F", *shape, "-E", more, "/proc/self/fd/3"]
    actions = [
        (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
        (os.POSIX_SPAWN_DUP2, 1, 2),  # it warns of types of file systems that its empty configuration lacks
        (os.POSIX_SPAWN_DUP2, file, 3),
    ]
    pid = os.posix_spawn(maker, arguments, {"MKE2FS_CONFIG": "/dev/null"}, file_actions=actions)
    if code := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        raise OSError(errno.EIO, f"{maker} ended with status {code}")


def _attach(file: int, folder: str) -> int:
    """Return the open loop device of a file. It is freed when nothing uses it any more."""
    information = struct.pack(_INFORMATION, *[0] * 5, 0, 0, 0, _AUTOCLEAR, b"", b"", b"", 0, 0)
    wish = struct.pack("2I", file, _BLOCK) + information + bytes(64)
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_TRIES):
            device = _open(fcntl.ioctl(control, _GET_FREE), folder)
            try:
                fcntl.ioctl(device, _CONFIGURE, wish)
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:  # then another process was faster
                    raise
            else:
                return device
    finally:
        os.close(control)
    raise OSError(errno.EBUSY, "no loop device stays free")


def _open(number: int, folder: str) -> int:
    try:
        return os.open(f"/dev/loop{number}", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:  # as in a container, whose /dev does not follow the kernel
        node = f"{folder}/loop-{os.getpid()}"
        os.mknod(node, stat.S_IFBLK | 0o600, os.makedev(_MAJOR, number))
        try:
            return os.open(node, os.O_RDWR | os.O_CLOEXEC)
        finally:
            os.unlink(node)

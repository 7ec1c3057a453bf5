"""What tests share that try to leave a cell: a beginning for their code, and what they must not have changed."""

from __future__ import annotations

import hashlib
from pathlib import Path

from bkrules.analysis import host_inputs

TRY = '''
import contextlib, ctypes, errno, os, stat, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
BIND, REMOUNT, RDONLY, MOVE, REC = 4096, 32, 1, 8192, 16384
MARK = b"changed by a cell"

def check(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result

def mount(source, target, kind=None, flags=0, data=None):
    words = [None if word is None else os.fsencode(word) for word in (source, target, kind, data)]
    check(libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3]))

def call(number, *arguments):
    return check(libc.syscall(number, *arguments))

@contextlib.contextmanager
def refused(*numbers):
    """What is in here does not work, with one of these numbers of errors where some are given."""
    try:
        yield
    except OSError as error:
        assert not numbers or error.errno in numbers, error
    else:
        raise AssertionError("it worked")

JAIL = open("/proc/self/uid_map").read().split()[1] != "0"

def loosen(path):
    """Make a mount writable; its file system is not, and in a jail the kernel refuses it too."""
    with refused(errno.EPERM) if JAIL else contextlib.nullcontext():
        mount(None, path, None, REMOUNT | BIND)

def write(path):
    """Try to change a file or to add one to a folder, by every way there is to open it."""
    if os.path.isdir(path):
        with refused():
            open(f"{path}/added", "w")
        return
    for flags in (os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_WRONLY | os.O_APPEND):
        with refused():
            os.write(os.open(path, flags), MARK)
    with refused():
        os.truncate(path, 0)
    with refused():
        os.chmod(path, 0o777)
    with refused():
        os.utime(path, (0, 0))
    with refused():
        os.setxattr(path, "trusted.bk", b"x")

SHOWN = [line.split()[4] for line in open("/proc/self/mountinfo") if " overlay " in line]
'''


def shown() -> dict[str, str]:
    """The digests of files of this machine that a cell sees."""
    here = host_inputs.load(str(Path.home()))
    package = sorted(Path(here.binds[-1]).glob("execution/*.py"))
    paths = [here.interpreter, *here.libraries, *map(str, package)]
    return {path: hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths}

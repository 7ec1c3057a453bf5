"""The inside of a command: an ordinary action, or a registry of a run.

    bk -- zygote -- first process of a PID namespace -- the command

All processes of the command end with it. In a sandbox the command sees another root, which contains only the declared
files, and a network without a way out. It has no capability and cannot get one, so read-only files stay so.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from bkrules.sandbox import syscalls
from bkrules.sandbox.cgroups import Cgroups
from bkrules.sandbox.ipc import receive, send
from bkrules.sandbox.messages import Command, CommandEnd, CommandSpec, SandboxedCommand, SandboxesSpec
from bkrules.system.waiting import readable

MOST_OUTPUT = 64 << 20
"""The limit in bytes of the output of a sandboxed command."""
_DEVICES = ("null", "zero", "full", "random", "urandom")
_LINKS = (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2"))
_SECRETS = ("kcore", "keys", "key-users", "kpagecgroup", "kpagecount", "kpageflags", "sched_debug", "timer_list")
"""The files of /proc that describe the machine and not the command."""
_QUIET = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
_NEW = "new"
_NOT_STARTED, _KILLED = 127, 128 + signal.SIGKILL
_MANY = 1 << 16
_PIECE = 1 << 20
_PATIENCE = 20.0
"""The limit in seconds for mounts."""
_PYTHONS = (signal.SIGPIPE, signal.SIGXFSZ)
"""The signals that Python ignores, and that a program expects to have their default action."""


@dataclass
class _End:
    """The end of a command: its exit code, 128 + n for signal n, and the limit that it exceeded, if any."""

    code: int
    over: str = ""


def begin(spec: CommandSpec, channel: socket.socket, death: int, log: int, prepare: Callable[[], None]) -> None:
    """Start a command in a new PID namespace, with its output in `log`. Its end, or that of `death`, ends all its processes.

    The calling process has one thread and continues at once. The new process calls `prepare` first.
    """

    def work() -> None:
        end = _run(spec, [death], log, _wake_on_end())
        if end is not None:
            send(channel, CommandEnd(end.code))

    if syscalls.clone3(syscalls.CLONE_NEWPID) == 0:
        _first_process(work, prepare)


def begin_sandboxes(spec: SandboxesSpec, channel: socket.socket, death: int, prepare: Callable[[], None]) -> None:
    """Start a process that runs sandboxed commands, one after the other, as `channel` asks, until `death` or `channel` ends.

    A fork of Python costs more than the namespaces of a sandbox, so one process serves many commands. The commands
    share its PID namespace, which is empty when the next one starts, its user namespace and its cgroup, and nothing
    else. On a machine without user namespaces, or with ones that cannot see their own processes, the commands still
    have no capabilities.
    """
    if not _begun(spec, channel, death, prepare, syscalls.CLONE_NEWUSER):
        _begun(spec, channel, death, prepare, 0)


def _begun(
    spec: SandboxesSpec, channel: socket.socket, death: int, prepare: Callable[[], None], namespace: int
) -> bool:
    """Start such a process with a user namespace, or without one for 0. Return whether it could prepare its mounts."""
    near, far = socket.socketpair()
    groups = Cgroups(spec.cgroup, spec.limited) if spec.cgroup else None
    folder = os.open(f"{groups.path}/init", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if groups else None
    try:
        pid = syscalls.clone3(syscalls.CLONE_NEWPID | namespace, folder)
        if pid == 0:
            near.close()
            root, shut = spec.root, bool(namespace)
            _first_process(lambda: _serve(channel, death, root), lambda: _make(root, far, prepare, shut=shut))
        far.close()
        if groups:
            groups.join(pid)
        if namespace:
            syscalls.map_all_ids(pid)
        near.settimeout(_PATIENCE)
        near.send(b"1")
        if near.recv(1):
            return True
    except OSError:
        if not namespace:
            raise
    finally:
        near.close()
        if folder is not None:
            os.close(folder)
    return False


def _first_process(work: Callable[[], None], prepare: Callable[[], None]) -> None:
    """Become the first process of a PID namespace, with which the namespace ends. Never returns."""
    try:
        prepare()
        work()
    except BaseException as error:
        os.write(2, f"bk: command: {error!r}\n".encode())
    finally:
        os._exit(0)


def _make(root: str, far: socket.socket, prepare: Callable[[], None], *, shut: bool) -> None:
    """Make the common parts of all sandboxes of this process once: /dev and /proc, read-only, on a tmpfs on `root`.

    No command can make a user namespace, where it would have capabilities. With `shut`, a setting of the surrounding
    user namespace prevents it; otherwise a filter of system calls does, which costs each of them time.
    """
    far.recv(1)  # from here on the process has its ids
    try:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount("", "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
        syscalls.mount("bk", root, "tmpfs", syscalls.MS_NOSUID, "mode=755,size=1m")
        for folder in ("dev", "proc", _NEW):
            os.mkdir(f"{root}/{folder}")
        syscalls.mount("bk", f"{root}/dev", "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NOEXEC, "mode=755,size=1m")
        syscalls.mount("proc", f"{root}/proc", "proc", _QUIET)
    except OSError:
        os._exit(0)  # the end of `far` tells the waiting process
    for name in _DEVICES:
        os.close(os.open(f"{root}/dev/{name}", os.O_CREAT | os.O_CLOEXEC, 0o644))
        syscalls.mount(f"/dev/{name}", f"{root}/dev/{name}", flags=syscalls.MS_BIND)
    for name, target in _LINKS:
        os.symlink(f"/proc/self/fd{target}", f"{root}/dev/{name}")
    if shut:
        with open(f"{root}/proc/sys/user/max_user_namespaces", "w") as file:
            file.write("0")
    for name in _SECRETS:
        if os.path.exists(f"{root}/proc/{name}"):
            syscalls.mount("/dev/null", f"{root}/proc/{name}", flags=syscalls.MS_BIND)
    # Files of root belong to user 0, in /proc too: writing to the kernel's settings there needs no capability.
    syscalls.restrict(f"{root}/proc", syscalls.MS_RDONLY)
    syscalls.restrict(f"{root}/dev", syscalls.MS_RDONLY | syscalls.MS_NOSUID | syscalls.MS_NOEXEC)
    syscalls.give_up_privileges()
    if not shut:
        syscalls.refuse_user_namespaces()
    far.send(b"1")
    prepare()


def _serve(channel: socket.socket, death: int, root: str) -> None:
    wake = _wake_on_end()
    home = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    while True:
        ready = readable([channel.fileno(), death])
        document, descriptors = (None, []) if death in ready else receive(channel)
        if document is None:
            return
        spec = SandboxedCommand.parse(document)
        log, out = descriptors[0], None
        end: _End | None = _End(_NOT_STARTED)
        try:
            syscalls.unshare(
                syscalls.CLONE_NEWNS | syscalls.CLONE_NEWNET | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWUTS
            )
            out = _enter(root, spec)
            end = _run_quietly(spec, [death, channel.fileno()], log, wake)
        except OSError as error:
            os.write(log, f"bk: the sandbox cannot be made: {error}\n".encode())
        syscalls.enter_mounts(home)
        os.close(log)
        if end is None:
            return
        send(channel, CommandEnd(end.code, end.over), () if out is None else (out,))
        if out is not None:
            os.close(out)


def _wake_on_end() -> int:
    """Return a descriptor that becomes readable when a child ends."""
    wake, waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    return wake


def _run(spec: Command, ends: list[int], log: int, wake: int) -> _End | None:
    """Run the command. Return how it ended once all its processes are gone, or None when one of `ends` demands its end."""
    child = _started(spec, log, log)
    code = _NOT_STARTED if child is None else None
    while code is None and child is not None:
        ready = readable([*ends, wake])
        if ready != [wake]:
            break
        os.read(wake, _MANY)
        code = _reap(child)
    _end_all()
    return None if code is None else _End(code)


def _run_quietly(spec: SandboxedCommand, ends: list[int], log: int, wake: int) -> _End | None:
    """Run the command with limits of time and output. It gets a descriptor of a pipe instead of `log`."""
    deadline = time.monotonic() + spec.timeout if spec.timeout else None
    source, pipe = os.pipe2(os.O_CLOEXEC)
    copy = _Copy(source, log)
    try:
        child = _started(spec, pipe, log)
        os.close(pipe)
        end = _End(_NOT_STARTED) if child is None else None
        while end is None and child is not None:
            left = None if deadline is None else deadline - time.monotonic()
            ready = readable([*ends, wake, *copy.open], left)
            if any(one in ready for one in ends):
                break
            if not ready:
                end = _End(_KILLED, "timeout")
            if source in ready and not copy.some():
                end = _End(_KILLED, "output")
            if wake in ready:
                os.read(wake, _MANY)
                code = _reap(child)
                end = _End(code) if code is not None else end
        _end_all()
        while copy.open and copy.some():
            continue
    finally:
        os.close(source)
    if end is not None and end.code and not end.over and _is_full():
        end.over = "disk"
    return end


class _Copy:
    """Copies the output of a command from a pipe to its log, up to the limit."""

    def __init__(self, source: int, log: int) -> None:
        self.open = [source]
        self._log, self._left = log, MOST_OUTPUT

    def some(self) -> bool:
        """Copy the available output. Return whether the command may print more."""
        data = os.read(self.open[0], _MANY)
        if not data:
            self.open = []
        view = memoryview(data)[: max(0, self._left)]
        self._left -= len(data)
        while view:
            view = view[os.write(self._log, view) :]
        return self._left >= 0


def _is_full() -> bool:
    space = os.statvfs("/")
    return space.f_bavail == 0 or space.f_favail == 0


def _started(spec: Command, output: int, log: int) -> int | None:
    """Return the process of the command; None when it cannot be started, with the reason in `log`."""
    try:
        os.chdir(spec.directory)
        return _spawn(spec.arguments, spec.environment, output)
    except OSError as error:
        os.write(log, f"{spec.arguments[0]}: {error.strerror}\n".encode())
        return None


def _spawn(arguments: Sequence[str], environment: Mapping[str, str], log: int) -> int:
    """Start a program, searched for in its own PATH. Not by fork, which would copy the page tables of Python's memory."""
    name = arguments[0]
    folders = [""] if "/" in name else [f"{folder}/" for folder in environment.get("PATH", os.defpath).split(":")]
    files = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0), *((os.POSIX_SPAWN_DUP2, log, fd) for fd in (1, 2))]
    failure: OSError = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    for folder in folders:
        try:
            return os.posix_spawn(folder + name, list(arguments), environment, file_actions=files, setsigdef=_PYTHONS)
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            failure = error
    raise failure


def _reap(child: int) -> int | None:
    """Reap all ended processes. Return the exit code of `child` when it has ended, 128 + n for signal n."""
    code = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if pid == 0:
            return code
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            code = code if code >= 0 else 128 - code


def _end_all() -> None:
    """Kill every other process of the namespace, and wait until all are gone."""
    with suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    with suppress(ChildProcessError):
        while True:
            os.wait()


def _enter(root: str, sandbox: SandboxedCommand) -> int | None:
    """Enter the command's own root, on a tmpfs: binds of the declared files, a few devices, /proc, an empty /tmp.

    Return a descriptor of the folder for its outputs, if any, which stays valid whatever the command does to that path.
    """
    new = f"{root}/{_NEW}"
    syscalls.mount("bk", new, "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, f"mode=755,size={sandbox.disk}")
    for folder in ("proc", "dev", "tmp"):
        os.mkdir(f"{new}/{folder}")
    os.chmod(f"{new}/tmp", 0o1777)
    for folder in ("proc", "dev"):
        syscalls.mount(f"{root}/{folder}", f"{new}/{folder}", flags=syscalls.MS_BIND | syscalls.MS_REC)
    for source, target, writable in sandbox.binds:
        syscalls.show(source, new + target, read_only=not writable)
    for source, target in sandbox.copies:
        _copy(source, new + target)
    for folder in sandbox.folders:
        os.makedirs(new + folder, exist_ok=True)
    for target, link in sandbox.links:
        os.makedirs(os.path.dirname(new + target), exist_ok=True)
        if not os.path.lexists(new + target):
            os.symlink(link, new + target)
    syscalls.pivot_root(new)
    socket.sethostname("sandbox")
    syscalls.loopback_up()
    return os.open(sandbox.out, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if sandbox.out else None


def _copy(source: str, target: str) -> None:
    """Copy a folder of files, with their executable bits."""
    os.makedirs(target, exist_ok=True)
    with os.scandir(source) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                _copy(entry.path, f"{target}/{entry.name}")
                continue
            with open(entry.path, "rb") as file, open(f"{target}/{entry.name}", "wb") as copy:
                while data := file.read(_PIECE):
                    copy.write(data)
                os.fchmod(copy.fileno(), entry.stat().st_mode & 0o777)

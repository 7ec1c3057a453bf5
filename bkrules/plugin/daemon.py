"""Daemons inside a cell: each has a log, reports when it is ready, and is noticed when it dies."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bkrules.plugin.cell_log import note
from bkrules.system.waiting import readable

_BACKLOG = 64
"""The limit of pending connections at a socket that a daemon inherits."""
_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000


class DaemonError(Exception):
    """A daemon died, or was not ready or did not end in time, or does not exist."""


@dataclass(frozen=True)
class User:
    """The user of a daemon."""

    name: str
    uid: int
    gid: int
    home: str


@dataclass
class DaemonSpec:
    """How a daemon starts.

    Attributes:
        name: The daemon's name, which is that of its log.
        arguments: Its command line.
        environment: Variables in addition to those of the cell.
        user: Its user; the cell's root by default.
        inside: A file with the id of a process whose user and mount namespaces it enters.
        address: The path of the socket that it inherits; empty when it makes its own.
    """

    name: str
    arguments: list[str]
    environment: dict[str, str]
    user: User | None = None
    inside: Path | None = None
    address: str = ""


@dataclass
class Daemon:
    """A started daemon. `ready` is the socket for its READY=1, `began` the time of its start, on the monotonic clock.

    `signalled` is the last signal that was to end it, and its time; None when there was none. `owner` has started it.
    """

    name: str
    pid: int
    pidfd: int
    ready: socket.socket
    began: float
    spec: DaemonSpec
    owner: Daemons
    signalled: tuple[int, float] | None = None


class Daemons:
    """Starts daemons in this cell. `tools` holds the binaries, `logs` gets one file for each daemon."""

    state = Path("/var/lib/bk")
    run = Path("/run/bk")
    configuration = Path("/etc/bk")
    logs = Path("/out")

    def __init__(self, environment: Mapping[str, str], patience: float = 20) -> None:
        """Create it. `patience` is the limit in seconds for each wait for a daemon."""
        self.environment = dict(environment)
        self.patience = patience
        self.running: list[Daemon] = []
        self.stopped: dict[str, Daemon] = {}
        self.hook: Callable[..., object] = _call_nothing
        """Calls a hook of the cell with its name and arguments."""
        self.prefix = ""
        """The beginning of the names of these daemons and of their logs: that of an extra worker."""
        self.entered: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext
        """Enters the mount namespace in which these daemons start."""
        self.start_worker: Callable[[str, str, float], Any] = _no_extra_worker
        """Starts an extra worker of the cell: its label or id, the name that it gets, and the limit in seconds."""
        self.hold: Callable[[str], object] = _hold_nothing
        """Lets a user look at the cell in the middle of a test that has failed, for this reason."""

    def start(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        user: User | None = None,
        inside: Path | None = None,
        listener: socket.socket | None = None,
        timeout: float = 20,
    ) -> Daemon:
        """Start `arguments` and return once it has sent READY=1 (sd_notify). `listener` is handed over as LISTEN_FDS.

        `inside` is a file with the id of a process: the daemon enters its user and mount namespaces, and is root in the first.
        `timeout` is in seconds. Raises DaemonError when the daemon dies before or is not ready by then.
        """
        daemon = self.spawn(name, arguments, environment=environment, user=user, inside=inside, listener=listener)
        self.wait_ready(daemon, timeout)
        return daemon

    def spawn(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        user: User | None = None,
        inside: Path | None = None,
        listener: socket.socket | None = None,
    ) -> Daemon:
        """Start `arguments` without waiting; `wait_ready` does. Plugins may change how it starts: `bk_daemon_starting`."""
        address = listener.getsockname() if listener is not None else ""
        spec = DaemonSpec(self.prefix + name, list(arguments), dict(environment or {}), user, inside, address)
        return self._spawn(spec, listener)

    def _spawn(self, first: DaemonSpec, listener: socket.socket | None) -> Daemon:
        name = first.name
        spec = replace(first, arguments=list(first.arguments), environment=dict(first.environment))
        self.hook("bk_daemon_starting", spec=spec)
        ready = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        address = str(self.run / f"notify-{name}")
        ready.bind(address)
        Path(address).chmod(0o777)  # a daemon under another user writes to it
        variables = {
            **self.environment,
            "NOTIFY_SOCKET": address,
            **spec.environment,
        }
        log = os.open(self.logs / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        began = time.monotonic()
        pid = os.fork()
        if pid == 0:
            _become(spec.arguments, variables, log, spec.user, spec.inside, listener)
        os.close(log)
        daemon = Daemon(name, pid, os.pidfd_open(pid), ready, began, first, self)
        self.running.append(daemon)
        note(self.logs, f"{name} started as process {pid}: {shlex.join(spec.arguments)}")
        return daemon

    def wait_ready(self, daemon: Daemon, timeout: float = 20) -> None:
        """Wait until the daemon sends READY=1. Raises DaemonError."""
        timeout = min(timeout, self.patience)
        deadline = time.monotonic() + timeout
        watched = [daemon.ready.fileno(), *(other.pidfd for other in self.running)]
        while True:
            found = readable(watched, deadline - time.monotonic())
            if not found:
                raise DaemonError(f"{daemon.name} was not ready within {timeout:g} s")
            if daemon.ready.fileno() in found and b"READY=1" in daemon.ready.recv(4096):
                daemon.owner.hook("bk_daemon_ready", daemon=daemon)
                return
            for other in self.running:
                if other.pidfd in found:
                    raise DaemonError(f"{other.name} died before it was ready: {self.status(other)}")

    def end(self, timeout: float = 20) -> list[str]:
        """End the daemons by SIGTERM, the last one first. Return the names of those that have not ended in time."""
        return [daemon.name for daemon in reversed(self.running) if not self._end(daemon, signal.SIGTERM, timeout)]

    def _end(self, daemon: Daemon, number: int, timeout: float) -> bool:
        """Send a daemon a signal. Return whether it ends within `timeout` seconds."""
        hook = daemon.owner.hook
        hook("bk_daemon_stopping", daemon=daemon, signal=number)
        daemon.signalled = (number, time.monotonic())
        signal.pidfd_send_signal(daemon.pidfd, number)
        ended = readable([daemon.pidfd], timeout)
        hook("bk_daemon_stopped", daemon=daemon, status=self.status(daemon))
        return bool(ended)

    def stop(self, name: str, number: int = signal.SIGTERM, timeout: float = 20) -> None:
        """Send a daemon the signal `number` and wait for its end; afterwards it need not run any more.

        Raises DaemonError when no daemon of that name runs, and when it has not ended after `timeout` seconds.
        """
        name = self.prefix + name
        daemon = next((one for one in self.running if one.name == name), None)
        if daemon is None:
            state = "stopped already" if name in self.stopped else "not a daemon of this cell"
            known = ", ".join(one.name for one in self.running) or "nothing"
            raise DaemonError(f"{name!r} is {state}; running are: {known}")
        if not self._end(daemon, number, timeout):
            raise DaemonError(f"{name} did not end within {timeout:g} s of {signal.Signals(number).name}")
        self._forget(daemon)
        self.stopped[name] = daemon

    def _forget(self, daemon: Daemon) -> None:
        """Reap a daemon that ends."""
        os.waitpid(daemon.pid, 0)
        os.close(daemon.pidfd)
        daemon.ready.close()
        with daemon.owner.entered():
            (self.run / f"notify-{daemon.name}").unlink()
        self.running.remove(daemon)

    def kill(self) -> None:
        """Kill the daemons that this object has started."""
        for daemon in [one for one in self.running if one.owner is self]:
            signal.pidfd_send_signal(daemon.pidfd, signal.SIGKILL)
            self._forget(daemon)

    def restart(self, name: str, timeout: float = 20) -> None:
        """Start a stopped daemon as it was started before, and return once it is ready. Raises DaemonError."""
        name = self.prefix + name
        if name not in self.stopped:
            raise DaemonError(f"{name!r} was not stopped; stopped are: {', '.join(self.stopped) or 'nothing'}")
        spec, owner = self.stopped[name].spec, self.stopped[name].owner
        with owner.entered(), contextlib.ExitStack() as handed:
            listener = handed.enter_context(_bound_again(spec.address)) if spec.address else None
            daemon = owner._spawn(spec, listener)
        del self.stopped[name]
        owner.wait_ready(daemon, timeout)

    def dead(self) -> list[Daemon]:
        """Return the daemons that have ended."""
        found = readable([daemon.pidfd for daemon in self.running], 0)
        return [daemon for daemon in self.running if daemon.pidfd in found]

    def is_stopped(self, daemon: Daemon) -> bool:
        """Return whether a daemon was stopped by a signal (SIGSTOP), and neither runs nor has ended."""
        return Path(f"/proc/{daemon.pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"

    def status(self, daemon: Daemon) -> str:
        """Return how a dead daemon ended."""
        info = os.waitid(os.P_PID, daemon.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if info is None:
            return "it is running"
        if info.si_code == os.CLD_EXITED:
            return f"exit status {info.si_status}"
        return f"killed by {signal.Signals(info.si_status).name}"


def _call_nothing(_name: str, **_arguments: object) -> None:
    """Stand in for the hooks of a cell where there is none."""


def _hold_nothing(_reason: str) -> None:
    """Stand in where no user wants to look at a failed test."""


def _no_extra_worker(name: str, _as: str, _timeout: float) -> None:
    """Stand in for the extra workers of a cell that has none."""
    raise DaemonError(f"no extra worker is called {name!r}: this matrix has no 'extra_workers'")


def listening(path: Path, mode: int = 0o666) -> socket.socket:
    """Return a listener on a new socket file, for a daemon to inherit; by default every user may connect to it."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    path.chmod(mode)
    listener.listen(_BACKLOG)
    return listener


def _bound_again(address: str) -> socket.socket:
    """Return a new listener in the place of another one, in a file with the same mode."""
    path = Path(address)
    mode = path.stat().st_mode
    path.unlink()
    return listening(path, mode)


def _become(
    arguments: Sequence[str],
    variables: dict[str, str],
    log: int,
    user: User | None,
    inside: Path | None,
    listener: socket.socket | None,
) -> None:
    """Turn this forked process into the daemon. Never returns."""
    try:
        os.setsid()
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if listener is not None:
            if listener.fileno() == 3:
                os.set_inheritable(3, True)
            else:
                os.dup2(listener.fileno(), 3)
            variables |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
        if inside is not None:
            _enter(inside)
        if user is not None:
            os.setgroups([])
            os.setgid(user.gid)
            os.setuid(user.uid)
            variables |= {"HOME": user.home, "USER": user.name}
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.execvpe(arguments[0], list(arguments), variables)
    except BaseException as error:
        os.write(2, f"cannot start {arguments[0]}: {error}\n".encode())
    finally:
        os._exit(127)


def _enter(file: Path) -> None:
    """Enter the user and mount namespaces of the process whose id is in a file, as root of the first. Raises OSError."""
    import ctypes  # the core imports this module too, and does not need it

    pid = int(file.read_text())
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(os.pidfd_open(pid), _CLONE_NEWUSER | _CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), f"cannot enter the namespaces of process {pid}")
    os.setgroups([])
    os.setgid(0)
    os.setuid(0)

"""bk's end of the zygote: starts commands and cells, and ends them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

from bkrules.errors import ActionFailed, BkError, Interrupted, MachineLacks
from bkrules.model.resources import LIMITS, Limits
from bkrules.model.wire import Document, Wire
from bkrules.plugin.host import CONTROLLERS, probe
from bkrules.sandbox import shield
from bkrules.sandbox.command_groups import Group
from bkrules.sandbox.ipc import receive, send
from bkrules.sandbox.messages import CommandEnd, CommandSpec, Request, SandboxedCommand, SandboxesSpec
from bkrules.sandbox.started import Started

_QUEUE = 1 << 20
_FOR_TESTS = "tests"
_END_SECONDS = 15.0
"""The limit in seconds for an orderly end: a cell checks for leaks and removes its cgroups."""
_INTERRUPTED_SECONDS = 4.0
"""The same limit once the user has asked bk to stop."""
_KILLED_SECONDS = 5.0
_GRACE = 30.0
_KILLED = 137


@dataclass(frozen=True)
class CommandSandbox:
    """The sandbox of a command: a root on a tmpfs, with `binds` (source, target, writable), `copies` of folders
    (source, target) and symbolic `links` (path, target), and its limits. Its network is just a loopback.

    `root` is the folder on which roots are mounted, each in its own namespace; one for all commands of a run. `folders`
    are created in it, and the command writes its outputs to one of them, `out`.
    """

    root: str
    binds: tuple[tuple[str, str, bool], ...]
    links: tuple[tuple[str, str], ...] = ()
    limits: Limits = LIMITS
    copies: tuple[tuple[str, str], ...] = ()
    folders: tuple[str, ...] = ()
    out: str = ""


@dataclass(frozen=True)
class Ended:
    """The end of a command in a sandbox: its exit code, the limit that it met, if any, and a descriptor of `out`, if it has one.

    `unlimited` are the limits that this machine could not apply.
    """

    code: int
    over: str = ""
    out: int | None = None
    unlimited: tuple[str, ...] = ()


class Processes:
    """The zygote of one run of bk, started at its first use."""

    def __init__(self, groups: Callable[[Limits], Group | None] = lambda _: None) -> None:
        self._groups = groups
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._zygote: subprocess.Popen[bytes] | None = None
        self._started: dict[int, Started] = {}
        self._idle: dict[Limits, list[Started]] = {}
        self._interrupted = False
        self._last_resort: threading.Timer | None = None
        self.zygote_command: Sequence[str] = (sys.executable, "-I", "-S", shield.__file__)

    def begin(self) -> None:
        """Start the zygote, which imports what tests need while other work continues."""
        with self._lock:
            self._zygote_control(_FOR_TESTS)

    def run(
        self,
        arguments: Sequence[str],
        directory: str,
        environment: Mapping[str, str],
        log: str,
    ) -> int:
        """Run a command without a sandbox, with its output in the file `log`. Return its exit code, or 128 + n for a
        signal. Raises Interrupted.
        """
        with self.command(arguments, directory, environment, log) as started:
            message, _ = receive(started.channel)
        return self._ended(_end(message), arguments).exit_code

    def run_in_sandbox(
        self,
        arguments: Sequence[str],
        directory: str,
        environment: Mapping[str, str],
        log: str,
        sandbox: CommandSandbox,
    ) -> Ended:
        """Run a command to its end, with its output in the file `log`. Raises Interrupted, and ActionFailed when it was killed."""
        started = self._sandboxes(sandbox)
        message: CommandEnd | None = None
        descriptors: list[int] = []
        late = False
        try:
            spec = SandboxedCommand(
                arguments=tuple(arguments),
                directory=directory,
                environment=environment,
                timeout=sandbox.limits.timeout,
                disk=sandbox.limits.disk << 20,
                binds=sandbox.binds,
                copies=sandbox.copies,
                links=sandbox.links,
                folders=sandbox.folders,
                out=sandbox.out,
            )
            with _opened(log) as output:
                with suppress(BrokenPipeError, ConnectionResetError):  # it has ended; its messages can still be read
                    send(started.channel, spec, (output,))
                document, descriptors = started.next(sandbox.limits.timeout + _GRACE)
                message = _end(document)
        except TimeoutError:
            late = True
        finally:
            met = started.group.met() if started.group else ""
            unlimited = tuple(name for name in CONTROLLERS if not started.group or name not in started.group.limited)
            if message is None or message.reason:
                self._end(started)
            else:
                with self._lock:
                    self._idle.setdefault(sandbox.limits, []).append(started)
        if message is None and (met or late) and not self._interrupted:
            return Ended(_KILLED, met or "timeout", unlimited=unlimited)
        end = self._ended(message, arguments)
        over = end.over or (met if end.exit_code else "")
        return Ended(end.exit_code, over, descriptors[0] if descriptors else None, unlimited)

    def _ended(self, message: CommandEnd | None, arguments: Sequence[str]) -> CommandEnd:
        if message is not None and message.reason:
            raise _not_started(arguments[0], message.reason)
        if message is None and not self._interrupted:
            raise ActionFailed("killed", f"{arguments[0]} was killed from outside of bk", hint="run the build again")
        if message is None:
            raise Interrupted("interrupted", f"{arguments[0]} was ended")
        return message

    @contextmanager
    def command(
        self,
        arguments: Sequence[str],
        directory: str,
        environment: Mapping[str, str],
        log: str,
    ) -> Iterator[Started]:
        """Run a command, without a sandbox, for as long as the context lasts."""
        spec = CommandSpec(arguments=tuple(arguments), directory=directory, environment=environment)
        with _opened(log) as output:
            started = self._start(spec, (output,))
        with self._until_end(started):
            yield started

    def _sandboxes(self, sandbox: CommandSandbox) -> Started:
        """Return an idle process that runs sandboxes with these limits."""
        with self._lock:
            waiting = self._idle.get(sandbox.limits)
            if waiting and not self._interrupted:
                return waiting.pop()
        group = self._groups(sandbox.limits)
        spec = SandboxesSpec(sandbox.root, group.path if group else "", group.limited if group else {})
        try:
            started = self._start(spec, ())
        except BaseException:
            if group:
                group.remove()
            raise
        started.group = group
        return started

    @contextmanager
    def cell(self, spec: Wire) -> Iterator[Started]:
        """Run a cell for as long as the context lasts. It sends messages until it has ended."""
        with self._until_end(self._start(spec, ())) as started:
            yield started

    @property
    def interrupted(self) -> bool:
        """Whether `interrupt` was called."""
        return self._interrupted

    def fate(self) -> str:
        """Return how the zygote ended, as the end of a sentence; empty while it lives."""
        code = self._zygote.poll() if self._zygote is not None else None
        if code is None:
            return ""
        how = f"exit status {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
        return f"; the process that starts cells had ended before: {how}"

    def interrupt(self) -> None:
        """End all running processes; nothing starts any more. Processes that do not end in order soon are killed."""
        with self._lock:
            self._interrupted = True
            for started in self._started.values():
                started.kill()
        if self._last_resort is None:
            self._last_resort = threading.Timer(_INTERRUPTED_SECONDS, self._force_all)
            self._last_resort.daemon = True
            self._last_resort.start()

    def _force_all(self) -> None:
        with self._lock:
            remaining = list(self._started.values())
        for started in remaining:
            self._force(started)

    def _force(self, started: Started) -> None:
        """Kill processes that do not end, or the zygote when it has never received the request."""
        if not started.force():
            with self._lock:
                if self._zygote is not None:
                    self._zygote.kill()
                self._end_zygote()

    def close(self) -> None:
        """End the zygote and the processes that run sandboxes, and wait until they are gone."""
        for started in [started for waiting in self._idle.values() for started in waiting]:
            self._end(started)
        self._idle.clear()
        if self._last_resort is not None:
            self._last_resort.cancel()
        with self._lock:
            self._end_zygote()

    def _start(self, spec: Wire, descriptors: tuple[int, ...]) -> Started:
        near, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        far = f"socket:[{os.fstat(other.fileno()).st_ino}]"
        death, held = os.pipe2(os.O_CLOEXEC)
        spec_file = os.memfd_create("bk-spec", os.MFD_CLOEXEC)
        try:
            os.write(spec_file, json.dumps(spec.to()).encode())
            os.lseek(spec_file, 0, os.SEEK_SET)
            with self._lock:
                if self._interrupted:
                    raise Interrupted("interrupted", "nothing is started any more")
                self._ask((spec_file, other.fileno(), death, *descriptors))
                started = Started(near, held, far)
                self._started[id(started)] = started
        except BaseException:
            os.close(held)
            near.close()
            raise
        finally:
            other.close()
            os.close(death)
            os.close(spec_file)
        return started

    @contextmanager
    def _until_end(self, started: Started) -> Iterator[Started]:
        try:
            yield started
        finally:
            self._end(started)

    def _end(self, started: Started) -> None:
        """End a process, and wait until it is gone. One that does not end in order, such as a stopped one, is killed."""
        with self._lock:
            started.kill()
        if not started.is_gone(_END_SECONDS):
            self._force(started)
            started.is_gone(_KILLED_SECONDS)
        with self._lock:
            self._started.pop(id(started), None)
        started.channel.close()
        if started.group:
            started.group.remove()

    def _ask(self, descriptors: tuple[int, ...]) -> None:
        """Send a request to the zygote; to a new one when it has ended, for example killed for memory."""
        try:
            send(self._zygote_control(), Request(), descriptors)
        except (BrokenPipeError, ConnectionResetError):
            self._end_zygote()
            send(self._zygote_control(), Request(), descriptors)

    def _end_zygote(self) -> None:
        if self._control is not None and self._zygote is not None:
            self._control.close()
            try:
                self._zygote.wait(_INTERRUPTED_SECONDS if self._interrupted else _END_SECONDS)
            except subprocess.TimeoutExpired:
                self._zygote.kill()
                self._zygote.wait()
            self._control = self._zygote = None

    def _zygote_control(self, *more: str) -> socket.socket:
        if self._control is None:
            near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _QUEUE)
            arguments = [*self.zygote_command, str(far.fileno()), *more]
            environment = {"PATH": os.environ.get("PATH", ""), "LANG": "C.UTF-8"}
            with far, ExitStack() as opened:
                opened.enter_context(near)
                self._zygote = subprocess.Popen(
                    arguments,
                    pass_fds=[far.fileno()],
                    start_new_session=True,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                )
                opened.pop_all()
            self._control = near
        return self._control


def _end(document: Document | None) -> CommandEnd | None:
    """Return how a command ended; None when its process ended without a valid message."""
    if document is None:
        return None
    try:
        return CommandEnd.parse(document)
    except ValueError:
        return None


def _not_started(name: str, reason: str) -> BkError:
    """Return the error of a command that could not be started: on a machine without privileges that is no accident."""
    from bkrules.sandbox.trial import tried

    lacks = tried(probe()).lacks()
    if not lacks:
        return ActionFailed("not-started", f"{name}: {reason}", hint="run the build again")
    hint = "\n".join(dict.fromkeys(lack.remedy for lack in lacks))
    return MachineLacks("sandbox", f"{name}: {reason}; {lacks[0].what}", hint=hint)


@contextmanager
def _opened(log: str) -> Iterator[int]:
    """Open a file for appending; create it when it is missing."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        yield output
    finally:
        os.close(output)

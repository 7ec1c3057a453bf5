"""The supervisor of a cell: makes the cell, waits for its end, ends it when bk is gone, checks for leaks, cleans up.

It is in the host's namespaces, with two exceptions. Its network is the cell's: so the sockets of the mirror and the
name server, which are served from outside, are made there and stay in it. Its mounts are the zygote's, which show the
kernel's FUSE connections.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial

from bkrules.cell import confine, egress, jail, surroundings
from bkrules.cell.hooks import CellHooks
from bkrules.cell.init import build_root, first_process
from bkrules.cell.leaks import LeakCheck, abort, fuse_connections, unseen_by_others
from bkrules.cell.out_folder import OutFolder
from bkrules.cell.protocol import (
    Attempt,
    CellResult,
    CellSpec,
    Go,
    Mirror,
    Program,
    Ready,
    Root,
    Said,
    StartTest,
    TestResult,
    said_by_bk,
    said_by_cell,
)
from bkrules.model.parameters import CellLimits
from bkrules.model.status import FailureClass, Status
from bkrules.plugin.worker import MIRROR_PORT
from bkrules.sandbox import loop, syscalls
from bkrules.sandbox.cgroups import Cgroups, threads
from bkrules.sandbox.ipc import receive, send
from bkrules.system.waiting import readable

_QUESTION_LIMIT = 256
_PATIENCE_MS = 500
_PERIOD_MS = 200
_LONGEST = 4 << 20
"""The limit in bytes of a message from the cell."""


def supervise(spec: CellSpec, channel: socket.socket, death: int, hooks: CellHooks) -> None:
    """Supervise one cell, from its making to its report. Runs in a separate process, with one thread."""
    began = time.monotonic()
    groups = Cgroups(spec.cgroup, spec.limited)
    leak_check = LeakCheck(spec.cgroup, spec.root)
    is_jail = spec.isolation == jail.ISOLATION
    try:
        surroundings.reset_for_cell()
        groups.create({"memory": spec.limits.memory, "pids": spec.limits.pids})
        with suppress(OSError):  # a kernel without eBPF for cgroups, where nothing else keeps devices from root either
            confine.limit_devices(spec.cgroup)
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        disk = _disk(spec) if spec.mke2fs else None
        begin = partial(_begin, spec, (near, channel), far, death, hooks, began, disk)
        if is_jail:
            pid = begin(partial(jail.begin, spec, partial(build_root, disk=disk)))
            jail.admit(pid)
            groups.join(pid)
            names = _open_network(channel)
            send(near, Go())
        else:
            syscalls.leave_network()
            names = _open_network(channel)
            pid = begin(partial(_fork, spec), names.socket)
        far.close()
        if disk is not None and not is_jail:
            os.close(disk)  # the cell has it
        with suppress(ProcessLookupError, FileNotFoundError):  # it has ended, and its message has the reason
            leak_check.see(pid)
            groups.join(pid)
        cell = _Cell(pid, channel, near, names, groups, spec.limits, _watch(spec.cgroup), spec.out, spec.program)
        with suppress(BrokenPipeError, ConnectionResetError):  # likewise
            send(near, Go())
        result = cell.attend(death, leak_check)
        if result is None:
            return
        ended = time.monotonic()
        if cell.out is not None:
            cell.out.finish()
            leak_check.strange = cell.out.strange
        result = cell.judged(result, leak_check.leaks())
        groups.remove()
        if result.seconds:
            result = replace(result, seconds={**result.seconds, "teardown": time.monotonic() - ended})
        send(channel, result)
    except OSError as error:
        reason = f"the cell could not be made or cleaned up: {error}"
        # An ordinary cell makes its root itself, and reports itself which resource it has exhausted.
        is_full = is_jail and error.errno == errno.ENOSPC
        kind = FailureClass.RESOURCES if is_full else FailureClass.INFRASTRUCTURE
        with suppress(OSError):  # bk is gone
            send(channel, CellResult(Status.FAILED, kind, reason))
    finally:
        groups.remove()


def _disk(spec: CellSpec) -> int:
    """Return the mount of an ext4 for the cell's root. The cell itself may not open the device."""
    return loop.ext4(spec.limits.disk, spec.mke2fs, os.path.dirname(spec.root), os.path.basename(spec.cgroup))


def _open_network(channel: socket.socket) -> egress.NameServer:
    """Serve in the cell's network, in which this process is: send the mirror's socket to bk."""
    surroundings.reset_network()
    with socket.create_server(("0.0.0.0", MIRROR_PORT), backlog=256) as listener:
        send(channel, Mirror(), (listener.fileno(),))
    return egress.NameServer()


def _fork(spec: CellSpec) -> int:
    """Fork into the namespaces of an ordinary cell."""
    folder = os.open(f"{spec.cgroup}/init", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return syscalls.clone3(
            syscalls.CLONE_NEWNS | syscalls.CLONE_NEWUTS | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWPID, folder
        )
    finally:
        os.close(folder)  # in the cell too: by `..` it leads to the groups of the whole machine


def _begin(
    spec: CellSpec,
    others: tuple[socket.socket, ...],
    far: socket.socket,
    death: int,
    hooks: CellHooks,
    began: float,
    disk: int | None,
    fork: Callable[[], int],
    *more: socket.socket,
) -> int:
    """Start the cell's first process by `fork`. It inherits no socket but `far`."""
    pid = fork()
    if pid == 0:
        syscalls.die_with_parent()
        os.close(death)
        for other in (*others, *more):
            other.close()
        first_process(spec, far, hooks, began, disk)
    return pid


@dataclass
class _Cell:
    """A running cell, and what the supervisor knows of it."""

    pid: int
    channel: socket.socket
    near: socket.socket
    names: egress.NameServer
    groups: Cgroups
    limits: CellLimits
    watch: egress.Watch | None
    results: str
    program: Program
    out: OutFolder | None = None
    reported: set[Attempt] = field(default_factory=set)
    met: dict[str, int] = field(default_factory=dict)

    def attend(self, death: int, leak_check: LeakCheck) -> CellResult | None:
        """Wait until the cell has ended. Return its result, or None when bk is gone, or has ended the cell."""
        result = CellResult(Status.FAILED, FailureClass.INFRASTRUCTURE, "the cell's first process was killed")
        ended = os.pidfd_open(self.pid)
        poll = select.poll()
        for descriptor in (death, ended, self.channel, self.near, self.names.socket):
            poll.register(descriptor, select.POLLIN)
        questions = 0
        answered: CellResult | None = None
        while True:
            found = {descriptor for descriptor, _ in poll.poll(_PERIOD_MS if answered is None else _PATIENCE_MS)}
            if not found and answered is None:
                if self.out is not None:
                    self.out.sync()
                continue
            if death in found:
                leak_check.fuse = fuse_connections(self.groups.processes())
                os.kill(self.pid, signal.SIGKILL)
                self.reap(ended, leak_check)
                if self.out is not None:
                    self.out.sync()
                return None
            if not found:
                self.reap(ended, leak_check)
                return answered
            if self.names.socket.fileno() in found:
                self.names.answer(self.groups.processes() if questions < _QUESTION_LIMIT else ())
                questions += 1
            if self.channel.fileno() in found:
                self.pass_on()
            if self.near.fileno() in found:
                try:
                    message, descriptors = self.heard()
                except ValueError as error:
                    poll.unregister(self.near)
                    os.kill(self.pid, signal.SIGKILL)
                    reason = f"a test spoke in the name of its cell's first process: {error}"
                    answered = replace(result, failure=FailureClass.TEST, reason=reason)
                    continue
                if message is None:
                    poll.unregister(self.near)
                    answered = answered or result
                elif isinstance(message, Root):
                    leak_check.device = message.device
                    self.out = OutFolder(descriptors.pop(0), self.results, self.limits.disk)
                elif isinstance(message, Ready):
                    send(self.channel, replace(message, pid=self.pid))
                elif isinstance(message, TestResult):
                    if self.out is not None:
                        self.out.finish_test()
                    send(self.channel, self.judged(message, []))
                else:
                    answered = message
                    leak_check.fuse = list(message.fuse)
                for descriptor in descriptors:
                    os.close(descriptor)
            elif ended in found:
                self.reap(ended, leak_check)
                return answered or result

    def heard(self) -> tuple[Said | None, list[int]]:
        """Return the next message of the cell, or None at the end. Raises ValueError for a malformed one.

        The descriptor of /out comes before the first test can say anything.
        """
        document, descriptors = receive(self.near, _LONGEST)
        if document is None:
            return None, descriptors
        message = said_by_cell(document, self.program)
        if isinstance(message, Root) and (self.out is not None or len(descriptors) != 1):
            raise ValueError("it is about the root, which is made")
        return message, descriptors

    def pass_on(self) -> None:
        """Pass a message of bk to the cell's first process, without the place of the test's results."""
        document, descriptors = receive(self.channel)
        if document is not None:
            message = said_by_bk(document)
            if isinstance(message, StartTest):
                if self.out is not None:
                    self.out.begin(message.out)
                else:  # the cell is still being made: all its files belong to its first test
                    self.results = message.out
                message = replace(message, out="")
            with suppress(OSError):  # it has ended, which the next receive shows
                send(self.near, message, tuple(descriptors))
        for descriptor in descriptors:
            os.close(descriptor)

    def reap(self, ended: int, leak_check: LeakCheck) -> None:
        """Wait for the cell's first process, which is about to end.

        A FUSE server may die while it has a file of its own file system open. It then waits for itself, and every process
        that needs the file system waits too. So the supervisor aborts the cell's FUSE connections after a while.
        """
        if not readable([ended], _PATIENCE_MS / 1000):
            own = threads(self.groups.path)
            abort({*unseen_by_others(leak_check.fuse, own), *fuse_connections(own)})
            with suppress(ProcessLookupError):  # it may have announced its end without ending
                os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(ended)

    def judged(self, result: CellResult, leaks: list[str]) -> CellResult:
        """Return a result with the facts known from outside of the cell since the last result."""
        attempts = {*self.names.asked, *(self.watch.attempts() if self.watch else ())} - self.reported
        self.reported |= attempts
        hits = {**self.groups.hits(), "out": int(self.out is not None and self.out.is_over)}
        new = {name: count - self.met.get(name, 0) for name, count in hits.items()}
        self.met = hits
        return _verdict(replace(result, egress=tuple(sorted(attempts))), leaks, new, self.limits)


def _verdict(result: CellResult, leaks: list[str], hits: Mapping[str, int], limits: CellLimits) -> CellResult:
    """Return the result as the cell's end changes it: a leak fails it; a limit that was met is why it failed."""
    if leaks:
        reason = f"the cell leaked: {'; '.join(leaks)}"
        return replace(result, status=Status.FAILED, failure=FailureClass.LEAK, reason=reason)
    if hits.get("out"):
        reason = f"the cell wrote more to /out than bk keeps of its {limits.disk >> 20} MiB"
        return replace(result, status=Status.FAILED, failure=FailureClass.RESOURCES, reason=reason)
    if result.status == Status.PASSED:
        return result
    before = f"; {result.reason}" if result.reason else ""
    if killed := hits.get("memory"):
        reason = f"out of memory: {killed} killed at the cell's limit of {limits.memory >> 20} MiB{before}"
        return replace(result, failure=FailureClass.RESOURCES, reason=reason)
    if hits.get("pids"):
        reason = f"the cell's limit of {limits.pids} processes was met{before}"
        return replace(result, failure=FailureClass.RESOURCES, reason=reason)
    return result


def _watch(cgroup: str) -> egress.Watch | None:
    """Watch for attempts to leave. A cell on a kernel without eBPF is as isolated as any other, but attempts are not recorded."""
    try:
        return egress.Watch(cgroup)
    except OSError:
        return None

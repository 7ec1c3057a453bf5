"""The inside of a cell: its first process, its root and its test.

    bk -- zygote -- supervisor -- PID 1 of the cell -- daemons, test

When PID 1 ends, the kernel ends every process, mount and socket of the cell. So nothing in here is stopped in an orderly way.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import time
import traceback
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from bkrules.cell import confine, jail
from bkrules.cell.coverage import COVERAGE
from bkrules.cell.extra_workers import ExtraWorkers, check_rootless
from bkrules.cell.hooks import CellHooks, HookError
from bkrules.cell.leaks import fuse_connections
from bkrules.cell.out_folder import MOST_FILES
from bkrules.cell.programs import out_of
from bkrules.cell.protocol import CellResult, CellSpec, Program, Root
from bkrules.cell.shared import run_tests
from bkrules.cell.task import NOTHING, cell_result, on_terminal, program_result, running_cell
from bkrules.cell.updaters import UpdateError
from bkrules.model.status import BAD, FailureClass, Status
from bkrules.plugin.cell import ProgramResult, RunningCell
from bkrules.plugin.daemon import DaemonError, Daemons
from bkrules.plugin.worker import Backend
from bkrules.sandbox import syscalls
from bkrules.sandbox.devices import DEVICES, make_devices
from bkrules.sandbox.ipc import receive, send

NO_BACKEND = Backend("", "")
"""The backend of a cell whose test starts its daemons itself."""
FOLDERS = (
    "proc",
    "sys",
    "dev/pts",
    "dev/shm",
    "dev/net",
    "tmp",
    "run/bk/cdi",
    "var/tmp",
    "var/lib/bk",
    "root",
    "home",
    "etc/bk",
    "etc/buildkit",
)
ETC = {
    "passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "group": "root:x:0:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost cell\n",
    "resolv.conf": "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
    "nsswitch.conf": "hosts: files dns\npasswd: files\ngroup: files\n",
}


def first_process(
    spec: CellSpec, channel: socket.socket, hooks: CellHooks, began: float, disk: int | None = None
) -> None:
    """Run as PID 1 of the cell. Never returns; its end ends the cell. `began` is the start of the cell, on the monotonic clock.

    `disk` is the mount of its root, when that is no tmpfs.
    """
    life = _Life(spec, channel, hooks, began, disk)
    try:
        life.enter()
        life.live()
    except BaseException as error:
        life.fail(error)
        life.keep(None)
    try:
        if spec.traced:
            from bkrules.cell.session import end_tracers

            end_tracers()
        processes = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        age = time.monotonic() - began
        send(channel, replace(life.result, fuse=tuple(fuse_connections(processes)), began=time.time() - age))
    finally:
        os._exit(0)


class _Held(BaseException):
    """A user has looked at the cell of a failed test. It is not an Exception, so that no plugin catches it."""


@dataclass
class _Life:
    """The life of a cell: how far it has come, and its result so far."""

    spec: CellSpec
    channel: socket.socket
    hooks: CellHooks
    began: float
    disk: int | None = None
    phase: str = "set up"
    result: CellResult = NOTHING
    daemons: Daemons | None = None
    extra: ExtraWorkers | None = None

    def enter(self) -> None:
        """Enter the cell's root, and wait until the limits of the cell apply."""
        spec, channel = self.spec, self.channel
        syscalls.set_name("cell")
        if _is_closed(channel):
            os._exit(0)  # the supervisor ended before the parent's death could be noticed
        is_jail = spec.isolation == jail.ISOLATION
        if is_jail:
            receive(channel)  # from here on the process has its ids
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.environ.clear()
        os.environ.update(spec.environment)
        socket.sethostname("cell")
        syscalls.set_domain_name("(none)")
        if is_jail:
            jail.enter(spec.root)
        else:
            syscalls.mount("", "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
            build_root(spec, self.disk)
            mount_kernel(spec)
        _close_streams()
        confine.refuse_calls()
        if not is_jail:  # where they hold over its own namespaces alone
            confine.drop_capabilities()
        out = os.open("/out", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        send(channel, Root(os.stat("/").st_dev), (out,))
        os.close(out)

    def live(self) -> None:
        """Start the worker, and run the program of the cell."""
        spec, hooks = self.spec, self.hooks
        daemons = Daemons(spec.environment, spec.timeout)
        receive(self.channel)  # from here on the limits apply
        self.daemons = daemons
        made = time.monotonic()
        self.phase = "started"
        cell = running_cell(spec, daemons)
        daemons.hook = partial(hooks.call, cell=cell)
        if spec.traced:
            from bkrules.cell.session import Tracer

            daemons.hook = Tracer(daemons.hook, spec.traced, daemons.logs)
        hooks.call("bk_cell_starting", cell)
        is_bare = spec.test is not None and spec.test.program is not None and spec.test.program.is_bare
        with nullcontext(NO_BACKEND) if is_bare else hooks.worker.start(daemons) as started:
            self.phase = "torn down"
            backend = replace(started, unsupported=frozenset(spec.unsupported))
            extra = self.extra = ExtraWorkers(spec, cell, hooks.extra, ETC)
            daemons.start_worker = extra.start
            if spec.program == Program.KEPT:
                daemons.hold = partial(self._hold, backend)
            if not is_bare:
                check_rootless(hooks, backend)
                hooks.call("bk_backend_ready", cell, backend=backend)
            booted = time.monotonic()
            self.result = self._run(cell, backend, extra)
            self.keep(backend)
            seconds = {"setup": made - self.began, "boot": booted - made, "run": time.monotonic() - booted}
            self.result = replace(self.result, seconds=seconds)
            extra.stop(program_result(self.result))
            hooks.call("bk_cell_stopping", cell, result=program_result(self.result))

    def _run(self, cell: RunningCell, backend: Backend, extra: ExtraWorkers) -> CellResult:
        if self.spec.program == Program.TESTS:
            return run_tests(backend, cell, self.channel, self.hooks)
        if self.spec.program == Program.SESSION:
            from bkrules.cell.session import serve  # no other program needs it

            program = self.spec.test.program if self.spec.test else None
            if program is not None and not program.is_bare:
                extra.start_all()  # as before the program
            return serve(backend, cell.daemons, self.channel, extra.variables)
        if self.spec.program == Program.DEBUGGED:
            from bkrules.cell.session import terminal_for_test

            cell = on_terminal(cell, terminal_for_test(backend, cell.daemons, self.channel))
        try:
            return cell_result(self.hooks.run_program(cell, backend))
        except _Held:
            return self.result

    def _hold(self, backend: Backend, reason: str) -> None:
        """Serve a user in the middle of a test that has failed. Raises _Held, which ends the program."""
        signal.setitimer(signal.ITIMER_REAL, 0)  # the program's limit; the user has another
        self.result = replace(NOTHING, reason=reason)
        self.keep(backend)
        raise _Held

    def keep(self, backend: Backend | None) -> None:
        """Serve a user in the cell of a failed test, if one wants to look at it. It has happened when a later step fails."""
        daemons, self.daemons = self.daemons, None
        if self.spec.program == Program.KEPT and daemons is not None and self.result.status in BAD:
            from bkrules.cell.session import serve, show_machine

            show_machine()
            variables = self.extra.variables if self.extra else {}
            self.result = serve(backend, daemons, self.channel, variables, self.result.reason)

    def fail(self, error: BaseException) -> None:
        """Make the exception that is being handled the result of the cell."""
        detail = traceback.format_exc()
        failure = ProgramResult(Status.FAILED, FailureClass.INFRASTRUCTURE, str(error))
        if isinstance(error, HookError):
            self.result = replace(cell_result(failure, self.result), detail=detail)
        elif isinstance(error, DaemonError):
            self.result = cell_result(out_of(failure, Daemons.logs), self.result)
        elif isinstance(error, UpdateError):
            self.result = cell_result(replace(failure, failure=FailureClass.TEST), self.result)
        else:
            failure = replace(failure, reason=f"the cell could not be {self.phase}: {detail.splitlines()[-1]}")
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                failure = replace(failure, failure=FailureClass.RESOURCES)
            elif self.phase != "set up":
                failure = out_of(failure, Daemons.logs)
            self.result = replace(cell_result(failure), detail=detail)


def _close_streams() -> None:
    """Close bk's own input, output and errors, which may be files of the machine."""
    null = os.open("/dev/null", os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    os.close(null)


def _is_closed(channel: socket.socket) -> bool:
    poll = select.poll()
    poll.register(channel, 0)
    return bool(poll.poll(0))


def build_root(spec: CellSpec, disk: int | None = None) -> None:
    """Make the cell's own root, on the mount `disk` or a tmpfs: read-only binds of the declared files, and generated files."""
    root = spec.root
    if disk is None:
        syscalls.mount("bk", root, "tmpfs", 0, f"mode=755,size={spec.limits.disk}")
    else:
        syscalls.move_mount(disk, root)
        os.close(disk)
    for folder in FOLDERS:
        os.makedirs(f"{root}/{folder}", exist_ok=True)
    for folder in ("tmp", "var/tmp", "dev/shm"):
        os.chmod(f"{root}/{folder}", 0o1777)
    for name in ("bin", "sbin", "lib", "lib64"):
        os.makedirs(f"{root}/usr/{name}")
        os.symlink(f"usr/{name}", f"{root}/{name}")
    os.symlink("/run", f"{root}/var/run")
    for source, target in spec.binds:
        syscalls.bind(source, root + target, read_only=False)  # a view is always read-only
    os.mkdir(f"{root}/out")
    options = f"mode=755,size={spec.limits.disk},nr_inodes={MOST_FILES}"
    syscalls.mount("bk-out", f"{root}/out", "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, options)
    if COVERAGE in spec.environment:
        folder = root + spec.environment[COVERAGE]
        os.makedirs(folder, exist_ok=True)
        os.chmod(folder, 0o1777)  # a daemon without privileges writes to it too
    for target, link in spec.links:
        os.makedirs(os.path.dirname(root + target), exist_ok=True)
        if not os.path.lexists(root + target):
            os.symlink(link, root + target)
    for name, text in ETC.items():
        Path(f"{root}/etc/{name}").write_text(text)
    for source, target, executable in spec.copies:
        os.makedirs(os.path.dirname(root + target), exist_ok=True)
        Path(root + target).write_bytes(Path(source).read_bytes())
        if executable:
            os.chmod(root + target, 0o755)
    if os.path.exists(f"{root}/etc/bk/buildkitd.toml"):
        # buildkitd computes its defaults from this path even when --config names another.
        os.symlink("/etc/bk/buildkitd.toml", f"{root}/etc/buildkit/buildkitd.toml")
    make_devices(root, DEVICES)
    os.symlink("pts/ptmx", f"{root}/dev/ptmx")


def mount_kernel(spec: CellSpec) -> None:
    """Mount the kernel's file systems in the cell's root, and enter it."""
    root = spec.root
    syscalls.mount("devpts", f"{root}/dev/pts", "devpts", 0, "newinstance,ptmxmode=0666,mode=620")
    quiet = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
    syscalls.mount("proc", f"{root}/proc", "proc", quiet)
    syscalls.mount("sysfs", f"{root}/sys", "sysfs", quiet)
    confine.cover(root)
    # A bind of the cell's own folder, not a new mount: runc finds cgroup2 there, and no group of the host.
    syscalls.mount(spec.cgroup, f"{root}/sys/fs/cgroup", flags=syscalls.MS_BIND)
    syscalls.pivot_root(root)

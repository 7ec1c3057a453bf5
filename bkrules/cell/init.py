"""The inside of a cell: its first process, its root and its test.

    bk -- zygote -- supervisor -- PID 1 of the cell -- daemons, test

When PID 1 ends, the kernel ends every process, mount and socket of the cell. So nothing in here is stopped in an orderly way.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from bkrules.cell import confine, jail, said
from bkrules.cell.leaks import fuse_connections
from bkrules.cell.out_folder import MOST_FILES
from bkrules.cell.shared import run_tests
from bkrules.cell.stacks import write_stacks
from bkrules.cell.updaters import UpdateError, check, updated
from bkrules.model.status import FailureClass, Status
from bkrules.plugin.cell_log import note
from bkrules.plugin.daemon import DaemonError, Daemons
from bkrules.plugin.worker import Backend, Worker
from bkrules.sandbox import syscalls
from bkrules.sandbox.devices import DEVICES, make_devices
from bkrules.sandbox.ipc import receive, send
from bkrules.system import files
from bkrules.testing.control import Control, answer

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
COVERAGE = "GOCOVERDIR"
_FULL = 1 << 20
_WORDS = 1 << 20
"""Bytes of a log in which the words of the kernel are looked for."""
_LAST_WORDS = 2.0
PATIENCE = 20.0
"""The longest in seconds that a daemon may take to end or to be ready again when a test asks for it."""
Program = Callable[[Backend, Mapping[str, Any], Daemons], dict[str, Any]]


def first_process(spec: Mapping[str, Any], channel: socket.socket, worker: Worker, began: float) -> None:
    """PID 1 of the cell. Never returns; its end ends the cell. `began` is when the cell did, on the monotonic clock."""
    phase = "set up"
    result: dict[str, Any] = {}
    try:
        syscalls.set_name("cell")
        if _is_closed(channel):
            os._exit(0)  # the supervisor ended before its end could have been noticed
        is_jail = spec.get("isolation") == jail.ISOLATION
        if is_jail:
            receive(channel)  # from here on it has ids
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.environ.clear()
        os.environ.update(spec["environment"])
        socket.sethostname("cell")
        syscalls.set_domain_name("(none)")
        if is_jail:
            jail.enter(spec["root"])
        else:
            syscalls.mount("", "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
            build_root(spec)
            mount_kernel(spec)
        _close_streams()
        confine.refuse_calls()
        confine.drop_capabilities()
        out = os.open("/out", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        send(channel, {"event": "root", "device": os.stat("/").st_dev}, (out,))
        os.close(out)
        daemons = Daemons(spec["environment"], spec["timeout"])
        receive(channel)  # from here on the limits hold
        made = time.monotonic()
        phase = "started"
        with updated(spec.get("update", {}), daemons, spec["timeout"]), worker.start(daemons) as started:
            phase = "torn down"
            check(daemons)
            backend = replace(started, unsupported=frozenset(spec["unsupported"]))
            if backend.rootless != worker.rootless:  # else a test marked no_rootless would run where it must not
                raise DaemonError(f"the worker says rootless = {worker.rootless}, and its backend {backend.rootless}")
            booted = time.monotonic()
            if spec["program"] == "tests":
                result = run_tests(backend, spec, daemons, channel, worker, run_test)
            elif spec["program"] == "session":
                result = _session(backend, daemons, channel)
            else:
                result = PROGRAMS[spec["program"]](backend, spec, daemons)
            if COVERAGE in spec["environment"] and result["status"] != Status.TIMED_OUT:
                result |= _end_in_order(daemons, result)
            result["seconds"] = {"setup": made - began, "boot": booted - made, "run": time.monotonic() - booted}
    except DaemonError as error:
        result = _out_of(
            {"status": Status.FAILED, "class": FailureClass.INFRASTRUCTURE, "reason": str(error)}, Daemons.logs
        )
    except UpdateError as error:
        result = {**result, "status": Status.FAILED, "class": FailureClass.TEST, "reason": str(error)}
    except BaseException as error:
        detail = traceback.format_exc()
        reason = f"the cell could not be {phase}: {detail.splitlines()[-1]}"
        result = {"status": Status.FAILED, "class": FailureClass.INFRASTRUCTURE, "reason": reason, "detail": detail}
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            result["class"] = FailureClass.RESOURCES
        elif phase != "set up":
            result = _out_of(result, Daemons.logs)
    try:
        processes = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        age = time.monotonic() - began
        send(channel, {"event": "result", "fuse": fuse_connections(processes), "began": time.time() - age, **result})
    finally:
        os._exit(0)


def _close_streams() -> None:
    """Let go of bk's own input, output and errors, which may be files of the machine."""
    null = os.open("/dev/null", os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    os.close(null)


def _is_closed(channel: socket.socket) -> bool:
    poll = select.poll()
    poll.register(channel, 0)
    return bool(poll.poll(0))


def build_root(spec: Mapping[str, Any]) -> None:
    """Make the cell's own root, on a tmpfs: read-only binds of what was declared, and generated files."""
    root = spec["root"]
    syscalls.mount("bk", root, "tmpfs", 0, f"mode=755,size={spec['limits']['disk']}")
    for folder in FOLDERS:
        os.makedirs(f"{root}/{folder}", exist_ok=True)
    for folder in ("tmp", "var/tmp", "dev/shm"):
        os.chmod(f"{root}/{folder}", 0o1777)
    for name in ("bin", "sbin", "lib", "lib64"):
        os.makedirs(f"{root}/usr/{name}")
        os.symlink(f"usr/{name}", f"{root}/{name}")
    os.symlink("/run", f"{root}/var/run")
    for source, target in spec["binds"]:
        syscalls.bind(source, root + target, read_only=False)  # a view is read-only by itself
    os.mkdir(f"{root}/out")
    options = f"mode=755,size={spec['limits']['disk']},nr_inodes={MOST_FILES}"
    syscalls.mount("bk-out", f"{root}/out", "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, options)
    if COVERAGE in spec["environment"]:
        folder = root + spec["environment"][COVERAGE]
        os.makedirs(folder, exist_ok=True)
        os.chmod(folder, 0o1777)  # a daemon without privileges writes to it too
    for target, link in spec["links"]:
        os.makedirs(os.path.dirname(root + target), exist_ok=True)
        if not os.path.lexists(root + target):
            os.symlink(link, root + target)
    for name, text in ETC.items():
        Path(f"{root}/etc/{name}").write_text(text)
    for source, target, executable in spec["copies"]:
        os.makedirs(os.path.dirname(root + target), exist_ok=True)
        Path(root + target).write_bytes(Path(source).read_bytes())
        if executable:
            os.chmod(root + target, 0o755)
    if os.path.exists(f"{root}/etc/bk/buildkitd.toml"):
        # buildkitd computes its defaults from this path even when --config names another.
        os.symlink("/etc/bk/buildkitd.toml", f"{root}/etc/buildkit/buildkitd.toml")
    make_devices(root, DEVICES)
    os.symlink("pts/ptmx", f"{root}/dev/ptmx")


def mount_kernel(spec: Mapping[str, Any]) -> None:
    """Mount what the kernel shows of itself in the cell's root, and enter it."""
    root = spec["root"]
    syscalls.mount("devpts", f"{root}/dev/pts", "devpts", 0, "newinstance,ptmxmode=0666,mode=620")
    quiet = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
    syscalls.mount("proc", f"{root}/proc", "proc", quiet)
    syscalls.mount("sysfs", f"{root}/sys", "sysfs", quiet)
    confine.cover(root)
    # A bind of the cell's own folder, not a new mount: runc finds cgroup2 there, and nothing of the host's other groups.
    syscalls.mount(spec["cgroup"], f"{root}/sys/fs/cgroup", flags=syscalls.MS_BIND)
    syscalls.pivot_root(root)


def _attended(daemons: Daemons, timeout: float, program: Callable[[Control], int]) -> dict[str, Any]:
    """Run `program` in a child whose output is test.log, and do what it asks for. Its status, or why there is none."""
    sys.stdout.flush()
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        syscalls.set_name("test")
        near.close()
        control = Control([daemon.name for daemon in daemons.running], far)
        _run_child(daemons, lambda: program(control))
    far.close()
    ended = os.pidfd_open(pid)
    with near:
        in_time = _ends(ended, near, daemons, time.monotonic() + timeout)
    if not in_time:
        stopped = [f"{daemon.name} is stopped" for daemon in daemons.running if daemons.is_stopped(daemon)]
        reason = "; ".join([f"it took more than {timeout:g} s", *stopped])
        note(daemons.logs, reason)
        _end_in_time(daemons, pid, ended)
        return {"status": Status.TIMED_OUT, "class": FailureClass.TIMEOUT, "reason": reason}
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    dead = [f"{daemon.name} ended during the test: {daemons.status(daemon)}" for daemon in daemons.dead()]
    if dead:
        return {"status": Status.FAILED, "class": FailureClass.INFRASTRUCTURE, "reason": "; ".join(dead)}
    if code == 0:
        return {"status": Status.PASSED}
    reason = f"exit status {code}" if code > 0 else f"killed by {signal.Signals(-code).name}"
    return {"status": Status.FAILED, "class": FailureClass.TEST, "reason": reason}


def _ends(ended: int, channel: socket.socket, daemons: Daemons, deadline: float) -> bool:
    """Whether a child ends before `deadline`. Meanwhile it may ask for something on the channel."""
    watched: list[int | socket.socket] = [ended, channel]
    while found := select.select(watched, [], [], max(0, deadline - time.monotonic()))[0]:
        if ended in found:
            return True
        if not answer(channel, daemons, max(0, min(PATIENCE, deadline - time.monotonic()))):
            watched = [ended]
    return False


def _end_in_time(daemons: Daemons, pid: int, ended: int) -> None:
    """End what has taken too long: it stands still while the daemons write their stacks, and then may say where it was."""
    os.kill(pid, signal.SIGSTOP)
    write_stacks(daemons)
    for number in (signal.SIGALRM, signal.SIGCONT):
        os.kill(pid, number)
    select.select([ended], [], [], _LAST_WORDS)
    os.kill(pid, signal.SIGKILL)


def _end_in_order(daemons: Daemons, result: Mapping[str, Any]) -> dict[str, Any]:
    """End the daemons so that they write their coverage, which they do when they end; what that changes of the result."""
    late = daemons.end()
    os.chmod(os.environ[COVERAGE], 0o755)  # it stays in the user's workspace
    if not late or result["status"] != Status.PASSED:
        return {}
    reason = f"without coverage, since SIGTERM did not end {' and '.join(late)}"
    return {"status": Status.FAILED, "class": FailureClass.INFRASTRUCTURE, "reason": reason}


def _out_of(result: dict[str, Any], logs: Path) -> dict[str, Any]:
    """Return a result with what the cell ran out of as its reason, if that is why it failed."""
    if result.get("class") in (FailureClass.TEST, FailureClass.INFRASTRUCTURE) and (lack := exhausted(logs)):
        return {**result, "class": FailureClass.RESOURCES, "reason": f"{lack}; {result['reason']}"}
    return result


def exhausted(logs: Path, root: str = "/", out: str = "/out") -> str:
    """What a failed test ran out of, by the state of the disk and the words of the kernel in the logs; mostly nothing."""
    for folder, name in ((root, "the cell's disk"), (out, "the cell's folder /out")):
        space = os.statvfs(folder)
        if space.f_bavail * space.f_frsize < _FULL:
            return f"{name} of {space.f_blocks * space.f_frsize >> 20} MiB is full"
    texts = list(map(_end_of, logs.glob("*.log")))
    for number in (errno.ENOSPC, errno.ENFILE, errno.EMFILE):  # the words of ENFILE begin with those of EMFILE
        words = os.strerror(number)
        if any(words.lower() in text.lower() for text in texts):
            return words[0].lower() + words[1:]
    return ""


def _end_of(log: Path) -> str:
    """The last words of a log, or nothing when the test has put something else there: a FIFO, a link to a device, a mount."""
    try:
        with files.open_regular(log) as file:
            return os.pread(file.fileno(), _WORDS, max(0, os.fstat(file.fileno()).st_size - _WORDS)).decode(
                errors="replace"
            )
    except OSError:
        return ""


def _run_child(daemons: Daemons, program: Callable[[], int]) -> None:
    code = 70
    try:
        log = os.open(daemons.logs / "test.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - it lives as long as the process
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        code = program()
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def run_commands(backend: Backend, spec: Mapping[str, Any], daemons: Daemons) -> dict[str, Any]:
    """The program of an action that is a list of commands."""

    def program(_: Control) -> int:
        environment = {**os.environ, "BUILDKIT_HOST": backend.address, **backend.extra_env}
        for words in spec["commands"]:
            command = [*backend.buildctl, *words[1:]] if words[0] == "buildctl" else words
            code = os.spawnvpe(os.P_WAIT, command[0], command, environment)
            if code:
                return code if code > 0 else 128 - code
        return 0

    return _attended(daemons, spec["timeout"], program)


def run_test(backend: Backend, spec: Mapping[str, Any], daemons: Daemons) -> dict[str, Any]:
    """The program of a test: pytest on one test function, whose outcome it leaves in outcome.json."""
    from bkrules.cell import pytest_run

    # In memory, since the disk may be full when the test ends.
    with open(os.memfd_create("outcome"), "rb") as file:
        outcome = f"/proc/self/fd/{file.fileno()}"
        result = _attended(daemons, spec["timeout"], lambda control: pytest_run.main(backend, spec, control, outcome))
        found = said.outcome(file.read())
    if result.get("class") in (None, FailureClass.TEST) and found:
        result |= found
    elif result["status"] == Status.PASSED:
        result |= {"status": Status.FAILED, "class": FailureClass.TEST, "reason": "pytest ended without an outcome"}
    return _out_of(result, daemons.logs)


def _session(backend: Backend, daemons: Daemons, channel: socket.socket) -> dict[str, Any]:
    """The program of a cell that a user has for a while. No test runs it, so it is no part of what tests run in."""
    from bkrules.cell.session import serve

    return serve(backend, daemons, channel)


PROGRAMS: dict[str, Program] = {"commands": run_commands, "test": run_test}

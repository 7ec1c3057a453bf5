"""The inside of a cell: its janitor, its first process, its root and its test.

    bk -- zygote -- janitor (the host's namespaces) -- PID 1 of the cell -- daemons, test

The janitor holds the read end of a pipe whose write end only bk has. When bk ends, however it ends, the janitor kills PID 1;
when the janitor ends, PID 1 dies with it; when PID 1 ends, the kernel ends every process, mount and socket of the cell. All
that is left then is an empty cgroup folder, which the janitor removes.

The mirror's listening socket is made inside the cell's network namespace and its descriptor handed to bk, which accepts on it.
So every cell finds its mirror at the same address, and there is no other way out.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import select
import signal
import socket
import stat
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bkrules.execution import linux
from bkrules.plugin.daemon import DaemonError, Daemons
from bkrules.plugin.worker import MIRROR_PORT, Backend, Worker

DEVICES = {
    **{"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9)},
    **{"tty": (5, 0), "fuse": (10, 229), "net/tun": (10, 200)},
}
FOLDERS = (
    "proc",
    "sys",
    "dev/pts",
    "dev/shm",
    "dev/net",
    "tmp",
    "run/bk",
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
    "hosts": "127.0.0.1 localhost\n",
    "resolv.conf": "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
    "nsswitch.conf": "hosts: files\npasswd: files\ngroup: files\n",
}
Program = Callable[[Backend, Mapping[str, Any], Daemons], dict[str, Any]]


def send(channel: socket.socket, message: Mapping[str, Any], descriptors: tuple[int, ...] = ()) -> None:
    """Send a message, and descriptors with it."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    channel.sendmsg([json.dumps(message).encode()], rights)


def receive(channel: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """The next message and its descriptors; no message at the end."""
    data, ancillary, _, _ = channel.recvmsg(1 << 20, socket.CMSG_SPACE(16), socket.MSG_CMSG_CLOEXEC)
    descriptors: list[int] = []
    for level, kind, payload in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors += array.array("i", payload[: len(payload) // 4 * 4])
    return (json.loads(data) if data else None), descriptors


def janitor(spec: Mapping[str, Any], channel: socket.socket, death: int, worker: Worker) -> None:
    """Keep one cell: start it, end it when bk is gone, clean up after it. Runs in a process of its own."""
    cgroup = spec["cgroup"]
    os.makedirs(f"{cgroup}/init")
    folder = os.open(f"{cgroup}/init", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        namespaces = (
            linux.CLONE_NEWNS | linux.CLONE_NEWUTS | linux.CLONE_NEWIPC | linux.CLONE_NEWPID | linux.CLONE_NEWNET
        )
        pid = linux.clone3(namespaces, folder)
        if pid == 0:
            linux.die_with_parent()
            os.close(death)
            _first_process(spec, channel, worker)
        keep_until_end(pid, death)
    finally:
        remove_cgroup(cgroup)


def keep_until_end(pid: int, death: int) -> int | None:
    """Wait for a child; its wait status. When bk is gone, or wants it to end, the child is killed, and there is none."""
    ended = os.pidfd_open(pid)
    found, _, _ = select.select([death, ended], [], [])
    if ended not in found:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    os.close(ended)
    return status if ended in found else None


def remove_cgroup(path: str) -> None:
    """Kill what is left in a cgroup, and remove it with those below. Raises OSError when it stays busy for 5 s."""
    deadline = time.monotonic() + 5
    with contextlib.suppress(FileNotFoundError):
        Path(path, "cgroup.kill").write_text("1")
    while os.path.isdir(path):
        try:
            for folder, _, _ in os.walk(path, topdown=False):
                os.rmdir(folder)
        except FileNotFoundError:
            continue
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.001)


def _first_process(spec: Mapping[str, Any], channel: socket.socket, worker: Worker) -> None:
    """PID 1 of the cell. Never returns; its end ends the cell."""
    began = time.monotonic()
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.environ.clear()
        os.environ.update(spec["environment"])
        socket.sethostname("cell")
        linux.loopback_up()
        with socket.socket() as door:
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            door.bind(("0.0.0.0", MIRROR_PORT))
            door.listen(256)
            send(channel, {"event": "mirror"}, (door.fileno(),))
        build_root(spec)
        daemons = Daemons(spec["environment"])
        with worker.start(daemons) as backend:
            booted = time.monotonic()
            result = PROGRAMS[spec["program"]](backend, spec, daemons)
        result["seconds"] = {"boot": booted - began, "run": time.monotonic() - booted}
        send(channel, {"event": "result", **result})
    except DaemonError as error:
        send(channel, {"event": "result", "status": "failed", "class": "infrastructure", "reason": str(error)})
    except BaseException:
        detail = traceback.format_exc()
        reason = f"the cell could not be set up: {detail.splitlines()[-1]}"
        send(
            channel,
            {"event": "result", "status": "failed", "class": "infrastructure", "reason": reason, "detail": detail},
        )
    finally:
        os._exit(0)


def build_root(spec: Mapping[str, Any]) -> None:
    """The cell's own root, on a tmpfs: read-only binds of what was declared, and generated files; then enter it."""
    root = spec["root"]
    linux.mount("", "/", flags=linux.MS_REC | linux.MS_PRIVATE)
    linux.mount("bk", root, "tmpfs", 0, f"mode=755,size={spec['size']}")
    for folder in FOLDERS:
        os.makedirs(f"{root}/{folder}", exist_ok=True)
    for folder in ("tmp", "var/tmp", "dev/shm"):
        os.chmod(f"{root}/{folder}", 0o1777)
    for name in ("bin", "sbin", "lib", "lib64"):
        os.makedirs(f"{root}/usr/{name}")
        os.symlink(f"usr/{name}", f"{root}/{name}")
    os.symlink("/run", f"{root}/var/run")
    for source, target in spec["binds"]:
        linux.bind(source, root + target)
    linux.bind(spec["out"], f"{root}/out", read_only=False)
    for target, link in spec["links"]:
        os.makedirs(os.path.dirname(root + target), exist_ok=True)
        if not os.path.lexists(root + target):
            os.symlink(link, root + target)
    for name, text in ETC.items():
        Path(f"{root}/etc/{name}").write_text(text)
    for source, target in spec["copies"]:
        os.makedirs(os.path.dirname(root + target), exist_ok=True)
        Path(root + target).write_bytes(Path(source).read_bytes())
    if os.path.exists(f"{root}/etc/bk/buildkitd.toml"):
        # buildkitd computes its defaults from this path even when --config names another.
        os.symlink("/etc/bk/buildkitd.toml", f"{root}/etc/buildkit/buildkitd.toml")
    _devices(root)
    quiet = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
    linux.mount("proc", f"{root}/proc", "proc", quiet)
    linux.mount("sysfs", f"{root}/sys", "sysfs", quiet)
    # A bind of the cell's own folder, not a new mount: runc finds cgroup2 there, and nothing of the host's other groups.
    linux.mount(spec["cgroup"], f"{root}/sys/fs/cgroup", flags=linux.MS_BIND)
    linux.pivot_root(root)


def _devices(root: str) -> None:
    umask = os.umask(0)
    for name, (major, minor) in DEVICES.items():
        os.mknod(f"{root}/dev/{name}", 0o666 | stat.S_IFCHR, os.makedev(major, minor))
    os.umask(umask)
    linux.mount("devpts", f"{root}/dev/pts", "devpts", 0, "newinstance,ptmxmode=0666,mode=620")
    os.symlink("pts/ptmx", f"{root}/dev/ptmx")
    for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        os.symlink(f"/proc/self/fd{target}", f"{root}/dev/{name}")


def _attended(daemons: Daemons, timeout: float, program: Callable[[], int]) -> dict[str, Any]:
    """Run `program` in a child whose output is test.log, and reap whatever ends meanwhile. Its status, or why there is none."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        _run_child(daemons, program)
    ended = os.pidfd_open(pid)
    found, _, _ = select.select([ended], [], [], timeout)
    if not found:
        os.kill(pid, signal.SIGKILL)
        return {"status": "timed out", "class": "timeout", "reason": f"it took more than {timeout:g} s"}
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    dead = [f"{daemon.name} ended during the test: {daemons.status(daemon)}" for daemon in daemons.dead()]
    if code == 0:
        return {"status": "passed"}
    if dead:
        return {"status": "failed", "class": "infrastructure", "reason": "; ".join(dead)}
    return {
        "status": "failed",
        "class": "test",
        "reason": f"exit status {code}" if code > 0 else f"killed by {signal.Signals(-code).name}",
    }


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

    def program() -> int:
        environment = {**os.environ, "BUILDKIT_HOST": backend.address, **backend.extra_env}
        for command in spec["commands"]:
            code = os.spawnvpe(os.P_WAIT, command[0], command, environment)
            if code:
                return code if code > 0 else 128 - code
        return 0

    return _attended(daemons, spec["timeout"], program)


def run_test(backend: Backend, spec: Mapping[str, Any], daemons: Daemons) -> dict[str, Any]:
    """The program of a test: pytest on one test function, whose outcome it leaves in outcome.json."""
    from bkrules.testing import in_cell

    outcome = daemons.run / "outcome.json"
    result = _attended(daemons, spec["timeout"], lambda: in_cell.main(backend, spec, str(outcome)))
    if result.get("class") in (None, "test") and outcome.exists():
        result |= json.loads(outcome.read_text())
    elif result["status"] == "passed":
        result |= {"status": "failed", "class": "test", "reason": "pytest ended without an outcome"}
    return result


PROGRAMS: dict[str, Program] = {"commands": run_commands, "test": run_test}

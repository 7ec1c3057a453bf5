"""The janitor of a cell: makes it, waits for it, ends it when bk is gone, looks for what it left, cleans up.

It lives in the host's namespaces but for the network, where it is in the cell's: so the sockets that bk serves from outside, the
mirror's and the name server's, are made in there and stay with it.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from bkrules.execution import egress, linux
from bkrules.execution.audit import Belongings
from bkrules.execution.cell import first_process
from bkrules.execution.cgroups import Cgroups
from bkrules.execution.messages import receive, send
from bkrules.plugin.worker import MIRROR_PORT, Worker

_QUESTION_LIMIT = 256


def janitor(spec: Mapping[str, Any], channel: socket.socket, death: int, worker: Worker) -> None:
    """Keep one cell, from its making to its report. Runs in a process of its own, with one thread."""
    began = time.monotonic()
    groups = Cgroups(spec["cgroup"], spec["limited"])
    belongings = Belongings(spec["cgroup"], spec["root"], spec["out"])
    try:
        groups.create(spec["limits"])
        linux.leave_network()
        with socket.create_server(("0.0.0.0", MIRROR_PORT), backlog=256) as door:
            send(channel, {"event": "mirror"}, (door.fileno(),))
        names = egress.NameServer()
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        folder = os.open(f"{spec['cgroup']}/init", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        pid = linux.clone3(linux.CLONE_NEWNS | linux.CLONE_NEWUTS | linux.CLONE_NEWIPC | linux.CLONE_NEWPID, folder)
        if pid == 0:
            linux.die_with_parent()
            os.close(death)
            for other in (near, channel, names.socket):
                other.close()
            first_process(spec, far, worker, began)
        far.close()
        belongings.see(pid)
        groups.join(pid)
        watch = _watch(spec["cgroup"])
        send(near, {"event": "go"})
        result = _attend(pid, death, near, names, groups, belongings)
        if result is None:
            return
        attempts = sorted({*names.asked, *(watch.attempts() if watch else ())})
        result["egress"] = [{"who": one.who, "what": one.what} for one in attempts]
        result |= _verdict(result, belongings.leftovers(), groups.hits(), spec["limits"])
        groups.remove()
        if "seconds" in result:
            result["seconds"]["teardown"] = time.monotonic() - result.pop("ended")
        send(channel, result)
    except OSError as error:
        reason = f"the cell could not be made or cleaned up: {error}"
        with suppress(OSError):  # bk is gone
            send(channel, {"event": "result", "status": "failed", "class": "infrastructure", "reason": reason})
    finally:
        groups.remove()


def _verdict(
    result: Mapping[str, Any], leftovers: list[str], hits: Mapping[str, int], limits: Mapping[str, int]
) -> dict[str, str]:
    """What the cell's end says about its result: a leftover fails it; a limit that was met is why it failed."""
    if leftovers:
        return {"status": "failed", "class": "leak", "reason": f"the cell left behind: {'; '.join(leftovers)}"}
    if result["status"] == "passed":
        return {}
    before = f"; {result['reason']}" if result.get("reason") else ""
    if killed := hits.get("memory"):
        limit = f"the cell's limit of {limits['memory'] >> 20} MiB"
        return {"class": "resources", "reason": f"out of memory: {killed} killed at {limit}{before}"}
    if hits.get("pids"):
        return {"class": "resources", "reason": f"the cell's limit of {limits['pids']} processes was met{before}"}
    return {}


def _watch(cgroup: str) -> egress.Watch | None:
    """A cell on a kernel without eBPF is as closed as any other, but who knocks from inside is not known."""
    try:
        return egress.Watch(cgroup)
    except OSError:
        return None


def _attend(
    pid: int,
    death: int,
    near: socket.socket,
    names: egress.NameServer,
    groups: Cgroups,
    belongings: Belongings,
) -> dict[str, Any] | None:
    """Wait until the cell has ended; what it said of itself. When bk is gone, or wants it to end, there is nothing."""
    result: dict[str, Any] = {
        "event": "result",
        "status": "failed",
        "class": "infrastructure",
        "reason": "the cell's first process was killed",
    }
    ended = os.pidfd_open(pid)
    poll = select.poll()
    for descriptor in (death, ended, near.fileno(), names.socket.fileno()):
        poll.register(descriptor, select.POLLIN)
    questions = 0
    while True:
        found = {descriptor for descriptor, _ in poll.poll()}
        if death in found:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
        if names.socket.fileno() in found:
            names.answer(groups.processes() if questions < _QUESTION_LIMIT else ())
            questions += 1
        if near.fileno() in found:
            message, _ = receive(near)
            if message is None:
                poll.unregister(near)
            elif message["event"] == "root":
                belongings.device = message["device"]
            else:
                result = {**message, "ended": time.monotonic()}
                belongings.fuse = message.get("fuse", [])
        elif ended in found:
            os.waitpid(pid, 0)
            with suppress(KeyError):
                os.close(ended)
            return result

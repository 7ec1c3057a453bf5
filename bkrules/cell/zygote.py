"""The zygote: a small process with one thread, from which every other process of a build is forked.

bk itself has threads and a large heap, so forking it is slow and unsafe. The zygote imports pytest and the plugins
once, when the first cell needs them; a cell is then a fork of a few milliseconds. The zygote ends when bk does, and its
children end with it.
"""

from __future__ import annotations

import functools
import gc
import importlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from bkrules.cell import surroundings
from bkrules.cell.views import Views
from bkrules.model.wire import Wire, one_of
from bkrules.sandbox import command, syscalls
from bkrules.sandbox.ipc import receive, send
from bkrules.sandbox.messages import CommandEnd, CommandSpec, SandboxesSpec

if TYPE_CHECKING:
    from bkrules.cell.protocol import CellSpec
    from bkrules.plugin.worker import Worker

_MOST_DESCRIPTORS = 1 << 30
_REFUSED = 127
_VIEWS = Views()


def main(descriptor: int, home: int = -1, *, for_tests: bool = False) -> None:
    """Serve requests until bk closes its end; `for_tests`: cells with tests will be among them.

    `home` is a descriptor of the machine's mount namespace; -1 when this process is in it.
    """
    surroundings.reset()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # supervisors are reaped by the kernel
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # bk decides about Ctrl-C
    control = socket.socket(fileno=descriptor)
    _see_fuse()
    if for_tests:
        with suppress(Exception):  # the cell that needs the module reports its error
            _preload()
    if home >= 0:
        _keep_compiled(home)
        os.close(home)
    _settle()
    while True:
        request, descriptors = receive(control)
        if request is None:
            return
        spec_fd, channel_fd, death = descriptors[:3]
        channel = socket.socket(fileno=channel_fd)
        alone = functools.partial(_leave, {0, 1, 2, channel_fd, *descriptors[2:]})
        document: object = None
        try:
            with open(spec_fd, "rb") as file:
                document = json.load(file)
            if _is_command(document):
                spec = one_of(document, SandboxesSpec, CommandSpec)
                if isinstance(spec, SandboxesSpec):
                    command.begin_sandboxes(spec, channel, death, alone)
                elif isinstance(spec, CommandSpec):
                    command.begin(spec, channel, death, descriptors[3], alone)
            else:
                _begin_cell(document, channel, death, alone)
        except OSError as error:  # as when this machine has no free process: this one is not started, and others are
            reason = f"it could not be started: {error}"
            _say(channel, CommandEnd(_REFUSED, reason=reason) if _is_command(document) else _refused(reason))
        except ValueError as error:
            _say(channel, _refused(f"the zygote cannot read what bk asks for: {error}"))
        channel.close()
        for other in descriptors[2:]:
            os.close(other)


def _is_command(document: object) -> bool:
    """Return whether a request is of ordinary actions, which need nothing of what cells import."""
    kinds = (SandboxesSpec.TAG, CommandSpec.TAG)
    return isinstance(document, dict) and any(document.get(name) == kind for name, kind in kinds)


def _begin_cell(document: object, channel: socket.socket, death: int, alone: Callable[[], None]) -> None:
    """Fork the supervisor of a cell. Raises ValueError for a document that is no cell's."""
    from bkrules.cell.protocol import CellSpec

    spec = one_of(document, CellSpec, SandboxesSpec, CommandSpec)
    if isinstance(spec, CellSpec):
        _fork_supervisor(spec, channel, death, alone)


def _fork_supervisor(spec: CellSpec, channel: socket.socket, death: int, alone: Callable[[], None]) -> None:
    try:
        start = _cell(replace(spec, binds=tuple(_VIEWS.of(spec.binds, spec.views))))
    except OSError as error:
        _say(channel, _refused(f"the cell could not be set up: {error}"))
        return
    except (Exception, SystemExit) as error:  # of a plugin's module: its cell fails, and others continue
        _say(channel, _refused(f"the worker cannot be made: {type(error).__name__}: {error}"))
        return
    if os.fork() == 0:
        try:
            alone()
            start(channel, death)
        except BaseException as error:
            os.write(2, f"bk: supervisor: {error!r}\n".encode())
        finally:
            os._exit(0)


def _refused(reason: str) -> Wire:
    from bkrules.cell.protocol import CellResult
    from bkrules.model.status import FailureClass, Status

    return CellResult(Status.FAILED, FailureClass.INFRASTRUCTURE, reason)


def _say(channel: socket.socket, message: Wire) -> None:
    with suppress(OSError):  # bk is gone
        send(channel, message)


def _leave(keep: set[int]) -> None:
    """Detach this process. Only these descriptors stay open: another cell's pipe would keep that cell alive."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    for before, after in pairwise([*sorted(keep), _MOST_DESCRIPTORS]):
        os.closerange(before + 1, after)


def _see_fuse() -> None:
    """Mount the kernel's list of FUSE connections in the zygote's own namespace, where supervisors look up those of their cells."""
    with suppress(OSError):  # not root, or no FUSE: then there is nothing to find
        syscalls.own_mounts()
        syscalls.mount("bk", syscalls.FUSE_CONNECTIONS, "fusectl")


def _settle() -> None:
    """Keep all current objects out of garbage collection: a collection in a fork would copy their pages."""
    gc.collect()
    gc.freeze()


def _preload() -> None:
    importlib.import_module("bkrules.cell.pytest_run").preload()


def _cell(spec: CellSpec) -> Callable[[socket.socket, int], None]:
    """Import all that the cell will run, so that later cells have it already."""
    known = len(sys.modules)
    from bkrules.cell.hooks import CellHooks
    from bkrules.cell.protocol import Program
    from bkrules.cell.supervisor import supervise

    for path in spec.python_path:
        if path not in sys.path:
            sys.path.append(path)
    if spec.program in (Program.TEST, Program.TESTS, Program.KEPT, Program.DEBUGGED):
        _preload()
    for module in spec.modules:
        importlib.import_module(module)
    hooks = CellHooks(_worker(spec.worker_class, spec.settings), spec.plugins, spec.owners)
    for extra in spec.extra_workers:
        worker = _worker(extra.worker_class, extra.settings)
        hooks.extra[extra.id] = CellHooks(worker, spec.plugins, spec.owners)
    if len(sys.modules) > known:
        _settle()
    return lambda channel, death: supervise(spec, channel, death, hooks)


def _worker(place: str, settings: Mapping[str, object]) -> Worker:
    """Return the worker of a class, which is named as `module:Class`."""
    module, _, name = place.partition(":")
    worker: Worker = getattr(importlib.import_module(module), name).from_settings(settings)
    return worker


def _keep_compiled(home: int) -> None:
    """Compile the modules that were compiled at this start, so that the next start finds them.

    This process may not write to their folders. So a fork of it returns to the mount namespace outside, the descriptor
    `home`.
    """
    missing = [
        str(module.__file__)
        for module in list(sys.modules.values())
        if getattr(module, "__cached__", None) and not os.path.exists(str(module.__cached__))
    ]
    if missing and os.fork() == 0:
        try:
            import py_compile

            os.setsid()
            syscalls.enter_mounts(home)
            for path in missing:
                with suppress(py_compile.PyCompileError, OSError):
                    py_compile.compile(path, doraise=True)
        finally:
            os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), for_tests=len(sys.argv) > 3)

"""The functions with which axis values edit the daemons' configuration, inside a cell.

    def offline(configuration):                            # the files by name, each a TOML document
        configuration["buildkitd.toml"]["dns"] = {...}     # before the daemons start
        yield                                              # a generator continues after the test
        ...                                                # the release step

They run in a separate process, so that their imports and faults stay there.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import signal
import sys
import tomllib
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from bkrules.cell.task import task_of
from bkrules.plugin.cell import RunningCell
from bkrules.plugin.daemon import Daemons, DaemonSpec
from bkrules.plugin.guard import time_limit
from bkrules.plugin.spec import hookimpl
from bkrules.sandbox import syscalls
from bkrules.system.waiting import readable

ROOT = "/updaters"
LOG = "updater.log"
_READY = b"1"
_SPARE = 1.0


class UpdateError(Exception):
    """A function raised, or took too long. Its output is in updater.log."""


@dataclass
class _Functions:
    """The process in which the functions of a cell run, and the channel that asks it to release."""

    names: str
    ended: int
    release: int


class Updaters:
    """The updates of one cell, as hooks."""

    def __init__(self) -> None:
        self._running: list[_Functions] = []

    @hookimpl(trylast=True)
    def bk_cell_starting(self, cell: RunningCell) -> None:
        """Let the functions edit the daemons' configuration, within the cell's timeout. Raises UpdateError."""
        functions = task_of(cell).update.functions
        if functions:
            with time_limit(cell.timeout + _SPARE):
                self._running.append(_started(functions, cell))

    @hookimpl(tryfirst=True)
    def bk_daemon_starting(self, cell: RunningCell, spec: DaemonSpec) -> None:
        """Add the flags and variables that axis values set for a daemon."""
        spec.arguments += task_of(cell).update.flags.get(spec.name, ())
        spec.environment |= task_of(cell).update.environment.get(spec.name, {})

    @hookimpl(tryfirst=True)
    def bk_backend_ready(self, cell: RunningCell) -> None:
        """Raise UpdateError when flags or variables were for a daemon that the worker has not started."""
        started = sorted({daemon.name for daemon in cell.daemons.running})
        for name in sorted({*task_of(cell).update.flags, *task_of(cell).update.environment}):
            if name not in started:
                raise UpdateError(
                    f"an axis value is for the daemon {name!r}, but this worker has: {', '.join(started)}"
                )

    @hookimpl(trylast=True)
    def bk_cell_stopping(self, cell: RunningCell) -> None:
        """Let the functions release, within the cell's timeout. Raises UpdateError."""
        while self._running:
            functions = self._running.pop()
            try:
                with time_limit(cell.timeout + _SPARE):
                    _release(functions, cell.timeout)
            finally:
                with suppress(ProcessLookupError):  # it has ended, as it should
                    signal.pidfd_send_signal(functions.ended, signal.SIGKILL)


def _started(functions: Sequence[str], cell: RunningCell) -> _Functions:
    ready, told = os.pipe()
    release, keep = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(ready)
        os.close(keep)
        _in_child(functions, cell.daemons, told, release)
    os.close(told)
    os.close(release)
    names = ", ".join(functions)
    if not readable([ready], cell.timeout):
        raise UpdateError(f"{names} took more than {cell.timeout:g} s")
    if os.read(ready, 1) != _READY:
        raise UpdateError(f"{names} failed before the daemons were started; {LOG} has its traceback")
    return _Functions(names, os.pidfd_open(pid), keep)


def _release(functions: _Functions, timeout: float) -> None:
    os.close(functions.release)
    if not readable([functions.ended], timeout):
        raise UpdateError(f"the release of {functions.names} took more than {timeout:g} s")
    info = os.waitid(os.P_PIDFD, functions.ended, os.WEXITED)
    if info is None or info.si_status:
        raise UpdateError(f"the release of {functions.names} failed; {LOG} has its traceback")


def _in_child(functions: Sequence[str], daemons: Daemons, told: int, release: int) -> None:
    """Call the functions, report that they are ready, wait, and let them release in reverse. Never returns."""
    code = 1
    try:
        syscalls.set_name("updater")
        log = os.open(daemons.logs / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - it lives as long as the process
        documents = {path.name: tomllib.loads(path.read_text()) for path in daemons.configuration.glob("*.toml")}
        generators = []
        for function in functions:
            called = _load(function)(documents)
            if inspect.isgenerator(called):
                next(called)
                generators.append(called)
        for name, document in documents.items():
            (daemons.configuration / name).write_text(tomli_w.dumps(document))
        os.write(told, _READY)
        os.read(release, 1)
        for generator in reversed(generators):
            for _ in generator:
                raise RuntimeError(f"{generator.__name__} yields more than once")
        code = 0
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(code)


def _load(function: str) -> Any:
    """Return the function of `path::name`."""
    path, _, name = function.partition("::")
    folder = str(Path(ROOT, path).parent)
    sys.path[:0] = [folder, ROOT]
    sys.dont_write_bytecode = True
    spec = importlib.util.spec_from_file_location(Path(path).stem, f"{ROOT}/{path}")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)

"""The functions with which axis values edit the daemons' configuration, inside a cell.

    def offline(configuration):                            # the files by name, each a TOML document
        configuration["buildkitd.toml"]["dns"] = {...}     # before the daemons start
        yield                                              # a generator goes on after the test
        ...                                                # the release step

They run in a process of their own, so that what they import or break stays there.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import select
import signal
import sys
import tomllib
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import tomli_w

from bkrules.plugin.daemon import Daemons
from bkrules.sandbox import syscalls

ROOT = "/updaters"
LOG = "updater.log"
_READY = b"1"


class UpdateError(Exception):
    """A function raised, or took too long. What it printed is in updater.log."""


@contextmanager
def updated(update: Mapping[str, Any], daemons: Daemons, timeout: float) -> Iterator[None]:
    """Edit what the daemons of this cell will be started with; leaving the context releases. Raises UpdateError.

    `timeout` is in seconds, for the edit and for the release.
    """
    daemons.extra_flags = update.get("flags", {})
    daemons.extra_environment = update.get("environment", {})
    functions = update.get("functions", [])
    if not functions:
        yield
        return
    ready, told = os.pipe()
    release, keep = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(ready)
        os.close(keep)
        _in_child(functions, daemons, told, release)
    os.close(told)
    os.close(release)
    ended = os.pidfd_open(pid)
    names = ", ".join(functions)
    try:
        found, _, _ = select.select([ready], [], [], timeout)
        if not found:
            raise UpdateError(f"{names} took more than {timeout:g} s")
        if os.read(ready, 1) != _READY:
            raise UpdateError(f"{names} failed before the daemons were started; {LOG} has its traceback")
        yield
        os.close(keep)
        found, _, _ = select.select([ended], [], [], timeout)
        if not found:
            raise UpdateError(f"the release of {names} took more than {timeout:g} s")
        _, status = os.waitpid(pid, 0)
        if status:
            raise UpdateError(f"the release of {names} failed; {LOG} has its traceback")
    finally:
        with suppress(ProcessLookupError):  # it has ended, as it should
            signal.pidfd_send_signal(ended, signal.SIGKILL)


def check(daemons: Daemons) -> None:
    """Raise UpdateError when flags or variables were for a daemon that the worker has not started."""
    started = sorted({daemon.name for daemon in daemons.running})
    for name in sorted({*daemons.extra_flags, *daemons.extra_environment}):
        if name not in started:
            raise UpdateError(f"an axis value is for the daemon {name!r}, but this worker has: {', '.join(started)}")


def _in_child(functions: list[str], daemons: Daemons, told: int, release: int) -> None:
    """Call the functions, say that they are ready, wait, and let them release in reverse. Never returns."""
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
    """The function of `path::name`."""
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

"""Extra workers of a cell: daemons of other workers next to the first, which a test starts.

The code of a worker has fixed paths for its state, its sockets and its configuration, and so have its daemons. So each
extra worker starts in a separate mount namespace, in which these paths are its own folders; all others find them below
STATE and RUN. Its daemons are children of the cell's first process as those of the first worker are, so they are
stopped, watched and ended in the same way. The network, the processes and /tmp are those of the cell.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from bkrules.cell.hooks import CellHooks
from bkrules.cell.protocol import CellSpec, ExtraSpec
from bkrules.cell.task import Task
from bkrules.plugin.cell import ProgramResult, RunningCell
from bkrules.plugin.cell_log import note
from bkrules.plugin.daemon import DaemonError, Daemons
from bkrules.plugin.worker import Backend
from bkrules.sandbox import syscalls
from bkrules.testing.control import StartedWorker

STATE, RUN = Path("/var/lib/workers"), Path("/run/workers")
"""The folders with the state and the sockets of each extra worker, by its name, as all other processes see them."""
TOOLS = "/opt/bk/bin"
_NAME = re.compile(r"[\w.+@-]{1,60}")
_INSIDE = re.compile(r"(unix://)?(/run|/var/lib/bk|/etc|/home)(?=/|$)")
_OTHERS = ("/run/", "/var/lib/bk/", "/home/", "/tmp/", "/var/tmp/")
"""The folders below which mounts of the first worker are, which another worker must not hold."""
_NOT_COPIED = ("alternatives", "bk", "buildkit", "docker", "subgid", "subuid")
"""The files of /etc that belong to the first worker, or to a user's session."""


@dataclass
class _Running:
    """A running extra worker: its hooks, its cell as hooks see it, and what ends it."""

    hooks: CellHooks
    cell: RunningCell
    stack: ExitStack
    started: StartedWorker


@dataclass
class ExtraWorkers:
    """The extra workers of a cell. `etc` are the files of /etc that every cell begins with, by their names."""

    spec: CellSpec
    cell: RunningCell
    hooks: Mapping[str, CellHooks]
    etc: Mapping[str, str]
    running: dict[str, _Running] = field(default_factory=dict)
    _taken: set[str] = field(default_factory=set)

    def start(self, worker: str, name: str, timeout: float) -> StartedWorker:
        """Start the worker with this label or id, and wait until it is ready. Return how others reach it.

        `name` is its id by default. Raises DaemonError.
        """
        extra = self._find(worker)
        name = name or extra.id
        if not _NAME.fullmatch(name):
            raise DaemonError(f"{name!r} cannot be the name of a worker: use at most 60 letters, digits and . + @ _ -")
        if name in self._taken:
            raise DaemonError(f"a worker called {name!r} was started already: give this one another name")
        self._taken.add(name)
        note(self.cell.daemons.logs, f"the extra worker {extra.label} starts as {name}")
        place = _Place(name, extra, self.etc)
        daemons = self._daemons(name, place, timeout)
        cell = replace(self.cell, worker=extra.id, daemons=daemons, parameters=Task())
        hooks = self.hooks[extra.id]
        daemons.hook = partial(hooks.call, cell=cell)
        if self.spec.traced:
            from bkrules.cell.session import Tracer  # no other cell needs it

            daemons.hook = Tracer(daemons.hook, self.spec.traced, daemons.logs)
        try:
            place.make()
            with place.entered(), ExitStack() as stack:
                backend = self._boot(extra, hooks, cell, stack)
                started = _started(name, extra, daemons, place.outside(backend))
                self.running[name] = _Running(hooks, cell, stack.pop_all(), started)
        except Exception as error:
            daemons.kill()
            if isinstance(error, DaemonError):
                raise
            raise DaemonError(f"{name} was not started: {error}") from error
        return started

    def start_all(self) -> None:
        """Start each worker under its id. Raises DaemonError."""
        for extra in self.spec.extra_workers:
            self.start(extra.id, "", self.spec.timeout)

    @property
    def variables(self) -> dict[str, str]:
        """The variables by which programs find the workers that run."""
        return {name: text for running in self.running.values() for name, text in running.started.variables.items()}

    def _find(self, worker: str) -> ExtraSpec:
        for extra in self.spec.extra_workers:
            if worker in (extra.label, extra.id):
                return extra
        known = ", ".join(f"{extra.id} ({extra.label})" for extra in self.spec.extra_workers)
        raise DaemonError(
            f"no extra worker is called {worker!r}; 'extra_workers' of this matrix has: {known or 'none'}"
        )

    def _daemons(self, name: str, place: _Place, timeout: float) -> Daemons:
        """Return what starts the daemons of a worker. They are among the daemons of the cell."""
        first = self.cell.daemons
        daemons = Daemons(first.environment, timeout)
        daemons.running, daemons.stopped = first.running, first.stopped
        daemons.prefix = f"{name}."
        daemons.entered = place.entered
        return daemons

    def _boot(self, extra: ExtraSpec, hooks: CellHooks, cell: RunningCell, stack: ExitStack) -> Backend:
        hooks.call_worker("bk_cell_starting", cell)
        backend = replace(
            stack.enter_context(hooks.worker.start(cell.daemons)), unsupported=frozenset(extra.unsupported)
        )
        check_rootless(hooks, backend)
        hooks.call_worker("bk_backend_ready", cell, backend=backend)
        return backend

    def stop(self, result: ProgramResult) -> None:
        """End the workers, the last one first, as the cell ends: `result` is that of its program. Raises HookError."""
        for running in reversed(self.running.values()):
            with running.cell.daemons.entered(), running.stack:
                running.hooks.call_worker("bk_cell_stopping", running.cell, result=result)
        self.running.clear()


def _started(name: str, extra: ExtraSpec, daemons: Daemons, backend: Backend) -> StartedWorker:
    """Return a worker as others reach it, by a backend with the paths that they see."""
    return StartedWorker(
        name=name,
        worker=extra.id,
        tools=f"{extra.folder}/bin",
        state=str(STATE / name / "lib"),
        daemons=tuple(one.name.removeprefix(daemons.prefix) for one in daemons.running if one.owner is daemons),
        backend={**dataclasses.asdict(backend), "unsupported": sorted(extra.unsupported)},
    )


def check_rootless(hooks: CellHooks, backend: Backend) -> None:
    """Raise DaemonError when a backend is rootless and its worker is not, or the reverse.

    Otherwise a test marked no_rootless would run where it must not.
    """
    if backend.rootless != hooks.worker.rootless:
        raise DaemonError(f"the worker says rootless = {hooks.worker.rootless}, and its backend {backend.rootless}")


class _Place:
    """The folders of an extra worker, and the mount namespace in which they are at the paths of a first worker."""

    def __init__(self, name: str, extra: ExtraSpec, etc: Mapping[str, str]) -> None:
        self._extra, self._etc = extra, etc
        state = STATE / name
        self._own = {"/var/lib/bk": state / "lib", "/etc": state / "etc", "/home": state / "home", "/run": RUN / name}
        self._namespace = -1

    def make(self) -> None:
        """Make the folders and the namespace. Raises OSError."""
        for path in self._own.values():
            path.mkdir(parents=True)
        (self._own["/run"] / "bk/cdi").mkdir(parents=True)
        self._fill_etc(self._own["/etc"])
        home = _namespace()
        try:
            syscalls.unshare(syscalls.CLONE_NEWNS)
            try:
                for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
                    if (point := line.split()[4]).startswith(_OTHERS):
                        syscalls.unmount(point)
                for target, path in self._own.items():  # /run is the last, since the folders below it disappear
                    syscalls.mount(str(path), target, flags=syscalls.MS_BIND)
                syscalls.mount(f"{self._extra.folder}/bin", TOOLS, flags=syscalls.MS_BIND)
                self._namespace = _namespace()
            finally:
                syscalls.enter_mounts(home)
        finally:
            os.close(home)

    def _fill_etc(self, folder: Path) -> None:
        shutil.copytree(
            "/etc", folder, symlinks=True, ignore=shutil.ignore_patterns(*_NOT_COPIED, *self._etc), dirs_exist_ok=True
        )
        for name, text in self._etc.items():
            (folder / name).write_text(text)
        configuration = Path(self._extra.folder, "config")
        if configuration.is_dir():
            shutil.copytree(configuration, folder / "bk")
        (folder / "bk").mkdir(exist_ok=True)
        (folder / "buildkit").mkdir()
        if (folder / "bk/buildkitd.toml").exists():
            (folder / "buildkit/buildkitd.toml").symlink_to("/etc/bk/buildkitd.toml")

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Move this process, which has one thread, to the namespace, and back. A process that is in it stays there."""
        home = _namespace()
        try:
            syscalls.enter_mounts(self._namespace)
            try:
                yield
            finally:
                syscalls.enter_mounts(home)
        finally:
            os.close(home)

    def outside(self, backend: Backend) -> Backend:
        """Return a backend with the paths by which other processes reach it."""
        texts = {name: self._path(value) for name, value in vars(backend).items() if isinstance(value, str)}
        tls = {name: self._path(value) for name, value in vars(backend.tls).items()}
        variables = {name: self._path(value) for name, value in backend.extra_env.items()}
        return replace(backend, **texts, extra_env=variables, tls=replace(backend.tls, **tls))  # type: ignore[arg-type]

    def _path(self, text: str) -> str:
        return (
            _INSIDE.sub(lambda found: f"{found[1] or ''}{self._own[found[2]]}", text, count=1)
            if _INSIDE.match(text)
            else text
        )


def _namespace() -> int:
    """Return a descriptor of the mount namespace of this process."""
    return os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)

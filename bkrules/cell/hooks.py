"""The hooks of a cell, called in its first process: implementations of bk, of the installed plugins, and of the worker."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import pluggy

from bkrules.cell import coverage, diary, kept_configuration, stacks, state
from bkrules.cell.programs import Programs
from bkrules.cell.updaters import UpdateError, Updaters
from bkrules.plugin import spec
from bkrules.plugin.cell import ProgramResult, RunningCell
from bkrules.plugin.daemon import DaemonError, DaemonSpec
from bkrules.plugin.guard import Hung, is_of_pluggy, owner_of, text_of, time_limit
from bkrules.plugin.worker import Backend, Worker

SECONDS = 10.0
"""The limit in seconds for one hook with all its implementations."""
GRACE = 20.0
"""The seconds that `bk_run_program` may take in addition to the cell's timeout."""
BUILT_IN = (coverage, diary, kept_configuration, stacks, state)
"""bk's own implementations. pluggy calls the last of them first."""


class HookError(Exception):
    """A plugin's hook raised, took too long, or returned a wrong type."""


class CellHooks:
    """The hooks of one cell with one worker. `owners` are the distributions of plugins by the names of their modules."""

    def __init__(
        self, worker: Worker, plugins: Sequence[str] = (), owners: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """Import `plugins`, the modules that act in every cell."""
        self.worker = worker
        self.extra: dict[str, CellHooks] = {}
        """The hooks of each extra worker of the cell, by its id."""
        self._owners = {name.partition(".")[0]: title for name, title in owners.items()}
        self._manager = pluggy.PluginManager(spec.GROUP)
        self._manager.add_hookspecs(spec)
        for plugin in (*BUILT_IN, Programs(self.call), Updaters(), *map(importlib.import_module, plugins), worker):
            self._manager.register(plugin)

    def call(self, name: str, cell: RunningCell, **arguments: object) -> Any:
        """Call a hook. Raises HookError that names the plugin; DaemonError and UpdateError pass unchanged."""
        return self._call(getattr(self._manager.hook, name), name, cell, arguments)

    def call_worker(self, name: str, cell: RunningCell, **arguments: object) -> Any:
        """Call the worker's own implementation of a hook, if it has one, as `call` does: plugins hear of a cell once."""
        others = [plugin for plugin in self._manager.get_plugins() if plugin is not self.worker]
        return self._call(self._manager.subset_hook_caller(name, others), name, cell, arguments)

    def _call(self, hook: Any, name: str, cell: RunningCell, arguments: Mapping[str, object]) -> Any:
        seconds = cell.timeout + GRACE if name == "bk_run_program" else SECONDS
        try:
            with time_limit(seconds):
                answer = hook(cell=cell, **arguments)
        except (DaemonError, UpdateError, HookError):
            raise
        except (Exception, SystemExit, Hung) as error:
            raise self._broken(name, error) from error
        if isinstance(daemon := arguments.get("spec"), DaemonSpec):
            self._check(daemon)
        return answer

    def _check(self, spec: DaemonSpec) -> None:
        """Raise HookError when plugins put anything but strings into the spec of a daemon."""
        for word in (*spec.arguments, *spec.environment, *spec.environment.values()):
            if not isinstance(word, str):
                what = f"gave {spec.name} {word!r}, which is no string"
                raise HookError(f"{self._plugins('bk_daemon_starting')} {what}")

    def run_program(self, cell: RunningCell, backend: Backend) -> ProgramResult:
        """Run the program of a cell, and collect its logs. Raises HookError, DaemonError and UpdateError."""
        result = self.call("bk_run_program", cell, backend=backend)
        if not isinstance(result, ProgramResult):
            raise HookError(f"{self._plugins('bk_run_program')} returned {result!r}, which is no ProgramResult")
        for daemon in cell.daemons.dead():
            self.call("bk_daemon_stopped", cell, daemon=daemon, status=cell.daemons.status(daemon))
        self.call("bk_collect_logs", cell, folder=cell.daemons.logs, result=result)
        return result

    def state(self, cell: RunningCell, backend: Backend) -> dict[str, list[str]]:
        """Return a shared worker's state as all plugins see it. Raises HookError."""
        joined: dict[str, list[str]] = {}
        for lines in self.call("bk_state", cell, backend=backend):
            if not isinstance(lines, Mapping) or not all(map(_is_state, lines.items())):
                raise HookError(f"{self._plugins('bk_state')} returned {lines!r}, which is no lines by name")
            if twice := sorted(joined.keys() & lines.keys()):
                raise HookError(f"{self._plugins('bk_state')} returned {twice[0]!r} twice")
            joined |= lines
        return joined

    def _plugins(self, hook: str) -> str:
        """Return the distributions that implement a hook, without bk's own."""
        modules = [_module_of(one.plugin) for one in getattr(self._manager.hook, hook).get_hookimpls()]
        titles = [title for module in modules if (title := self._owners.get(module.partition(".")[0]))]
        return f"{hook} of {' or '.join(f'the plugin {title}' for title in sorted(set(titles))) or 'bk'}"

    def _broken(self, hook: str, error: BaseException) -> HookError:
        owner = owner_of(error, self._owners)
        whose = f"{hook} of the plugin {owner[1]}" if owner else f"{hook} of bk"
        if owner is None and is_of_pluggy(error):
            whose = self._plugins(hook)
        return HookError(f"{whose} failed: {text_of(error, named=not isinstance(error, Hung))}")


def _is_state(item: tuple[object, object]) -> bool:
    name, lines = item
    return isinstance(name, str) and isinstance(lines, list) and all(isinstance(line, str) for line in lines)


def _module_of(plugin: object) -> str:
    return getattr(plugin, "__name__", "") or type(plugin).__module__

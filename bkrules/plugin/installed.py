"""The installed plugins, and what they have registered."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from typing import Any, TypeVar

from bkrules.errors import BkError
from bkrules.plugin import spec
from bkrules.plugin.calls import Hooks
from bkrules.plugin.registered import AxisKey, Command, PluginRule, Reporter
from bkrules.plugin.worker import Worker

Registered = PluginRule | AxisKey | Command | Reporter
BLOCKED = "blocked-plugin"
"""The reason of the error of a plugin that the command line or the workspace leaves out."""
_Kind = TypeVar("_Kind", PluginRule, AxisKey, Command, Reporter)


@dataclass(frozen=True)
class Plugin:
    """An entry point in the group `bk`.

    `hooks` are implemented by its module, `worker_hooks` by its workers. `error` is why its workers are unusable, or
    None.
    """

    distribution: str
    version: str
    entry_point: EntryPoint
    requires: tuple[str, ...] = ()
    origin: str = ""
    hooks: tuple[str, ...] = ()
    worker_hooks: tuple[str, ...] = ()
    registered: tuple[Registered, ...] = ()
    workers: tuple[type[Worker], ...] = ()
    error: BkError | None = None

    @property
    def title(self) -> str:
        """The distribution and its version."""
        return f"{self.distribution} {self.version}".strip()

    @property
    def module(self) -> str:
        """The module of its entry point; empty when that names anything else."""
        found = re.fullmatch(r"([\w.]+)\s*(\[.*\])?", self.entry_point.value)
        return found[1] if found else ""

    @property
    def names(self) -> tuple[str, str]:
        """The names by which `--noplugin` blocks it."""
        return (self.distribution, self.entry_point.name)

    def failed(self, error: BkError) -> Plugin:
        """Return this plugin without workers, because of an error."""
        return dataclasses.replace(self, workers=(), registered=(), error=error)


@dataclass(frozen=True)
class Plugins:
    """The usable workers by name, and the distribution of each; `before` are those of all workers ever seen here.

    `conflicts` are the errors of the worker names that two plugins have.
    """

    workers: dict[str, type[Worker]]
    distributions: dict[str, str]
    before: Mapping[str, str] = field(default_factory=dict)
    installed: tuple[Plugin, ...] = ()
    conflicts: Mapping[str, BkError] = field(default_factory=dict)
    hooks: Hooks = field(default_factory=Hooks, compare=False, repr=False)

    @property
    def broken(self) -> tuple[Plugin, ...]:
        """The installed plugins that have an error, blocked ones included."""
        return tuple(plugin for plugin in self.installed if plugin.error is not None)

    @property
    def in_cells(self) -> dict[str, str]:
        """The modules of the plugins that act in every cell, and their distributions."""
        usable = (plugin for plugin in self.installed if plugin.error is None)
        return {plugin.module: plugin.distribution for plugin in usable if not spec.CELL_HOOKS.isdisjoint(plugin.hooks)}

    @property
    def owners(self) -> dict[str, str]:
        """The modules of the plugins, as far as their entry points name one, and the title of each."""
        return {plugin.module: plugin.title for plugin in self.installed if plugin.module}

    def registered(self, kind: type[_Kind]) -> dict[str, tuple[_Kind, Plugin]]:
        """Return what usable plugins have registered of a kind, by name. Raises BkError for a name that two of them have."""
        found: dict[str, tuple[_Kind, Plugin]] = {}
        for plugin in self.installed:
            for one in plugin.registered:
                if isinstance(one, kind):
                    name = name_of(one)
                    if name in found:
                        titles = f"{found[name][1].title} and {plugin.title}"
                        message = f"two plugins have a {kind.__name__} {name!r}: {titles}"
                        hint = "remove one of them, or leave it out with --noplugin=NAME"
                        raise BkError("duplicate-name", message, hint=hint)
                    found[name] = (one, plugin)
        return found

    @functools.cached_property
    def runners(self) -> dict[str, tuple[Callable[[Any], None], Plugin]]:
        """The runners of plugins by the mnemonics of their actions. Raises BkError for a mnemonic that two of them have."""
        found: dict[str, tuple[Callable[[Any], None], Plugin]] = {}
        for rule, plugin in self.registered(PluginRule).values():
            for mnemonic, runner in rule.runners.items():
                if found.get(mnemonic, (runner, plugin)) != (runner, plugin):
                    message = f"two runners of {mnemonic!r}: of {found[mnemonic][1].title} and {plugin.title}"
                    raise BkError(
                        "duplicate-name", message, hint=f"leave one out with --noplugin={plugin.distribution}"
                    )
                found[mnemonic] = (runner, plugin)
        return found

    def rules_of(self, module: str) -> dict[str, Any] | None:
        """Return the rules of a plugin's module by name; None when it is no plugin's. Raises BkError for a broken plugin."""
        for plugin in self.installed:
            if plugin.module == module:
                if plugin.error is not None:
                    raise plugin.error
                return {one.name: one.rule for one in plugin.registered if isinstance(one, PluginRule)}
        return None

    def usable(self) -> list[str]:
        """Return the names of the installed workers. Raises BkError for a plugin that is broken, so none is silently left out."""
        for fault in [*(one.error for one in self.broken), *self.conflicts.values()]:
            if fault is not None and fault.reason != BLOCKED:
                raise fault
        return list(self.workers)

    def fault_of(self, worker: str) -> BkError | None:
        """Return why an installed worker is unusable; None when no plugin here is known to have one of that name.

        The workers of a plugin that cannot be loaded are known by its entry point's name, and by its earlier workers.
        """
        if worker in self.conflicts:
            return self.conflicts[worker]
        origin = self.before.get(worker, "").split(" ")[0]
        plain = re.sub(r"\W", "_", worker)
        return next((one.error for one in self.broken if origin == one.distribution or plain == one.names[1]), None)


def name_of(one: Registered) -> str:
    """Return the name of what a plugin registered."""
    return one.file if isinstance(one, Reporter) else one.name

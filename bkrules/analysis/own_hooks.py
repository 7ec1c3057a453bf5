"""bk's own implementations of the hooks of analysis, and its calls of them. Answers of plugins are checked here."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import Any

from bkrules.analysis.cell_rules import skip_reason
from bkrules.analysis.test_marks import Test
from bkrules.model.action import Cell
from bkrules.plugin import ask
from bkrules.plugin.calls import Hooks
from bkrules.plugin.host import Host, Lack
from bkrules.plugin.installed import Plugins
from bkrules.plugin.spec import hookimpl
from bkrules.plugin.worker import Mirror, Worker


class OwnHooks:
    """The hooks as the methods of the worker and the marks of tests answer them."""

    @hookimpl
    def bk_configure(self, worker: Worker, mirror: Mirror, files: dict[object, object]) -> None:
        """Add the worker's files."""
        files.update(copy.deepcopy(dict(ask.configuration(worker, mirror))))

    @hookimpl
    def bk_cache_key(self, worker: Worker) -> dict[str, str]:
        """Return what the worker names."""
        return ask.cache_key(worker)

    @hookimpl
    def bk_preflight(self, worker: Worker, host: Host) -> tuple[Lack, ...]:
        """Return what every cell needs, and what the worker needs."""
        return (*host.lacks(), *ask.preflight(worker, host))

    @hookimpl
    def bk_skip_cell(self, worker: Worker, test: Test, unsupported: Collection[str]) -> str | None:
        """Return what the marks of a test say."""
        return skip_reason(test, rootless=worker.rootless, unsupported=unsupported) or None


_OWN = OwnHooks()


def _hooks(plugins: Plugins) -> Hooks:
    plugins.hooks.add(_OWN)
    return plugins.hooks


def configuration(plugins: Plugins, worker: Worker, mirror: Mirror) -> Mapping[Any, Any]:
    """Return the configuration files of a worker's daemons, by name. Raises BkError."""
    files: dict[object, object] = {}
    _hooks(plugins).call("bk_configure", worker=worker, mirror=mirror, files=files)
    return files


def cache_key(plugins: Plugins, worker: Worker) -> dict[str, str]:
    """Return what the worker and all plugins add to its key. Raises BkError for a wrong type, and a name of two."""
    hooks = _hooks(plugins)
    joined: dict[str, str] = {}
    for answer in hooks.call("bk_cache_key", worker=worker):
        if not isinstance(answer, Mapping) or not all(
            isinstance(text, str) for pair in answer.items() for text in pair
        ):
            raise hooks.wrong("bk_cache_key", answer, "return a dictionary of strings")
        if twice := sorted(joined.keys() & answer.keys()):
            raise hooks.wrong("bk_cache_key", answer, f"{twice[0]!r} is another's: begin names with that of the plugin")
        joined |= answer
    return joined


def lacks(plugins: Plugins, worker: Worker, host: Host) -> list[Lack]:
    """Return what this machine lacks for a cell of the worker. Raises BkError for a wrong type."""
    hooks = _hooks(plugins)
    joined: list[Lack] = []
    for answer in hooks.call("bk_preflight", worker=worker, host=host):
        if not isinstance(answer, tuple | list) or not all(isinstance(lack, Lack) for lack in answer):
            raise hooks.wrong("bk_preflight", answer, "return a tuple of Lack(what, why, remedy)")
        joined += answer
    return joined


def skips_tests(plugins: Plugins) -> bool:
    """Return whether `skipped` has the same answer for all cells of a test on a worker, since no plugin decides about cells."""
    return _hooks(plugins).is_only(_OWN, "bk_skip_cell")


def skipped(plugins: Plugins, cell: Cell, worker: Worker, test: Test, unsupported: Collection[str]) -> str:
    """Return why a cell is skipped; empty when it is not. Raises BkError for a wrong type."""
    hooks = _hooks(plugins)
    reason = hooks.call("bk_skip_cell", cell=cell, worker=worker, test=test, unsupported=unsupported)
    if reason is None:
        return ""
    if not isinstance(reason, str) or not reason.strip() or not reason.isprintable():
        raise hooks.wrong("bk_skip_cell", reason, "return a reason of one line, or None")
    return reason

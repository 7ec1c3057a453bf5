"""Finds the installed plugins and asks them for their workers."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import distributions

import pluggy

from bkrules.errors import BkError
from bkrules.plugin import spec
from bkrules.plugin.worker import Worker


@dataclass(frozen=True)
class Plugins:
    """The installed workers by name, and the distribution of each; `before` has those of all that were ever seen here."""

    workers: dict[str, type[Worker]]
    distributions: dict[str, str]
    before: Mapping[str, str] = field(default_factory=dict)


def load() -> Plugins:
    """The workers of every distribution with an entry point in the group `bk`. Raises BkError for a broken one."""
    found: dict[str, type[Worker]] = {}
    origins: dict[str, str] = {}
    # Entry points are one small file; a distribution's name takes all of its metadata to be parsed.
    plugins = [(one, points) for one in distributions() if (points := one.entry_points.select(group=spec.GROUP))]
    for distribution, entry_points in sorted(plugins, key=lambda pair: pair[0].name):
        for entry_point in entry_points:
            manager = pluggy.PluginManager(spec.GROUP)
            manager.add_hookspecs(spec)
            registered: list[type[Worker]] = []
            try:
                manager.register(entry_point.load(), entry_point.name)
                manager.check_pending()
                manager.hook.bk_register_workers(register=registered.append)
            except Exception as error:
                raise BkError(
                    "broken-plugin",
                    f"the plugin {distribution.name} {distribution.version} cannot be loaded: {error}",
                    hint=f"remove it with:  {sys.executable} -m pip uninstall {distribution.name}",
                ) from error
            for worker in registered:
                if worker.name in found:
                    raise BkError(
                        "duplicate-worker",
                        f"two plugins have a worker {worker.name!r}: {origins[worker.name]} and {distribution.name}",
                        hint="remove one of them",
                    )
                found[worker.name] = worker
                origins[worker.name] = f"{distribution.name} {distribution.version}"
    return Plugins(found, origins)

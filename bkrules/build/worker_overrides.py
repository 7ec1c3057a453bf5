"""Worker overrides: changes of the command line to the workers of all matrices, as BuildKit's harness makes by variables.

Build files declare a matrix; these overrides change it for one build. bk applies them to targets after loading and before analysis,
so that keys and reports name the workers that really ran.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from bkrules.errors import UsageError
from bkrules.incremental.dependencies import current
from bkrules.loading.graph import TargetGraph, close
from bkrules.loading.workspace import Workspace
from bkrules.model.label import Label
from bkrules.model.rule import Target, check_attributes
from bkrules.plugin import ask
from bkrules.plugin.features import FEATURES
from bkrules.plugin.installed import Plugins
from bkrules.plugin.worker import SettingsError, Worker
from bkrules.rules import RULES

WORKER, BINARY = "worker", "host_binary"
_SNAPSHOTTER, _USER, _BINARIES = "--extra_snapshotter={}", "--rootless_user={}", "--extra_binaries={}={}"


@dataclass(frozen=True)
class WorkerOverrides:
    """The overrides of one build.

    `enabled` and `disabled` are features; a feature in both is enabled. `snapshotter` adds a worker to each kind of worker.
    `binaries` adds a worker for each pair of an id and the folder that holds its tools. `user` is the user of rootless workers.
    `tools` are pairs of the name of a tool and the file that replaces it, `modules` of the path of a Go module and a folder.
    """

    enabled: frozenset[str] = frozenset()
    disabled: frozenset[str] = frozenset()
    snapshotter: str = ""
    binaries: tuple[tuple[str, str], ...] = ()
    user: str = ""
    tools: tuple[tuple[str, str], ...] = ()
    modules: tuple[tuple[str, str], ...] = ()

    def unsupported(self, features: frozenset[str]) -> frozenset[str]:
        """Return the features without which the cells of a worker with `features` run."""
        return (FEATURES - features | self.disabled) - self.enabled

    def options(self) -> list[str]:
        """Return the options of the command line that add workers or change their settings."""
        snapshotters = [_SNAPSHOTTER.format(self.snapshotter)] if self.snapshotter else []
        users = [_USER.format(self.user)] if self.user else []
        return snapshotters + users + [_BINARIES.format(*pair) for pair in self.binaries]


NONE = WorkerOverrides()


def apply_overrides(
    graph: TargetGraph, workspace: Workspace, plugins: Plugins, overrides: WorkerOverrides
) -> TargetGraph:
    """Return the graph with the overrides applied. Raises UsageError for an override that matches no worker, and LoadError."""
    if replace(overrides, enabled=frozenset(), disabled=frozenset()) == NONE:
        return graph
    from bkrules.build.module_overrides import override_modules
    from bkrules.build.tool_overrides import override_tools

    used: set[str] = set()
    added: set[Label] = set()
    for target in graph.targets:
        kind = _kind(target, plugins)
        if overrides.user and kind is not None and kind.rootless and "user" in ask.described(kind):
            workspace.put(replace(target, extra={**target.extra, "user": overrides.user}))
            used.add(_USER.format(overrides.user))
    matrices = [target for target in graph.targets if target.rule.is_test and "workers" in target.attributes]
    for matrix in matrices:
        workers = _targets(workspace, matrix.attributes["workers"])
        labels = list(matrix.attributes["workers"])
        taken = {_id(worker, plugins) for worker in workers}.intersection(name for name, _ in overrides.binaries)
        if taken:
            raise UsageError(
                "duplicate-name", f"{matrix.label} has a worker {min(taken)!r} already", hint="choose another id"
            )
        for option, worker in [
            *_snapshotters(workers, plugins, overrides.snapshotter),
            *_others(workers, plugins, workspace, overrides, added),
        ]:
            used.add(option)
            if _id(worker, plugins) not in {_id(workspace.target(label), plugins) for label in labels}:
                workspace.put(worker)
                labels.append(worker.label)
        workspace.put(replace(matrix, attributes={**matrix.attributes, "workers": tuple(labels)}))
    unused = [option for option in overrides.options() if option not in used]
    if matrices and unused:
        reason = f"{unused[0]} matches no worker of the selected matrices"
        raise UsageError("unused-override", reason, hint="see `bk workers`")
    graph = close(workspace, _targets(workspace, graph.wanted), plugins)
    graph = override_tools(graph, workspace, plugins, dict(overrides.tools), added)
    return override_modules(graph, workspace, plugins, dict(overrides.modules))


def _targets(workspace: Workspace, labels: Iterable[Label]) -> list[Target]:
    return list(filter(None, map(workspace.target, labels)))


def _kind(worker: Target | None, plugins: Plugins) -> type[Worker] | None:
    is_worker = worker is not None and worker.rule.name == WORKER
    return plugins.workers.get(worker.attributes["plugin"]) if worker is not None and is_worker else None


def _id(worker: Target | None, plugins: Plugins) -> str:
    """Return the id of a worker in cells; empty for a worker whose settings its rule will refuse."""
    kind = _kind(worker, plugins)
    if worker is None or kind is None:
        return ""
    try:
        return worker.attributes["id"] or ask.id_of(ask.made(kind, worker.extra))
    except (SettingsError, ask.WorkerFault):
        return ""


def _snapshotters(workers: list[Target], plugins: Plugins, snapshotter: str) -> Iterator[tuple[str, Target]]:
    """Yield a worker with the snapshotter for each plugin of `workers`: by a separate plugin, or by a setting."""
    seen: set[str] = set()
    for worker in workers:
        plugin = worker.attributes["plugin"] if _kind(worker, plugins) else ""
        if not snapshotter or not plugin or plugin in seen:
            continue
        seen.add(plugin)
        name = f"{plugin}+{snapshotter}"
        changes = {"plugin": name, "extra": {}} if name in plugins.workers else {"extra": {"snapshotter": snapshotter}}
        made = _copy(worker, snapshotter, **changes)
        if _id(made, plugins):
            yield _SNAPSHOTTER.format(snapshotter), made


def _others(
    workers: list[Target], plugins: Plugins, workspace: Workspace, overrides: WorkerOverrides, added: set[Label]
) -> Iterator[tuple[str, Target]]:
    """Yield a worker for each folder with tools: a copy of the worker that runs most of them, with these tools.

    The labels of the tools are then in `added`.
    """
    for name, folder in overrides.binaries:
        shared = [(worker, _shared(worker, plugins, folder)) for worker in workers]
        worker, tools = max(shared, key=lambda pair: len(pair[1]), default=(None, []))
        if worker is None or not tools:
            continue
        labels: dict[str, Label] = {}
        for tool in tools:
            label = labels[tool] = Label(worker.label.package, f"{worker.label.name}={name}/{tool}")
            values = {"name": label.name, "binary": os.path.join(folder, tool)}
            attributes, _ = check_attributes(RULES[BINARY], label, values, worker.location)
            workspace.put(Target(label, RULES[BINARY], attributes, {}, worker.location))
        added.update(labels.values())
        tools_by_name = {**worker.attributes["tools"], **labels}
        yield _BINARIES.format(name, folder), _copy(worker, name, id=name, tools=tools_by_name)


def _shared(worker: Target, plugins: Plugins, folder: str) -> list[str]:
    """Return the tools of a worker that a folder holds."""
    kind = _kind(worker, plugins)
    if kind is None or not _id(worker, plugins):
        return []
    tools = ask.tools(ask.made(kind, worker.extra))
    return [tool for tool in tools if os.access(current().note(os.path.join(folder, tool)), os.X_OK)]


def _copy(worker: Target, name: str, *, extra: Mapping[str, Any] | None = None, **attributes: Any) -> Target:
    """Return a copy of a worker with other attributes or settings; its label ends with an equals sign and `name`."""
    label = Label(worker.label.package, f"{worker.label.name}={name}")
    values = {**worker.attributes, "id": None, **attributes, "name": label.name}
    return replace(worker, label=label, attributes=values, extra=worker.extra if extra is None else extra)

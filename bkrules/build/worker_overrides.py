"""What the command line changes about the workers of all matrices, as BuildKit's harness does by its environment.

Build files say what a matrix is; these wishes are for one build of it. They change targets after loading and before analysis, so
that keys and reports have what really ran.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from bkrules.errors import UsageError
from bkrules.incremental.dependencies import note
from bkrules.loading.graph import TargetGraph, close
from bkrules.loading.workspace import Workspace
from bkrules.model.label import Label
from bkrules.model.rule import Target, check_attributes
from bkrules.plugin.features import FEATURES
from bkrules.plugin.manager import Plugins
from bkrules.plugin.worker import SettingsError, Worker
from bkrules.rules import RULES

MATRIX, WORKER, BINARY = "test_matrix", "worker", "host_binary"


@dataclass(frozen=True)
class Wishes:
    """`enabled` and `disabled` are features, and the first wins. `snapshotter` is one more for every kind of worker. `binaries` are
    further workers by their ids, each with the folder from which it takes its tools. `user` runs the workers without privileges.
    """

    enabled: frozenset[str] = frozenset()
    disabled: frozenset[str] = frozenset()
    snapshotter: str = ""
    binaries: tuple[tuple[str, str], ...] = ()
    user: str = ""

    def unsupported(self, features: frozenset[str]) -> frozenset[str]:
        """What a worker with these features cannot do, or is said not to."""
        return (FEATURES - features | self.disabled) - self.enabled


NONE = Wishes()


def granted(graph: TargetGraph, workspace: Workspace, plugins: Plugins, wishes: Wishes) -> TargetGraph:
    """The graph with the workers that are wished for. Raises UsageError for a wish that changes nothing, and LoadError."""
    if replace(wishes, enabled=frozenset(), disabled=frozenset()) == NONE:
        return graph
    fulfilled: set[str] = set()
    for target in graph.targets:
        kind = _kind(target, plugins)
        if wishes.user and kind is not None and kind.rootless and "user" in kind.describe_settings():
            workspace.put(replace(target, extra={**target.extra, "user": wishes.user}))
            fulfilled.add(f"the user {wishes.user!r}")
    matrices = [target for target in graph.targets if target.rule.name == MATRIX]
    for matrix in matrices:
        workers = _targets(workspace, matrix.attributes["workers"])
        labels = list(matrix.attributes["workers"])
        taken = {_id(worker, plugins) for worker in workers}.intersection(name for name, _ in wishes.binaries)
        if taken:
            raise UsageError(
                "duplicate-name", f"{matrix.label} has a worker {min(taken)!r} already", hint="choose another id"
            )
        for wish, worker in [
            *_snapshotters(workers, plugins, wishes.snapshotter),
            *_others(workers, plugins, workspace, wishes),
        ]:
            fulfilled.add(wish)
            if _id(worker, plugins) not in {_id(workspace.target(label), plugins) for label in labels}:
                workspace.put(worker)
                labels.append(worker.label)
        workspace.put(replace(matrix, attributes={**matrix.attributes, "workers": tuple(labels)}))
    wanted = [f"the snapshotter {wishes.snapshotter!r}"] if wishes.snapshotter else []
    wanted += [f"the user {wishes.user!r}"] if wishes.user else []
    wanted += [f"a tool of {folder}" for _, folder in wishes.binaries]
    missing = [wish for wish in wanted if wish not in fulfilled]
    if matrices and missing:
        raise UsageError("useless-wish", f"no worker of these matrices can take {missing[0]}", hint="see `bk workers`")
    return close(workspace, _targets(workspace, graph.wanted), plugins)


def _targets(workspace: Workspace, labels: Iterable[Label]) -> list[Target]:
    return list(filter(None, map(workspace.target, labels)))


def _kind(worker: Target | None, plugins: Plugins) -> type[Worker] | None:
    is_worker = worker is not None and worker.rule.name == WORKER
    return plugins.workers.get(worker.attributes["plugin"]) if worker is not None and is_worker else None


def _id(worker: Target | None, plugins: Plugins) -> str:
    """What a worker is called in cells; nothing for one that its own rule will refuse."""
    kind = _kind(worker, plugins)
    if worker is None or kind is None:
        return ""
    try:
        return worker.attributes["id"] or kind.from_settings(worker.extra).id()
    except SettingsError:
        return ""


def _snapshotters(workers: list[Target], plugins: Plugins, snapshotter: str) -> Iterator[tuple[str, Target]]:
    """One worker with the snapshotter for each plugin of the workers: by a plugin of its own, or by a setting."""
    seen: set[str] = set()
    for worker in workers:
        plugin = worker.attributes["plugin"] if _kind(worker, plugins) else ""
        if not snapshotter or not plugin or plugin in seen:
            continue
        seen.add(plugin)
        own = f"{plugin}+{snapshotter}"
        changes = {"plugin": own, "extra": {}} if own in plugins.workers else {"extra": {"snapshotter": snapshotter}}
        made = _copy(worker, snapshotter, **changes)
        if _id(made, plugins):
            yield f"the snapshotter {snapshotter!r}", made


def _others(
    workers: list[Target], plugins: Plugins, workspace: Workspace, wishes: Wishes
) -> Iterator[tuple[str, Target]]:
    """For each folder with tools, the worker that runs most of them, with them."""
    for name, folder in wishes.binaries:
        shared = [(worker, _shared(worker, plugins, folder)) for worker in workers]
        worker, tools = max(shared, key=lambda pair: len(pair[1]), default=(None, []))
        if worker is None or not tools:
            continue
        given: dict[str, Label] = {}
        for tool in tools:
            given[tool] = Label(worker.label.package, f"{worker.label.name}={name}/{tool}")
            values = {"name": given[tool].name, "binary": os.path.join(folder, tool)}
            attributes, _ = check_attributes(RULES[BINARY], given[tool], values, worker.location)
            workspace.put(Target(given[tool], RULES[BINARY], attributes, {}, worker.location))
        yield f"a tool of {folder}", _copy(worker, name, id=name, tools={**worker.attributes["tools"], **given})


def _shared(worker: Target, plugins: Plugins, folder: str) -> list[str]:
    """The tools of a worker that are in a folder."""
    kind = _kind(worker, plugins)
    if kind is None or not _id(worker, plugins):
        return []
    tools = kind.from_settings(worker.extra).tools()
    return [tool for tool in tools if os.access(note(os.path.join(folder, tool)), os.X_OK)]


def _copy(worker: Target, name: str, *, extra: Mapping[str, Any] | None = None, **attributes: Any) -> Target:
    """A worker like another, with other attributes or settings; its label has `name` behind an equals sign."""
    label = Label(worker.label.package, f"{worker.label.name}={name}")
    values = {**worker.attributes, "id": None, **attributes, "name": label.name}
    return replace(worker, label=label, attributes=values, extra=worker.extra if extra is None else extra)

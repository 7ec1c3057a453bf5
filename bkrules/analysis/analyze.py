"""Analysis of a graph: targets become actions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field

from bkrules.analysis.context import Context, RunEarly, Unsupported, code_of, missing, run_nothing
from bkrules.analysis.host_inputs import Machine
from bkrules.errors import LoadError
from bkrules.incremental.dependencies import current
from bkrules.loading.graph import TargetGraph
from bkrules.loading.workspace import Workspace
from bkrules.model.action import Action
from bkrules.model.label import Label
from bkrules.plugin.installed import Plugins


@dataclass(frozen=True)
class ActionGraph:
    """Every action by its id, and the ids of each target's actions in the order of their declaration.

    `faults` are the errors of targets that were left out, with all that depends on them.
    """

    actions: dict[str, Action]
    of_target: dict[Label, tuple[str, ...]]
    providers: dict[Label, tuple[object, ...]]
    faults: list[LoadError] = field(default_factory=list)


def analyze(
    graph: TargetGraph,
    workspace: Workspace,
    plugins: Plugins,
    machine: Callable[[], Machine],
    unsupported: Unsupported = missing,
    run: RunEarly | None = None,
    *,
    keep_going: bool = False,
) -> ActionGraph:
    """Return the actions of every target of the graph; `run` runs the early actions.

    Raises LoadError when a rule refuses a target, and BkError for a broken worker unless `keep_going`.
    """
    broken: set[Label] = set()
    result = ActionGraph({}, {}, {})
    code = functools.cache(code_of)  # a plugin's rule may have many targets
    for target in graph.targets:
        early = run_nothing if run is None else functools.partial(run, known=result.actions)
        context = Context(
            target, workspace, plugins, machine, result.providers, unsupported, early, keep_going=keep_going, code=code
        )
        result.of_target[target.label] = ()
        try:
            if not broken.isdisjoint(graph.edges.get(target.label, ())):
                broken.add(target.label)
                continue
            with current().of_package(target.label.package):
                result.providers[target.label] = target.rule.analyze(context)
        except LoadError as error:
            if not keep_going:
                raise
            broken.add(target.label)
            result.faults.append(error)
            continue
        result.of_target[target.label] = tuple(action.id for action in context.actions)
        for action in context.actions:
            assert action.id not in result.actions, f"two actions are called {action.id}"
            result.actions[action.id] = action
    return result

"""Whether this machine can run a cell: what every cell needs, and what its workers need."""

from __future__ import annotations

from bkrules.analysis import own_hooks
from bkrules.cell import jail
from bkrules.errors import MachineLacks
from bkrules.execution.context import RunContext
from bkrules.model.action import Action
from bkrules.model.parameters import CellParameters, TestCell, parameters_of
from bkrules.plugin import ask
from bkrules.plugin.host import Host, Lack
from bkrules.plugin.installed import Plugins
from bkrules.sandbox.trial import tried


def check_machine(action: Action, context: RunContext) -> None:
    """Raise MachineLacks when this machine lacks what the action's cell needs; BkError for a broken plugin."""
    error = lack_of(action, context.plugins, context.machine().host)
    if error is not None:
        raise error


def check_cells(host: Host) -> None:
    """Raise MachineLacks when this machine lacks what every cell needs."""
    general = tried(host).lacks()
    if general:
        raise _error("this machine cannot run cells", general)


def lack_of(action: Action, plugins: Plugins, host: Host) -> MachineLacks | None:
    """Return an error that tells what this machine lacks for an action's cell, if anything.

    Lacks for every cell come alone: they are the same for all workers, and are shown once. Raises BkError for a broken
    plugin.
    """
    here = tried(host)
    general = here.lacks()
    if general:
        return _error("this machine cannot run cells", general)
    parameters = parameters_of(action, CellParameters)
    lacks: list[Lack] = []
    for plugin, settings in parameters.workers:
        worker = ask.made(plugins.workers[plugin], settings)
        lacks += [lack for lack in own_hooks.lacks(plugins, worker, here) if lack not in lacks]
    if isinstance(parameters, TestCell) and parameters.isolation == jail.ISOLATION:
        lacks += jail.lacks(here)
    name = action.cell.worker if action.cell else parameters.plugin
    return _error(f"{name} cannot run here", lacks) if lacks else None


def _error(what: str, lacks: list[Lack] | tuple[Lack, ...]) -> MachineLacks:
    reasons = "; ".join(f"{lack.what}: {lack.why}" for lack in lacks)
    remedies = "\n".join(dict.fromkeys(lack.remedy for lack in lacks))
    return MachineLacks("preflight", f"{what}: {reasons}", hint=remedies)

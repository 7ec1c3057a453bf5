"""The critical path: the time that a build would take with any number of jobs."""

from __future__ import annotations

from collections.abc import Iterable

from bkrules.execution.result import Result


def critical_path(results: Iterable[Result]) -> list[Result]:
    """Return the chain of dependent actions that together took the longest: those that ran, in their order.

    `results` come in the order of execution, dependencies first.
    """
    results = list(results)
    if not any(result.has_run for result in results):
        return []
    known: dict[str, Result] = {}
    before: dict[str, str] = {}
    seconds = {"": 0.0}
    for result in results:
        name = result.action.id
        known[name] = result
        before[name] = max(result.action.dependencies, key=lambda need: seconds.get(need, 0.0), default="")
        seconds[name] = seconds.get(before[name], 0.0) + (result.seconds if result.has_run else 0.0)
    chain: list[Result] = []
    name = max(seconds, key=seconds.__getitem__)
    while name in known:
        chain.append(known[name])
        name = before[name]
    return [result for result in reversed(chain) if result.has_run]

"""Early actions, which run while targets are analysed, since their results decide which other actions exist.

They are ordinary actions, with a key, the disk cache and a sandbox, and a cached result starts no process. These are the
lists of tests that only pytest can tell (`analysis/collection.py`), or a test binary of Go (`rules/go_test.py`), which is
built for that.

They need fewer privileges than cells, so they may run on a machine that only plans. Where cells cannot run, a failure of an
early action says so instead, and no tool is built for cells that the same command would run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bkrules.errors import Interrupted, LoadError, MachineLacks, RemoteFailed
from bkrules.execution.phases import ANALYSIS, Phases
from bkrules.model.status import FailureClass, Status

if TYPE_CHECKING:
    from bkrules.analysis.host_inputs import Machine
    from bkrules.cache.cas import Cas
    from bkrules.cache.history import History
    from bkrules.cache.remote import Remote
    from bkrules.cache.remote_options import RemoteOptions
    from bkrules.execution.context import RunContext
    from bkrules.execution.executor import Executor
    from bkrules.execution.result import Result
    from bkrules.model.action import Action, Node
    from bkrules.plugin.installed import Plugins
    from bkrules.report.progress import Progress

disk_cache = ""
"""The disk cache of the command line; empty means the default one."""
remote_cache: RemoteOptions | None = None
"""The remote cache of the command line, if any."""
results: dict[str, Result] = {}
"""The results of the early actions of this process, by their ids."""
runs_cells = False
"""Whether the command runs the cells, as opposed to listing them."""


def cache_folder() -> str:
    """Return the folder of the disk cache of this command."""
    from bkrules.build.request import default_cache

    return disk_cache or default_cache()


class EarlyActions:
    """Runs the early actions of one analysis. `place` returns the path of a source; `state` is a folder for remembered data.

    In `phases` they count as themselves, and not as analysis.
    """

    def __init__(
        self,
        place: Callable[[str], str],
        out: Path,
        state: str,
        machine: Callable[[], Machine],
        plugins: Plugins,
        phases: Phases,
    ) -> None:
        self._place, self._out, self._state = place, out, state
        self._machine, self._plugins, self._phases = machine, plugins, phases

    def run(self, actions: Sequence[Action], known: Mapping[str, Action]) -> list[Mapping[str, Node]]:
        """Return the outputs of each action; `known` are the other actions by their ids.

        Raises LoadError for the first that fails, MachineLacks, RemoteFailed and Interrupted.
        """
        from bkrules.cache.action_cache import ActionCache
        from bkrules.cache.cas import Cas
        from bkrules.cache.file_digests import FileDigests
        from bkrules.cache.history import NAME, History
        from bkrules.cache.maintenance import in_use
        from bkrules.execution.executor import Executor
        from bkrules.report.progress import Progress, wants_live
        from bkrules.system import colours

        progress = Progress(sys.stderr, live=wants_live(sys.stderr), coloured=colours.wanted(sys.stderr, "auto"))
        history = History(f"{self._state}/{NAME}")
        cache = cache_folder()
        contexts: list[RunContext] = []
        with in_use(cache):
            digests = FileDigests(f"{self._state}/digests")
            cas = Cas(f"{cache}/cas", digests)
            remote = _remote(cas, progress.say)
            wanted = {action.id for action in actions}
            executor = Executor(
                self._place,
                ActionCache(f"{cache}/ac", cas, remote),
                digests,
                lambda: contexts[0],
                whole=lambda action: action.id in wanted,
                say=progress.say,
            )
            with ExitStack() as stack:
                stack.callback(progress.close)
                for together in _levels(actions, known):
                    missing = []
                    for action in together:
                        result = executor.look_up(action)
                        if result is None and remote is not None:
                            result = executor.ask(action)
                        if result is None:
                            missing.append(action)
                        else:
                            executor.results[action.id] = result
                    if runs_cells and any(action.id not in wanted for action in missing):
                        self._check()
                    if missing and not contexts:
                        contexts.append(stack.enter_context(self._opened(cache, cas)))
                    progress.total += len(missing)
                    for result in _run(executor, missing, self._phases, progress, history):
                        executor.results[result.action.id] = result
                        history.note(result.action.id, result.seconds, failed=result.status == Status.FAILED)
                    for action in together:
                        if executor.results[action.id].status == Status.FAILED:
                            self._check()
                        _outputs(executor.results[action.id])
                if remote is not None and (fault := remote.flush()):
                    raise RemoteFailed("remote-cache", fault)
            digests.save()
            history.save()
        results.update(executor.results)
        return [_outputs(executor.results[action.id]) for action in actions]

    def _check(self) -> None:
        """Raise MachineLacks on a machine that cannot run cells."""
        from bkrules.runners.preflight import check_cells

        check_cells(self._machine().host)

    @contextmanager
    def _opened(self, cache: str, cas: Cas) -> Iterator[RunContext]:
        from bkrules.build.open_context import close_context, open_context

        jobs = os.cpu_count() or 1
        context = open_context(
            cache, cas, self._out, self._machine, self._plugins, jobs, test_timeouts={}, test_attempts=None
        )
        try:
            yield context
        finally:
            context.processes.interrupt()
            close_context(context)


def _remote(cas: Cas, say: Callable[[str], None]) -> Remote | None:
    if remote_cache is None:
        return None
    from bkrules.cache.remote import Remote

    return Remote(remote_cache, cas, say)


def _levels(actions: Sequence[Action], known: Mapping[str, Action]) -> list[list[Action]]:
    """Return the actions and all that they depend on, in groups of which each depends on earlier ones."""
    depths: dict[str, int] = {}

    def depth(action: Action) -> int:
        if action.id not in depths:
            depths[action.id] = 1 + max((depth(known[name]) for name in action.dependencies), default=-1)
        return depths[action.id]

    for action in actions:
        depth(action)
    named = {**known, **{action.id: action for action in actions}}
    return [
        [named[name] for name in depths if depths[name] == level]
        for level in range(max(depths.values(), default=-1) + 1)
    ]


def _run(
    executor: Executor, actions: Sequence[Action], phases: Phases, progress: Progress, history: History
) -> list[Result]:
    """Return the results of actions, as many at once as the machine has cores."""
    if not actions:
        return []
    from concurrent.futures import ThreadPoolExecutor

    def run_action(action: Action) -> Result:
        progress.start(action, history.seconds(action.id), _title(action))
        with phases.during(action.mnemonic):
            result = executor.run(action)
        progress.count(action)
        return result

    threads = ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        with phases.outside(ANALYSIS):
            return list(threads.map(run_action, actions))
    finally:
        executor.stopped.set()
        threads.shutdown(wait=False, cancel_futures=True)


def _title(action: Action) -> str:
    """Return the last word of an action's id where it tells more than its label, as for the module of CollectTests."""
    last = action.id.rpartition(" ")[2]
    return str(action.label) if last == action.mnemonic else last


def _outputs(result: Result) -> Mapping[str, Node]:
    if result.status == Status.PASSED:
        return result.outputs
    if result.failure == FailureClass.INTERRUPTED:
        raise Interrupted("interrupted", f"{result.action.id} was interrupted")
    if result.failure == FailureClass.MACHINE:
        raise MachineLacks("machine", f"{result.action.label}: {result.reason}", hint=result.hint)
    where, _, hint = result.hint.partition("\n")
    reason = result.reason.removeprefix(f"{result.action.label}: ")
    raise LoadError("collection-failed", f"{result.action.label}: {reason}", where=where, hint=hint)

"""Outputs that the remote cache has lost are made again: once, and with one message, however many actions wait for them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from servers import CacheServer, cache_server

from bkrules.cache.action_cache import ActionCache
from bkrules.cache.cas import Cas
from bkrules.cache.file_digests import FileDigests
from bkrules.cache.remote import Remote
from bkrules.cache.remote_options import RemoteOptions
from bkrules.execution.context import RunContext
from bkrules.execution.executor import Executor
from bkrules.execution.job_slot import JobSlot, Paused
from bkrules.execution.result import Outcome, Result
from bkrules.model.action import Action, Node
from bkrules.model.status import Status
from bkrules.runners.table import RUNNERS

MakeAction = Callable[..., Action]
READERS = 4


@pytest.fixture
def server() -> Iterator[CacheServer]:
    with cache_server() as made:
        yield made


class Machine:
    """An executor with its own disk cache. `ran` are the actions that it has run, `said` its messages."""

    def __init__(self, folder: Path, address: str) -> None:
        self.ran: list[str] = []
        self.said: list[str] = []
        self.before: Callable[[Action], None] = lambda _action: None
        self._folder = folder
        folder.mkdir()
        digests = FileDigests(str(folder / "digests"))
        cas = Cas(str(folder / "cas"), digests)
        self.remote = Remote(RemoteOptions(address), cas, self.said.append)
        actions = ActionCache(str(folder / "ac"), cas, self.remote)
        context = cast(RunContext, SimpleNamespace(runners={**RUNNERS, "Test": self._work}))
        self.executor = Executor(
            lambda path: f"{folder}/{path}",
            actions,
            digests,
            lambda: context,
            whole=lambda _action: False,
            say=self.said.append,
        )

    def _work(self, action: Action, _inputs: Mapping[str, Node], _context: RunContext) -> Outcome:
        self.before(action)
        self.ran.append(action.id)
        out = self._folder / f"{action.id}.out"
        out.write_text(f"what {action.id} makes")
        return Outcome(Status.PASSED, {"out": str(out)})

    def run_all(self, actions: list[Action], tell: Callable[[Paused], None]) -> list[Result]:
        """Run actions at once, each in its own thread, with a slot that tells when it is released."""
        results: list[Result] = []

        def run(action: Action) -> None:
            def told(paused: Paused) -> None:
                tell(paused)
                if paused.back:
                    slot.grant()

            slot = JobSlot(action.id, told, over)
            results.append(self.executor.run(action, slot))

        over = threading.Event()
        threads = [threading.Thread(target=run, args=(action,)) for action in actions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results


def test_one_loss_is_said_once(server: CacheServer, make_action: MakeAction, tmp_path: Path) -> None:
    tool = make_action("tool")
    names = [f"reader{number}" for number in range(READERS)]
    readers = [replace(make_action(name, "tool"), arguments=(name,)) for name in names]
    first = Machine(tmp_path / "first", server.address)
    assert first.executor.run(tool).status == Status.PASSED
    assert first.remote.flush() == ""
    second = Machine(tmp_path / "second", server.address)
    found = second.executor.ask(tool)
    assert found is not None
    second.executor.results["tool"] = found
    for path in [path for path in server.held if path.startswith("/cas/")]:
        del server.held[path]
    waiting = threading.Semaphore(0)

    def all_wait(action: Action) -> None:
        """The tool is made again when each other reader waits for it: a slot was released for each."""
        for _ in range(READERS - 1 if action is tool else 0):
            assert waiting.acquire(timeout=60)

    second.before = all_wait

    def told(paused: Paused) -> None:
        if not paused.back:
            waiting.release()

    results = second.run_all(readers, told)

    assert [result.status for result in results] == [Status.PASSED] * READERS
    assert sorted(second.ran) == [*names, "tool"]
    [warning, loss] = second.said
    assert "it lacks this blob" in warning
    assert loss == "  Test //p:tool once more: the remote cache lost what it made"


@pytest.mark.parametrize("is_kept", [True, False])
def test_an_answer_that_no_cache_may_have_is_fetched_and_not_stored(
    server: CacheServer, make_action: MakeAction, tmp_path: Path, *, is_kept: bool
) -> None:
    """An engine has run a flaky cell, whose outputs another action reads here."""
    cell, reader = make_action("cell"), make_action("reader", "cell")
    first = Machine(tmp_path / "first", server.address)
    assert first.executor.run(cell).status == Status.PASSED
    assert first.remote.flush() == ""
    second = Machine(tmp_path / "second", server.address)
    found = second.executor.ask(cell)
    assert found is not None
    second.executor.results["cell"] = replace(found, is_kept=is_kept)

    assert second.executor.run(reader).status == Status.PASSED
    assert second.ran == ["reader"]
    assert (second.executor.look_up(cell) is not None) == is_kept

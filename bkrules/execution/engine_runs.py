"""Runs of actions on an engine, whose results are checked, stored and shown as those of a run here."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from bkrules.cache.action_cache import ActionCache
from bkrules.errors import ActionFailed
from bkrules.execution import elsewhere_cell
from bkrules.execution.context import RunContext
from bkrules.execution.elsewhere import Elsewhere
from bkrules.execution.elsewhere_cell import CellElsewhere
from bkrules.execution.profile import NoProfile
from bkrules.execution.result import CONTRADICTIONS, Attempt, CellReport, Result
from bkrules.model.action import Action, Key, Node
from bkrules.model.reapi import Message, encode
from bkrules.model.status import GOOD, Status

Form = tuple[Action, Mapping[str, Node]]
"""The form of an action that an engine can run, and its inputs."""


class EngineRuns:
    """Runs on one engine. `whole` decides for which actions bk needs the bytes of outputs, and not only the digests."""

    def __init__(
        self,
        engine: Elsewhere,
        actions: ActionCache,
        context: Callable[[], RunContext],
        whole: Callable[[Action], bool],
        profile: NoProfile,
    ) -> None:
        self._engine, self._actions, self._context = engine, actions, context
        self._whole, self._profile = whole, profile

    def run(
        self, action: Action, key: Key, form: Form, again: Callable[[], Mapping[str, Node]], *, uncached: bool
    ) -> Result:
        """Return the result of an action. `again` and `uncached` are as for `Elsewhere.run`, whose errors this raises too.

        Raises ActionFailed for what is no result of the action, and RemoteFailed when the cache lacks a part of it.
        """
        began, engine = time.monotonic(), self._engine
        with self._profile.span("run elsewhere", "run"):
            response = engine.run(*form, again, uncached=uncached)
        with self._profile.span("fetch outputs", "cache"):
            result = response["result"]
            if action.cell is not None:
                cell = elsewhere_cell.read(action, result, engine.text(result, "stderr"), self._actions)
                if cell is not None:
                    return self._of_cell(action, key, cell, time.monotonic() - began)
            engine.check(action, result, self._context().log)
            return self._of_command(action, key, response, time.monotonic() - began)

    def _of_cell(self, action: Action, key: Key, cell: CellElsewhere, seconds: float) -> Result:
        """Return the result of a cell. Its outputs go to the folder of the cell when they are fetched; those of one that failed
        at any attempt always are. Raises RemoteFailed.
        """
        if cell.status != Status.PASSED and cell.failure in CONTRADICTIONS:
            self._actions.drop(key.digest)
        is_good = cell.may_be_kept or cell.status in GOOD
        wanted = self._whole(action) or not cell.may_be_kept
        if wanted and self._actions.fetch(cell.result.outputs.values()):
            raise self._actions.lack(action.title)
        log = cell.write_outputs(self._context().cell_folder(action), fetched=wanted)
        if cell.may_be_kept and wanted:
            self._actions.bring(key.digest, cell.result)
        seconds = cell.result.seconds or seconds  # those of the run, without those of the queue
        attempt = Attempt(cell.status, seconds, "test.log", cell.failure, cell.reason)
        return Result(
            action,
            cell.status,
            False,
            seconds,
            key,
            cell.result.outputs if is_good else {},
            cell.reason,
            cell.failure,
            log="" if is_good else log,
            ran=CellReport((attempt,)),
            remote=True,
            is_kept=cell.may_be_kept,
        )

    def _of_command(self, action: Action, key: Key, response: Message, seconds: float) -> Result:
        """Return the result of a command, whose blobs the remote cache has. Raises ActionFailed and RemoteFailed."""
        result = response["result"]
        data = encode("ActionResult", {**result, "execution_metadata": result["execution_metadata"] or {}})
        try:
            stored = self._actions.take(
                key.digest, data, whole=self._whole(action), declared=action.declared, above=action.above
            )
        except ValueError as error:
            raise ActionFailed("bad-output", f"{action.label}: not the result of that action: {error}") from None
        if stored is None:
            raise self._actions.lack(str(action.label))
        cached = response["cached_result"]
        return Result(action, Status.PASSED, cached, stored.seconds or seconds, key, stored.outputs, remote=True)

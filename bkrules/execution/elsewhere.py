"""Actions that an engine of the Remote Execution API runs, in place of this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from bkrules.cache.cas import Cas
from bkrules.cache.remote import Remote
from bkrules.cache.remote_options import ExecutorOptions
from bkrules.errors import ActionFailed, RemoteFailed
from bkrules.execution import doing
from bkrules.execution.cell_answers import LONGEST, shown
from bkrules.execution.portable import WORD, send
from bkrules.execution.portable_cell import is_portable
from bkrules.execution.result import RESOURCES
from bkrules.model import reapi
from bkrules.model.action import Action, Node, from_message
from bkrules.sandbox import outputs

MOST_LOG = 1 << 20
"""The limit in bytes of an output that is fetched to be shown."""
_LOST = ("FAILED_PRECONDITION", "NOT_FOUND")
"""Codes of engines for an action of which the CAS lacks a blob, and for other faults of an action."""


class Elsewhere:
    """An engine, and the CAS that it shares with this machine. Safe for several threads."""

    def __init__(self, options: ExecutorOptions, cas: Cas, remote: Remote) -> None:
        from bkrules.cache.grpc_execute import Engine

        self.engine = Engine(options)
        self.fallback = options.fallback
        self.failed = False
        """Whether an action has no result since the engine failed."""
        self._local = options.local
        self._cas, self._remote = cas, remote

    def takes(self, action: Action) -> bool:
        """Return whether the engine runs an action."""
        return is_portable(action) and action.mnemonic not in self._local

    def run(
        self,
        action: Action,
        inputs: Mapping[str, Node],
        again: Callable[[], Mapping[str, Node]],
        *,
        uncached: bool,
    ) -> reapi.Message:
        """Run an action, in its portable form, whose inputs are on the disk or in the CAS. Return the ExecuteResponse; its exit
        code may be any.

        `again` returns the inputs, all of them on the disk, for an engine that lacks one. `uncached`: a cached result is not
        asked for. Raises RemoteFailed, Interrupted, and ActionFailed for a command that takes too long.
        """
        try:
            return self._run(action, inputs, uncached=uncached)
        except RemoteFailed as error:
            if error.reason not in _LOST:
                raise
        self._remote.forget()
        return self._run(action, again(), uncached=uncached)

    def _run(self, action: Action, inputs: Mapping[str, Node], *, uncached: bool) -> reapi.Message:
        doing.tell(action.id, "sends its inputs")
        try:
            name = send(action, inputs, self._cas, self._remote)
        except RemoteFailed:
            self.engine.wait(0)  # or the build ends
            raise
        doing.tell(action.id, "")
        try:
            return self.engine.execute(
                name, action.limits.timeout, lambda stage: doing.tell(action.id, stage), uncached=uncached
            )
        except RemoteFailed as error:
            if error.reason != "DEADLINE_EXCEEDED":
                raise
            what = f"{action.label}: the command took more time than it has on another machine"
            raise ActionFailed(RESOURCES, what, hint=error.message) from None

    def check(self, action: Action, result: reapi.Message, log: Callable[[Action], Path]) -> None:
        """Raise ActionFailed for the ActionResult of a command that failed. Its output is copied to its log."""
        if not result["exit_code"]:
            return
        output, word = self.text(result, "stdout"), self.text(result, "stderr")
        rest, _, last = word.rstrip("\n").rpartition("\n")
        problem = f"the command failed with exit status {result['exit_code']}"
        if last.startswith(WORD):  # the runner was bk's
            problem, word = shown(last.removeprefix(WORD)), f"{rest}\n" if rest else ""
        text, copy = output + word, log(action)
        outputs.replace(copy.parent, copy.name, text.encode())
        hint = f"it ran on {self.engine.address}\nits output is in {copy}"
        raise ActionFailed("command-failed", f"{action.label}: {problem}", hint=hint, log=shown(text[-LONGEST:]))

    def text(self, result: reapi.Message, name: str) -> str:
        """Return the text of a stream of a command, fetched when the result only names it. Raises RemoteFailed."""
        data: bytes = result[f"{name}_raw"]
        named = result[f"{name}_digest"]
        if not data and named:
            try:
                digest = from_message(named)
            except ValueError:
                self.engine.fail(f"its result names no blob as {name}")
            if digest.size > MOST_LOG:
                return f"(its {name} has {digest.size} bytes)\n"
            if not self._remote.fetch([digest]):
                data = self._cas.read(digest) or b""
        return data.decode(errors="replace")

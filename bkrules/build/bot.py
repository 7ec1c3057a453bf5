"""The session of a worker with a scheduler of the Remote Workers API: which actions to run, and how each ended.

One call is under way at a time. Its answer has the leases of this worker: those that are new begin, and those that are gone
are cancelled. The scheduler holds its answer back until there is news, so the worker cancels the call when it has some.
Each thread reports by an event, and so does a signal; the thread of the session alone changes its state.

No session begins before the worker's cache answers: such a worker would take actions, and give each of them back.
"""

from __future__ import annotations

import queue
import random
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field

from bkrules.build.cancel import Cancel
from bkrules.cache.breaker import Fault
from bkrules.cache.grpc_calls import CallFailed, GrpcCalls
from bkrules.errors import RemoteFailed
from bkrules.model import reapi, rwapi
from bkrules.model.rwapi import ACTIVE, COMPLETED, OK, TERMINATING

POLL = 30.0  # seconds for which the scheduler may hold an answer back
BEAT = 2.0  # seconds between calls without news
PAUSES = (0.5, 10.0)  # seconds before a failed call is repeated, the first time, and at most
UNAVAILABLE = 14  # the status of an action that another machine may run
_REFUSED = ("UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED")
_CLOSED = ("ABORTED", "DATA_LOSS", "FAILED_PRECONDITION", "INVALID_ARGUMENT", "NOT_FOUND")
_UNKNOWN = ("FAILED_PRECONDITION", "INVALID_ARGUMENT", "NOT_FOUND")
_TRUST = "certificate"
_INSTANCE = "check --remote_instance_name, and the certificates"
_CREDENTIALS = "check the token in BK_REMOTE_HEADER or --remote_header"
_SECRETS = "check the certificates, and the token in BK_REMOTE_HEADER or --remote_header"
_HINTS = {
    "UNAUTHENTICATED": _CREDENTIALS,
    "PERMISSION_DENIED": _CREDENTIALS,
    "UNIMPLEMENTED": "check --scheduler: it must be a server of the Remote Workers API, such as BuildGrid",
}
_STOP, _ANSWERED = object(), object()
"""Events: a demand to end, and the end of the call that is under way. The end of an action is its lease."""


Run = Callable[[reapi.Message, Cancel], reapi.Message]
"""Runs the action of a lease's payload. Returns the fields `status` and `result` of the lease."""


Lack = Callable[[], str]
"""Returns why this worker could run no action now; empty when it could."""


def is_lasting(fault: str) -> bool:
    """Return whether a fault of a server does not pass by itself: the worker does not trust it, or it refuses the worker."""
    return _TRUST in fault or "credentials" in fault


@dataclass
class _Lease:
    """A lease of this worker. `outcome` is None while its action runs."""

    cancel: Cancel = field(default_factory=Cancel)
    outcome: reapi.Message | None = None


class Bot:
    """A worker with that name, that runs `jobs` actions at once, in a session with the scheduler of `calls`.

    `properties` are those that the scheduler compares with those of actions. `say` prints a line. `lack` is asked before each
    session.
    """

    def __init__(
        self,
        calls: GrpcCalls,
        instance: str,
        name: str,
        properties: list[tuple[str, str]],
        jobs: int,
        run: Run,
        say: Callable[[str], None],
        lack: Lack,
    ) -> None:
        self._calls, self._instance, self._run, self._say, self._lack = calls, instance, run, say, lack
        self._bot_id = name
        self._worker = reapi.encode(
            "Worker",
            {
                "devices": [
                    {"handle": name, "properties": [{"key": key, "value": value} for key, value in properties]}
                ],
                "configs": [{"key": "capacity", "value": str(jobs)}],
            },
        )
        self._session: reapi.Message | None = None
        self._leases: dict[str, _Lease] = {}
        self._threads: set[threading.Thread] = set()
        self._events: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._stops = 0
        self._pause = PAUSES[0]

    def stop(self) -> None:
        """Take no more leases, and end with the last one; when called again, end them now. Handlers of signals may call it."""
        self._events.put(_STOP)

    def serve(self) -> bool:
        """Serve the scheduler until `stop`. Return whether all leases have run to their end.

        Raises RemoteFailed when the scheduler refuses this worker.
        """
        try:
            while not (self._stops and self._session is None):
                is_last = bool(self._stops) and not self._leases
                if self._session is None and not self._is_able():
                    continue
                try:
                    is_news = self._exchange()
                except CallFailed as error:
                    if is_last or self._stops > 1:
                        break
                    self._failed(error)
                    continue
                if is_last and not self._leases:
                    break
                if not is_news:
                    self._rest(BEAT)
            return self._stops == 1
        except Fault as error:
            raise RemoteFailed("scheduler", str(error)) from error
        finally:
            self._drop()

    def _is_able(self) -> bool:
        """Return whether a session may begin. Wait for a while when the worker lacks something.

        Raises RemoteFailed for what does not pass: a certificate or credentials.
        """
        answer: Future[str] = Future()

        def ask() -> None:
            try:
                answer.set_result(self._lack())
            except BaseException as error:
                answer.set_exception(error)
            self._events.put(answer)

        threading.Thread(target=ask, name="ability", daemon=True).start()  # a signal ends the worker meanwhile
        while (event := self._events.get()) is not answer:
            self._react(event)
            if self._stops:
                return False
        lack = answer.result()
        if is_lasting(lack):
            raise RemoteFailed("remote-cache", f"the worker {self._bot_id} cannot use its {lack}", hint=_SECRETS)
        if lack:
            self._say(f"{lack}; the worker asks again")
            self._wait()
        return not lack

    def _exchange(self) -> bool:
        """Tell the scheduler of the leases, and obey its answer. Return whether there is news. Raises CallFailed.

        A session begins without a status, since the scheduler would wait for leases before it answers.
        """
        session: reapi.Message = {"bot_id": self._bot_id, "worker": self._worker}
        if self._session is None:
            fields = {"parent": self._instance, "bot_session": session}
            data = self._call("CreateBotSession", fields, may_end=True)
        else:
            told = self._told()
            session |= {**self._session, "status": TERMINATING if self._stops else OK, "leases": told}
            fields = {"name": self._session["name"], "bot_session": session}
            has_ended = any(lease["state"] == COMPLETED for lease in told)
            data = self._call("UpdateBotSession", fields, may_end=not has_ended)
        if data is None:
            return True
        try:
            answer = reapi.decode("BotSession", data)
        except ValueError as error:
            raise CallFailed("UNKNOWN", f"the answer is no BotSession: {error}") from error
        is_new, self._session = self._session is None, {"name": answer["name"], "version": answer["version"]}
        if is_new:
            self._say(f"session {answer['name']}")
        else:
            self._pause = PAUSES[0]
        return self._take(answer["leases"]) or is_new

    def _told(self) -> list[reapi.Message]:
        """Return the leases as messages. A lease may end meanwhile, in its thread."""
        outcomes = {lease_id: lease.outcome for lease_id, lease in self._leases.items()}
        return [
            {"id": lease_id, "state": COMPLETED if outcome else ACTIVE, **(outcome or {})}
            for lease_id, outcome in outcomes.items()
        ]

    def _call(self, method: str, fields: reapi.Message, *, may_end: bool) -> bytes | None:
        """Return the answer to a request; with `may_end`, None as soon as there is news for the scheduler."""
        request = reapi.encode(f"{method}Request", fields)
        call = self._calls.begin(rwapi.SERVICE + method, request, POLL, lambda: self._events.put(_ANSWERED))
        is_ended = False
        while (event := self._events.get()) is not _ANSWERED:
            if self._react(event) and may_end:
                is_ended = True
                call.cancel()
        try:
            return call.answer()
        except CallFailed:
            if is_ended:
                return None
            raise

    def _take(self, answer: list[reapi.Message]) -> bool:
        """Begin the new leases of an answer, and cancel those that it does not have. Return whether there were any."""
        named = {lease["id"]: lease for lease in answer}
        lost, new = self._leases.keys() - named.keys(), named.keys() - self._leases.keys()
        for lease_id in lost:
            lease = self._leases.pop(lease_id)
            if lease.outcome is None:
                self._say(f"{lease_id}: cancelled by the scheduler")
                lease.cancel.demand()
        for lease_id in sorted(new):
            lease = self._leases[lease_id] = _Lease()
            if self._stops:
                lease.outcome = {"status": {"code": UNAVAILABLE, "message": f"the worker {self._bot_id} ends"}}
                continue
            words = (lease, named[lease_id]["payload"] or {"type_url": "", "value": b""})
            thread = threading.Thread(target=self._work, args=words, name=f"lease {lease_id}")
            self._threads.add(thread)
            thread.start()
        return bool(lost or new)

    def _work(self, lease: _Lease, payload: reapi.Message) -> None:
        """Run the action of a lease, in its thread."""
        lease.outcome = self._run(payload, lease.cancel)
        self._events.put(lease)

    def _react(self, event: object) -> bool:
        """Obey `stop`. Return whether the event is news for the scheduler, which the end of a lost lease is not."""
        self._threads = {thread for thread in self._threads if thread.is_alive()}
        if event is not _STOP:
            return any(lease is event for lease in self._leases.values())
        self._stops += 1
        running = [lease for lease in self._leases.values() if lease.outcome is None]
        self._say(f"the worker ends; actions that run: {len(running)}")
        if self._stops > 1:
            for lease in running:
                lease.cancel.demand()
        return True

    def _failed(self, error: CallFailed) -> None:
        """Wait before a failed call is repeated. Drop the session when the scheduler has closed it. Raises RemoteFailed."""
        is_new = self._session is None
        if error.code in _REFUSED or (is_new and (error.code in _UNKNOWN or _TRUST in str(error))):
            what = f"the scheduler refuses the worker {self._bot_id}: {error}"
            raise RemoteFailed("scheduler", what, hint=_HINTS.get(error.code, _INSTANCE))
        if error.code in _CLOSED and not is_new:
            self._say(f"the scheduler has closed the session: {error}")
            self._drop()
        else:
            self._say(f"the scheduler does not answer: {error}; the worker asks again")
        self._wait()

    def _wait(self) -> None:
        """Wait before something that failed is tried again, longer each time."""
        self._rest(self._pause * random.uniform(0.5, 1.0))
        self._pause = min(self._pause * 2, PAUSES[1])

    def _rest(self, seconds: float) -> None:
        """Wait for that long, or for the next event."""
        with suppress(queue.Empty):
            self._react(self._events.get(timeout=seconds))

    def _drop(self) -> None:
        """End the actions of the session, and forget it. Returns when all of them have ended."""
        for lease in self._leases.values():
            lease.cancel.demand()
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        self._leases.clear()
        self._session = None

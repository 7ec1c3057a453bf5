"""A worker of a scheduler: each lease runs by the function of `bk run-action`, in a separate context of a run.

So the end of one lease ends the processes of that lease alone. The worker begins the zygote of the next cell meanwhile.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace

from bkrules.build.bot import UNAVAILABLE, Bot, Run, is_lasting
from bkrules.build.cancel import Cancel
from bkrules.build.run_action import Worker, answer, caches
from bkrules.build.spare import Spares
from bkrules.cache.file_digests import FileDigests
from bkrules.cache.grpc_calls import GrpcCalls
from bkrules.cache.remote_options import RemoteOptions
from bkrules.errors import BkError, Interrupted, RemoteFailed, of_machine
from bkrules.execution.signals import SIGNALS
from bkrules.model import digest, reapi
from bkrules.model.action import from_message
from bkrules.model.digest import Digest
from bkrules.plugin import manager

_ACTION, _DIGEST, _RESULT = (f"build.bazel.remote.execution.v2.{name}" for name in ("Action", "Digest", "ActionResult"))
_TYPES = "type.googleapis.com/"
_OF_ACTION = ("absent-blob", "not-portable", "property", "other-version", "other-machine", "no-worker", "other-worker")
"""The reasons of errors about the action, which its client has to see; a scheduler that tries again tells only that."""
_FAILED_PRECONDITION, _INTERNAL = 9, 13
MOST_DIGESTS = 20_000
"""The limit of files whose digests a worker remembers, about 10 MB."""


def serve(scheduler: RemoteOptions, cache: RemoteOptions, worker: Worker, name: str, jobs: int) -> bool:
    """Run up to `jobs` actions of the scheduler at once, until a signal ends the worker. `cache` has their inputs, and gets
    their outputs. Return whether all actions have run to their end.

    The first SIGTERM, Ctrl-C or SIGHUP lets running actions end, the second ends them. Raises RemoteFailed.
    """
    manager.load()  # here, since in other threads nothing can bound what plugins do
    lock = threading.Lock()

    def say(line: str) -> None:
        with lock:
            print(line, flush=True)

    properties = sorted((key, value) for key, values in worker.offered.items() for value in values)
    with closing(Spares(worker.disk_cache)) as spares:
        run = runner(cache, replace(worker, spares=spares), say)
        bot = Bot(GrpcCalls(scheduler), scheduler.instance, name, properties, jobs, run, say, lack_of(cache, worker))
        say(f"worker {name} of {scheduler.address}, jobs: {jobs}")
        with _on_signal(bot.stop):
            return bot.serve()


def lack_of(cache: RemoteOptions, worker: Worker) -> Callable[[], str]:
    """Return a function that tells why the remote cache gives no answers; empty when it does.

    A server that refuses this one question may have the inputs of actions all the same.
    """

    def lack() -> str:
        _, remote = caches(cache, worker)
        with closing(remote):
            try:
                remote.result(digest.EMPTY)  # nobody has a result of that key
            except RemoteFailed as error:
                return error.message
            return remote.fault if is_lasting(remote.fault) or not remote.answers else ""

    return lack


def runner(cache: RemoteOptions, worker: Worker, say: Callable[[str], None]) -> Run:
    """Return a function that runs the action of a lease. A machine at fault is a status by which another one runs it."""

    def run(payload: reapi.Message, cancel: Cancel) -> reapi.Message:
        nonlocal worker
        key, began = "an action", time.monotonic()
        if worker.digests.count > MOST_DIGESTS:
            worker = replace(worker, digests=FileDigests(""))
        try:
            name = _key(payload)
            key = name.hash
            result = answer(name, cache, worker, cancel)
            if cancel.demanded:  # what ended early may look like a failure
                raise Interrupted("interrupted", "the action was ended")
        except Exception as error:
            is_end = cancel.demanded and isinstance(error, BkError)  # such as a blob that was not fetched to its end
            status = _status(Interrupted("interrupted", "the action was ended") if is_end else error)
            say(f"{key}: {status['message']}")
            return {"status": status}
        code = reapi.decode("ActionResult", result)["exit_code"]
        say(f"{key}: {f'exit code {code}, ' if code else ''}{time.monotonic() - began:.2f}s")
        return {"result": {"type_url": _TYPES + _RESULT, "value": result}}

    return run


def _key(payload: reapi.Message) -> Digest:
    """Return the digest of the action of a lease. Raises RemoteFailed."""
    kind, value = payload["type_url"].rpartition("/")[2], payload["value"]
    if kind == _ACTION:
        return digest.of_bytes(value)
    try:
        if kind == _DIGEST:
            return from_message(reapi.decode("Digest", value))
    except ValueError as error:
        raise RemoteFailed("not-portable", f"the lease names no action: {error}") from error
    raise RemoteFailed("not-portable", f"the lease is for {kind or 'nothing'}, but this worker runs actions")


def _status(error: Exception) -> reapi.Message:
    """Return the status of a lease whose action could not run. INTERNAL and UNAVAILABLE let another machine run it."""
    if isinstance(error, OSError):
        error = of_machine(error) or error
    if isinstance(error, Interrupted):
        return {"code": UNAVAILABLE, "message": "the worker has ended the action"}
    if isinstance(error, BkError):
        return {"code": _FAILED_PRECONDITION if error.reason in _OF_ACTION else UNAVAILABLE, "message": str(error)}
    return {"code": _INTERNAL, "message": f"this is a bug of bk: {type(error).__name__}: {error}"}


@contextmanager
def _on_signal(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` for each signal that ends a process, but for those that are ignored."""
    before = {number: handler for number in SIGNALS if (handler := signal.getsignal(number)) is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, lambda _number, _frame: stop())
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""The profile of a build as a Chrome trace: open it with chrome://tracing or https://ui.perfetto.dev.

The format is that of `bazel build --profile`: the JSON object format of the Trace Event Format. A row is a thread. An
action that waits for a job slot has no thread yet, so its wait is an asynchronous event.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

from bkrules.cache import atomic
from bkrules.execution.layout import RESULT
from bkrules.model.action import Action

Answer = TypeVar("Answer")
_PROCESS = 1
_PHASES = ("setup", "boot", "run", "teardown")  # of a cell, in their order, as its result has them
_SHOWN = {"setup": "set up", "boot": "boot", "run": "test", "teardown": "tear down"}


class NoProfile:
    """A profile that records nothing."""

    def span(self, _name: str, _category: str) -> AbstractContextManager[None]:
        """Return a context that is recorded as a span of its thread."""
        return nullcontext()

    def traced(self, function: Callable[[Action], Answer], _category: str) -> Callable[[Action], Answer]:
        """Return a function of an action, each call of which is a span; without a profile, the function itself."""
        return function

    def action(self, _action: Action) -> AbstractContextManager[None]:
        """Return a context in which an action runs."""
        return nullcontext()

    def begin_wait(self, action: Action) -> None:
        """Record that an action waits for a job slot."""

    def end_wait(self, action: Action) -> None:
        """Record that an action has a job slot."""

    def phases(self, outputs: Mapping[str, str]) -> None:
        """Record the phases of a cell that has just ended, from its files; nothing for other actions."""

    def write(self, path: str) -> None:
        """Write the profile."""


class Profile(NoProfile):
    """Records the spans of a build from all of its threads; `write` writes them to a file."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._started = time.time()
        self._events: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._rows: dict[int, str] = {}

    @contextmanager
    def span(self, name: str, category: str) -> Iterator[None]:
        """Record a context as a span of its thread, however it ends."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._add(name, category, began, time.monotonic())

    def traced(self, function: Callable[[Action], Answer], category: str) -> Callable[[Action], Answer]:
        """Return a function of an action, each call of which is a span."""

        def call(action: Action) -> Answer:
            with self.span(action.title, category):
                return function(action)

        return call

    @contextmanager
    def action(self, action: Action) -> Iterator[None]:
        """Record a context in which an action runs."""
        began = time.monotonic()
        try:
            yield
        finally:
            details = {"mnemonic": action.mnemonic, "label": str(action.label), "id": action.id}
            self._add(f"{action.mnemonic} {action.title}", "action processing", began, time.monotonic(), details)

    def begin_wait(self, action: Action) -> None:
        """Begin the asynchronous span of an action that waits to run."""
        self._wait("b", action)

    def end_wait(self, action: Action) -> None:
        """End that span."""
        self._wait("e", action)

    def phases(self, outputs: Mapping[str, str]) -> None:
        """Record the phases of a cell that has just ended: their lengths are known, and the last one ended now."""
        if RESULT not in outputs:
            return
        with open(outputs[RESULT], encoding="utf-8") as file:
            seconds: Mapping[str, float] = json.load(file).get("seconds", {})
        end = time.monotonic()
        for phase in reversed(_PHASES):
            if phase in seconds:
                self._add(_SHOWN[phase], "cell", end - seconds[phase], end)
                end -= seconds[phase]

    def write(self, path: str) -> None:
        """Write the trace, compressed when the name ends in `.gz`, as Bazel does.

        An error is only a warning: the build is worth more than its profile.
        """
        names = [
            {"name": "thread_name", "ph": "M", "pid": _PROCESS, "tid": row, "args": {"name": name}}
            for row, name in self._rows.items()
        ]
        document = {
            "otherData": {"build": "bk", "start": self._started, "cores": os.cpu_count()},
            "traceEvents": [*names, *self._events],
        }
        data = json.dumps(document).encode()
        if path.endswith(".gz"):
            import gzip

            data = gzip.compress(data)
        try:
            atomic.write(path, data)
        except OSError as error:
            print(f"warning: cannot write the profile {path}: {error.strerror}", file=sys.stderr)

    def _wait(self, phase: str, action: Action) -> None:
        event = {
            "name": action.title,
            "cat": "wait for a job slot",
            "ph": phase,
            "id": action.id,
            "ts": self._time(time.monotonic()),
        }
        self._events.append({**event, "pid": _PROCESS, "tid": self._row()})

    def _add(
        self, name: str, category: str, began: float, ended: float, details: Mapping[str, str] | None = None
    ) -> None:
        event = {"name": name, "cat": category, "ph": "X", "ts": self._time(began), "dur": round((ended - began) * 1e6)}
        self._events.append({**event, "pid": _PROCESS, "tid": self._row(), "args": dict(details or {})})

    def _time(self, moment: float) -> int:
        """Return microseconds since the profile began."""
        return round((moment - self._began) * 1e6)

    def _row(self) -> int:
        thread = threading.current_thread()
        row = threading.get_native_id()
        if row not in self._rows:
            with self._lock:
                self._rows[row] = "main" if thread is threading.main_thread() else thread.name
        return row

"""Guards around the code of plugins: bounds for imports, registration hooks and methods of workers."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from glob import glob
from types import FrameType, TracebackType
from typing import TypeVar

T = TypeVar("T")

SECONDS = 30.0
"""The seconds for the import of a plugin, for each registration hook, and for each method of a worker."""


def text_of(error: BaseException, *, named: bool = True) -> str:
    """Return the class and the message of an exception; the class alone when there is no message."""
    kind = type(error).__name__
    try:
        text = str(error)
    except Exception:  # the class is the plugin's
        text = ""
    return f"{kind}: {text}" if text and named else text or kind


class Hung(BaseException):
    """A plugin took too long. It is not an `Exception`, so that a plugin that catches those cannot continue."""


@contextlib.contextmanager
def guarded(seconds: float = SECONDS) -> Iterator[None]:
    """Run a plugin's code with a bound in seconds, its output on standard error, and no process left behind.

    Raises Hung after the bound, and RuntimeError for a process that still runs, which is killed. Call this in the main
    thread only, since only that one receives signals.
    """
    before = _children()
    try:
        with _output_on_stderr(), time_limit(seconds):
            yield
    finally:
        left = sorted(_children() - before)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    if left:
        raise RuntimeError("it started a process that was still running; a plugin starts nothing outside of a cell")


def bounded(call: Callable[[], T], seconds: float = SECONDS) -> T:
    """Return the result of `call`, or raise its exception. Raises Hung when the seconds are over.

    In the main thread a signal ends it, and its output goes to standard error. In a job's thread, which gets no signals
    and shares standard output with others, it runs in a new thread. After the bound, bk abandons this thread: an
    exception ends its Python code, and the end of bk ends the rest.
    """
    if threading.current_thread() is threading.main_thread():
        with _output_on_stderr(), time_limit(seconds):
            return call()
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:  # carried to the calling thread
            outcome.set_exception(error)

    thread = threading.Thread(target=run, name="plugin", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(Hung))
        raise _hung(seconds)
    return outcome.result()


def _hung(seconds: float) -> Hung:
    return Hung(f"it took longer than {seconds:g} s")


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise Hung in the main thread when the code within takes longer than `seconds`.

    An outer limit continues from its remaining time when this one ends.
    """

    def over(_number: int, _frame: FrameType | None) -> None:
        raise _hung(seconds)

    handler = signal.signal(signal.SIGALRM, over)
    # The signal repeats each second, so that code that catches every exception does not continue either.
    rest, _ = signal.setitimer(signal.ITIMER_REAL, seconds, 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, rest)
        signal.signal(signal.SIGALRM, handler)


@contextlib.contextmanager
def _output_on_stderr() -> Iterator[None]:
    """Redirect output to standard error, also of `os.write` and of child processes: `--json` stays JSON."""
    with contextlib.suppress(OSError):  # bk reports at its end what could not be written
        sys.stdout.flush()
    output = os.dup(1)
    try:
        os.dup2(2, 1)
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(output, 1)
        os.close(output)


def _children() -> set[int]:
    """Return the child processes of this process, as far as the kernel lists them."""
    found: set[int] = set()
    for path in glob("/proc/self/task/*/children"):
        with contextlib.suppress(OSError), open(path, encoding="ascii") as file:
            found.update(map(int, file.read().split()))
    return found


def owner_of(error: BaseException, owners: Mapping[str, str]) -> tuple[TracebackType, str] | None:
    """Return the place where code of one of `owners`, by the name of its outermost module or package, raised, and its owner.

    None when it was none of them. The frame is the outermost one of that owner.
    """
    trace = error.__traceback__
    while trace is not None:
        owner = owners.get(trace.tb_frame.f_globals.get("__name__", "").partition(".")[0])
        if owner is not None:
            return trace, owner
        trace = trace.tb_next
    return None


def is_of_pluggy(error: BaseException) -> bool:
    """Return whether pluggy itself raised, as it does for a wrapper that yields twice or never."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals.get("__name__", "").partition(".")[0] == "pluggy"

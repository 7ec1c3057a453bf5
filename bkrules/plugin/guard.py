"""What surrounds the code of a plugin when bk imports it, asks it for its workers, and calls the methods of those."""

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
"""How long a plugin may take to be imported, to answer a registration hook, and for each method of a worker."""


def text_of(error: BaseException, *, named: bool = True) -> str:
    """Return the message of what a plugin raised, behind the name of its class; that name alone when there is no message."""
    kind = type(error).__name__
    try:
        text = str(error)
    except Exception:  # the class is the plugin's
        text = ""
    return f"{kind}: {text}" if text and named else text or kind


class Hung(BaseException):
    """A plugin took too long. No `Exception`, so that a plugin that catches those cannot go on."""


@contextlib.contextmanager
def guarded(seconds: float = SECONDS) -> Iterator[None]:
    """Run a plugin's code with a bound in seconds, its output on standard error, and no process left behind.

    Raises Hung when the seconds are over, and RuntimeError for a process that still runs, which is killed.
    Called in the main thread alone, since only that one receives signals.
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
    """Return what `call` returns, or raise what it raises. Raises Hung when the seconds are over.

    In the main thread a signal ends it, and its output goes to standard error. In a job's thread, which gets no signals and shares
    standard output with others, it runs in a thread of its own, which is left behind when the seconds are over: an exception ends
    what it runs of Python, and the end of bk ends the rest.
    """
    if threading.current_thread() is threading.main_thread():
        with _output_on_stderr(), time_limit(seconds):
            return call()
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:  # carried to the thread that asked
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
    """Raise Hung in the main thread when the code within takes longer than so many seconds.

    Within another limit, that one counts on from where it stood when this one ends.
    """

    def over(_number: int, _frame: FrameType | None) -> None:
        raise _hung(seconds)

    handler = signal.signal(signal.SIGALRM, over)
    # The signal comes again each second, so that code that catches every exception does not go on either.
    rest, _ = signal.setitimer(signal.ITIMER_REAL, seconds, 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, rest)
        signal.signal(signal.SIGALRM, handler)


@contextlib.contextmanager
def _output_on_stderr() -> Iterator[None]:
    """Send what is printed to standard error, also by `os.write` and by child processes: `--json` stays JSON."""
    with contextlib.suppress(OSError):  # what cannot be written is bk's to say, at its end
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
    """The child processes of this process, as far as the kernel lists them."""
    found: set[int] = set()
    for path in glob("/proc/self/task/*/children"):
        with contextlib.suppress(OSError), open(path, encoding="ascii") as file:
            found.update(map(int, file.read().split()))
    return found


def owner_of(error: BaseException, owners: Mapping[str, str]) -> tuple[TracebackType, str] | None:
    """Return where code of one of `owners`, by the name of its outermost module or package, raised, and its owner.

    None when it was nobody's. The frame is the outermost one of that owner.
    """
    trace = error.__traceback__
    while trace is not None:
        owner = owners.get(trace.tb_frame.f_globals.get("__name__", "").partition(".")[0])
        if owner is not None:
            return trace, owner
        trace = trace.tb_next
    return None

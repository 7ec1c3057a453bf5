"""The backstop behind the list of syntax: an audit hook that sees every attempt to leave the interpreter.

While a build file is evaluated, every audit event of its thread ends the loading: opening a file or a socket, starting
a process, an import, compiling, inspecting frames or functions. Python cannot remove such a hook, so one hook lives as
long as the process; it does nothing at other times.
"""

from __future__ import annotations

import gc
import sys
from _thread import get_ident
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import CodeType, FrameType
from typing import Any

from bkrules.errors import LoadError

Refuse = Callable[[str, FrameType], LoadError]


class _Watch:
    """The running code, its thread, the function that makes the error, and the first error."""

    def __init__(self, code: CodeType, refuse: Refuse) -> None:
        self.code = code
        self.thread = get_ident()
        self.refuse = refuse
        self.escape: LoadError | None = None


_watch: _Watch | None = None
_installed = False


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    global _watch
    watch = _watch
    if watch is None or get_ident() != watch.thread or (event == "exec" and arguments[0] is watch.code):
        return
    _watch = None  # inspecting frames is an audit event too
    try:
        error = watch.refuse(event, sys._getframe(1))
    finally:
        _watch = watch
    watch.escape = watch.escape or error
    raise error


def run(code: CodeType, scope: dict[str, Any], refuse: Refuse) -> None:
    """Evaluate code under the hook. `refuse` makes the LoadError from an event and its frame. Raises that error."""
    watch = _Watch(code, refuse)
    try:
        with _watching(watch):
            exec(code, scope)
    finally:
        if watch.escape is not None:  # also when the code swallowed it
            raise watch.escape


@contextmanager
def _watching(watch: _Watch) -> Iterator[None]:
    global _watch, _installed
    if not _installed:
        sys.addaudithook(_hook)
        _installed = True
    collects = gc.isenabled()
    gc.disable()  # a finalizer of another object may close files, and must not be stopped
    _watch = watch
    try:
        yield
    finally:
        _watch = None
        if collects:
            gc.enable()


def trusted(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of the loader that build files call: it may inspect frames and read files."""

    @wraps(function)
    def call(*args: Any, **keywords: Any) -> Any:
        global _watch
        watch, _watch = _watch, None
        try:
            return function(*args, **keywords)
        finally:
            _watch = watch

    return call

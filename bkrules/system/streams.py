"""bk's standard streams, made so that printing never fails a build.

They may be closed (cron, `>&-`), full (`/dev/full`), a pipe whose reader is gone (`| head`), or a non-blocking pipe.
They are UTF-8, whatever the locale, and characters that UTF-8 cannot encode are escaped. bk reports at the end that it
could not write to standard output, unless the reader is gone. Text that cannot be written to standard error is lost.
"""

from __future__ import annotations

import errno
import io
import os
import sys

_NULL = "/dev/null"
_GONE = (errno.EPIPE, errno.ECONNRESET)
_output: _Raw | None = None


class _Raw(io.FileIO):
    """A descriptor that accepts all writes. `fault` is its first error, `is_gone` whether its reader is gone."""

    fault: OSError | None = None
    is_gone = False

    def write(self, data: object) -> int:
        view = memoryview(data).cast("B")  # type: ignore[arg-type]  # what a buffer is handed
        done = 0
        while done < len(view) and self.fault is None and not self.is_gone:
            try:
                done += super().write(view[done:]) or self._wait()
            except OSError as error:
                self.is_gone = error.errno in _GONE
                self.fault = None if self.is_gone else error
        return len(view)

    def _wait(self) -> int:
        """Wait until a non-blocking pipe accepts more; return no bytes."""
        import select

        poll = select.poll()
        poll.register(self.fileno(), select.POLLOUT)
        poll.poll()
        return 0


def prepare() -> None:
    """Make the standard streams safe to use. Call this first, once."""
    global _output
    for descriptor, flags in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(_NULL, flags)  # `os.open` takes the lowest free number; otherwise a file of bk would get it
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115 - it lives as long as the process
    _output = _Raw(1, "w", closefd=False)
    sys.stdout = _text(_output)
    sys.stderr = _text(_Raw(2, "w", closefd=False), line_buffering=True)


def _text(raw: _Raw, *, line_buffering: bool = False) -> io.TextIOWrapper:
    buffered = io.BufferedWriter(raw)
    return io.TextIOWrapper(
        buffered, encoding="utf-8", errors="backslashreplace", line_buffering=line_buffering or raw.isatty()
    )


def finish() -> OSError | None:
    """Flush standard output. Return the reason when some of it could not be written."""
    if _output is None:
        return None
    sys.stdout.flush()
    return _output.fault


def use_utf8(argv: list[str]) -> None:
    """Restart the interpreter when the locale encodes file names in another encoding than UTF-8; `argv` is the
    interpreter's own.
    """
    if sys.getfilesystemencoding() != "utf-8":
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *argv[1:]])

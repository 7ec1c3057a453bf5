"""bk's standard streams: whatever they are, printing is no reason for a build to fail.

They may be closed (cron, `>&-`), full (`/dev/full`), a pipe whose reader is gone (`| head`), or a pipe that does not wait. They are
UTF-8, whatever the locale, and what UTF-8 cannot hold is shown as an escape. What cannot be printed on standard output is a fault
that is said at the end, unless nobody listens any more; what cannot be printed on standard error is lost.
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
    """A descriptor that takes all that is written to it. `fault` is the first error of it, `is_gone` whether its reader is gone."""

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
        """Wait until a pipe that does not wait by itself takes more; no bytes."""
        import select

        poll = select.poll()
        poll.register(self.fileno(), select.POLLOUT)
        poll.poll()
        return 0


def prepare() -> None:
    """Make the standard streams safe to use. Called first of all, once."""
    global _output
    for descriptor, flags in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(_NULL, flags)  # takes the lowest number that is free; else a file of bk's would get it
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
    """Print what is left; why not all of standard output could be written, if so."""
    if _output is None:
        return None
    sys.stdout.flush()
    return _output.fault


def use_utf8(argv: list[str]) -> None:
    """Begin anew when this machine's locale names files in another encoding than UTF-8; `argv` is the interpreter's own."""
    if sys.getfilesystemencoding() != "utf-8":
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *argv[1:]])

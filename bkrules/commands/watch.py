"""`bk test --watch`: the same command again whenever a file of the workspace changes, until Ctrl-C."""

from __future__ import annotations

import argparse
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing

from bkrules import errors
from bkrules.errors import MachineLacks
from bkrules.loading.glob import OUTPUT
from bkrules.loading.root import find_root
from bkrules.system.watching import Watch

OPTION = "--watch"
_OFF = "--nowatch"
_NEVER = (OUTPUT, "__pycache__", "node_modules")


def add_watch(parser: argparse.ArgumentParser) -> None:
    """Add the option to a command."""
    text = "run again whenever a file of the workspace changes; Ctrl-C ends with exit code 8"
    parser.add_argument(OPTION, action="store_true", help=text)
    parser.add_argument(_OFF, dest="watch", action="store_false", help="undoes the same option of a .bkrc")


def watch(argv: Sequence[str]) -> int:
    """Run the command line again and again. Return the exit code of an interrupted command. Raises MachineLacks.

    Each run is a process, since an answer of bk depends on files as they were when it first looked at them. The results that the
    change does not affect come from the cache.
    """
    root = find_root(".")
    before = sys.orig_argv[: len(sys.orig_argv) - len(sys.argv) + 1]
    words = [word for word in argv if word != OPTION]
    place = words.index("--") if "--" in words else len(words)
    command = [*before, *words[:place], _OFF, *words[place:]]
    try:
        with closing(Watch(root, _is_watched)) as changes:
            while _run(command) != errors.INTERRUPTED:
                print("bk: waiting for a change (Ctrl-C ends)", file=sys.stderr, flush=True)
                changed = sorted(os.path.relpath(path, root) for path in changes.wait())
                more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
                print(f"bk: {changed[0]}{more} changed", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        pass  # the wait ended
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EMFILE):
            raise
        hint = "allow more:  sysctl fs.inotify.max_user_watches=524288 fs.inotify.max_user_instances=1024"
        raise MachineLacks(
            "inotify", f"this user watches as many folders as the kernel allows: {root}", hint=hint
        ) from error
    print("interrupted", file=sys.stderr)
    return errors.INTERRUPTED


def _is_watched(name: str) -> bool:
    """Return whether a file or folder of that name matters: not what bk, Python or an editor keep next to sources."""
    return name not in _NEVER and not name.endswith(("~", ".swp")) and (not name.startswith(".") or name == ".bkrc")


def _run(command: Sequence[str]) -> int:
    """Run a command to its end. Ctrl-C reaches it from the terminal; other signals that end bk are passed on."""
    with subprocess.Popen(command) as process:
        is_asked = False

        def pass_on(number: int, _: object) -> None:
            nonlocal is_asked
            is_asked = True
            if number != signal.SIGINT or not _has_terminal():
                process.send_signal(number)

        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        handlers = [signal.signal(number, pass_on) for number in numbers]
        try:
            code = process.wait()
        finally:
            for number, handler in zip(numbers, handlers, strict=True):
                signal.signal(number, handler)
    return errors.INTERRUPTED if is_asked else code


def _has_terminal() -> bool:
    """Return whether this process is in the foreground of a terminal, whose Ctrl-C goes to all processes there."""
    return any(os.isatty(descriptor) and os.tcgetpgrp(descriptor) == os.getpgrp() for descriptor in (0, 1, 2))

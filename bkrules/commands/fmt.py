"""`bk fmt`: build files, written in one way."""

from __future__ import annotations

import argparse
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from bkrules import errors
from bkrules.cache import atomic
from bkrules.commands.parser import command
from bkrules.errors import BkError, UsageError, error_text
from bkrules.loading.glob import BUILD_FILE, OUTPUT
from bkrules.loading.root import MARKER, find_root
from bkrules.system.files import read_regular

if TYPE_CHECKING:
    from bkrules.commands.parser import Commands

_STDIN = "-"


def add(commands: Commands) -> None:
    """Add the command of this module to the parser."""
    fmt = command(commands, "fmt", _fmt, "write build files in one way")
    fmt.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help=f"build files and macro files, folders for all {BUILD_FILE} and {MARKER} below them (default: the workspace), "
        "or - for standard input",
    )
    fmt.add_argument(
        "--check", action="store_true", help="write nothing; name the files that would change, with exit code 1"
    )


def _fmt(arguments: argparse.Namespace) -> int:
    from bkrules.style.build_files import formatted

    if _STDIN in arguments.files:
        if arguments.files != [_STDIN] or arguments.check:
            raise UsageError("usage", "bk fmt: - stands alone, without files and --check", hint="see `bk fmt --help`")
        sys.stdout.buffer.write(formatted(sys.stdin.buffer.read(), "<stdin>"))
        return errors.SUCCESS
    code = errors.SUCCESS
    for path in _files(arguments.files or [find_root(".")]):
        try:
            before = read_regular(path)
            after = formatted(before, os.path.relpath(path))
        except BkError as error:
            if error.exit_code == errors.MACHINE_LACKS:
                raise
            print(error_text(error), file=sys.stderr)
            code = errors.BUILD_FAILED
            continue
        if after == before:
            continue
        if arguments.check:
            code = errors.BUILD_FAILED
        else:
            target = os.path.realpath(path)
            atomic.write(target, after, stat.S_IMODE(os.stat(target).st_mode))
        print(f"{'would change' if arguments.check else 'changed'} {os.path.relpath(path)}")
    return code


def _files(paths: Sequence[str]) -> Iterator[str]:
    """Yield the files that the words of the command line name, each once. Raises UsageError for a missing one."""
    for path in dict.fromkeys(paths):
        if os.path.isdir(path):
            yield from _below(path)
        elif os.path.isfile(path):
            yield path
        else:
            raise UsageError("no-file", f"bk fmt: {path} is no file and no folder", hint="name build files, or nothing")


def _below(folder: str) -> Iterator[str]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != OUTPUT)
        yield from (os.path.join(parent, name) for name in (MARKER, BUILD_FILE) if name in names)

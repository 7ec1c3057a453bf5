"""The command line: arguments become a call, a result becomes an exit code."""

from __future__ import annotations

import argparse
import gc
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence

from bkrules import __version__, errors
from bkrules.commands import build, cache, ci, doctor, logs, mirror, plugin, query, rc, sessions, why, workers
from bkrules.commands.arguments import Parser, spelled_out
from bkrules.errors import BkError, UsageError
from bkrules.loading.workspace import root_of
from bkrules.report.summary import error_text

EPILOG = """exit codes:
  0 success   1 build failed   2 wrong usage   3 tests failed   4 nothing ran
  8 interrupted   36 this machine lacks something   37 a bug of bk"""

COMMANDS = (build, query, workers, plugin, why, sessions, logs, cache, doctor, mirror, ci)

# What loading and analysis make lives to the end, so looking through it for garbage again and again finds none.
_MANY_OBJECTS = 100_000


def main(argv: Sequence[str]) -> int:
    """Run one command; its exit code. Prints errors that a user can act on, and a traceback for a bug."""
    gc.set_threshold(_MANY_OBJECTS)
    try:
        arguments = _parse(argv)
        arguments.argv = list(argv)
        command: Callable[[argparse.Namespace], int] = arguments.command
        return command(arguments)
    except BkError as error:
        print(error_text(error), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return errors.INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return errors.SUCCESS
    except Exception as error:
        lack = errors.of_machine(error) if isinstance(error, OSError) else None
        if lack is not None:
            print(error_text(lack), file=sys.stderr)
            return lack.exit_code
        traceback.print_exc()
        print("error: this is a bug of bk; please report the lines above", file=sys.stderr)
        return errors.BUG


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments, with what the rc files say; `after` is what stands behind `--` of a command that runs another."""
    parser, commands = _parser()
    words = list(argv)
    runs_another = "--" in words and rc.split(parser, words)[1] in sessions.NAMES
    place = words.index("--") if runs_another else len(words)
    arguments = _parsed(parser, commands, words[:place])
    arguments.after = words[place + 1 :]
    return arguments


def _parsed(parser: Parser, commands: dict[str, Parser], argv: Sequence[str]) -> argparse.Namespace:
    """The arguments, with what the rc files say. Raises UsageError."""
    first, command, words = rc.split(parser, [spelled_out(word) for word in argv])
    if command not in commands:
        return parser.parse_args([*first, *([command] if command else []), *words])
    files = _startup().parse_known_args(first)[0]
    lines = rc.read(
        None if files.norc or files.noworkspace_rc else root_of("."),
        None if files.norc or files.nohome_rc else os.environ.get("HOME"),
        () if files.norc else files.bkrc,
    )
    options, rest = rc.RcFiles(commands, lines).applied(command, words)
    try:
        return parser.parse_args([*first, command, *_words(options), *rest])
    except UsageError as error:
        own = [*_words(line for line in options if not line.where), *rest]
        parser.parse_args([command, *own])  # what is wrong with these is not the files' fault
        for line in options:
            try:
                parser.parse_args([command, *line.words, *own])
            except UsageError as fault:
                raise UsageError(fault.reason, fault.message, where=line.where, hint=fault.hint) from error
        raise


def _words(lines: Iterable[rc.Line]) -> list[str]:
    return [word for line in lines for word in line.words]


def _startup() -> Parser:
    """The options that stand before the command."""
    parser = Parser(prog="bk", add_help=False)
    parser.add_argument("--norc", "--ignore_all_rc_files", action="store_true", help="read no .bkrc")
    parser.add_argument("--noworkspace_rc", action="store_true", help="leave out the .bkrc beside WORKSPACE.py")
    parser.add_argument("--nohome_rc", action="store_true", help="leave out ~/.bkrc")
    parser.add_argument("--bkrc", action="append", default=[], metavar="FILE", help="one more .bkrc, after the others")
    return parser


def _parser() -> tuple[Parser, dict[str, Parser]]:
    """The parser of the whole command line, and those of the commands."""
    parser = Parser(
        parents=[_startup()],
        prog="bk",
        description="Tests container builds on every BuildKit worker.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"bk {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for module in COMMANDS:
        module.add(commands)
    return parser, dict(commands.choices)

"""The command line: arguments become a call, a result becomes an exit code."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence

from bkrules import __version__, errors
from bkrules.commands import build, cache, query, why, workers
from bkrules.commands.arguments import Parser, spelled_out
from bkrules.errors import BkError
from bkrules.report.summary import error_text

EPILOG = """exit codes:
  0 success   1 build failed   2 wrong usage   3 tests failed   4 nothing ran
  8 interrupted   36 this machine lacks something   37 a bug of bk"""

COMMANDS = (build, query, workers, why, cache)


def main(argv: Sequence[str]) -> int:
    """Run one command; its exit code. Prints errors that a user can act on, and a traceback for a bug."""
    try:
        arguments = _parser().parse_args([spelled_out(word) for word in argv])
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


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="bk",
        description="Tests container builds on every BuildKit worker.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"bk {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for module in COMMANDS:
        module.add(commands)
    return parser

"""The command line: turns arguments into a call, and its result into an exit code."""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module

from bkrules import __version__, errors
from bkrules.build import early_actions
from bkrules.commands import rc, variables
from bkrules.commands.parser import Parser, spelled_out, startup
from bkrules.errors import BkError, UsageError, did_you_mean, error_text
from bkrules.loading.root import root_of
from bkrules.system import colours

EPILOG = """exit codes:
  0 success   1 build failed   2 wrong usage   3 tests failed   4 nothing ran
  5 another outcome (replay)   8 interrupted   34 a remote cache or engine failed   36 this machine lacks something
  37 a bug of bk"""

MODULES = {
    "init": ("init",),
    "build": ("build", "test"),
    "query": ("query", "aquery"),
    "workers": ("workers",),
    "plugin": ("plugin",),
    "why": ("why",),
    "sessions": ("run", "shell"),
    "logs": ("logs",),
    "report": ("report",),
    "cache": ("cache", "clean", "reap"),
    "run_action": ("run-action",),
    "worker": ("worker",),
    "doctor": ("doctor",),
    "mirror": ("mirror",),
    "ci": ("ci",),
    "go": ("go",),
    "pin": ("pin",),
    "bisect": ("bisect",),
    "repro": ("repro", "replay"),
    "record": ("record",),
    "completion": ("completion",),
    "help": ("help",),
    "fmt": ("fmt",),
}
"""The modules of `bkrules.commands` and the commands of each. bk imports only the module of a known command."""

OF_ALL = ("completion", "help")
"""Commands that tell of all commands."""
RUN_ANOTHER = ("run", "shell", "record")
"""Commands that take the words of another command after `--`."""
HANDS_ON = ("go",)
"""Commands that take the words of another command after bk's own options, each of which is one word: `--name=value`."""


def main(argv: Sequence[str]) -> int:
    """Run one command. Return its exit code. Prints errors that a user can act on, and a traceback for a bug."""
    try:
        _prepare_signals()
        _check_folder()
        arguments = prepared(argv)
        variables.warn(arguments)
        command: Callable[[argparse.Namespace], int] = arguments.command
        return command(arguments)
    except BkError as error:
        _print(error, argv)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return errors.INTERRUPTED
    except SystemExit as end:
        fault = _of_plugin(end)
        if fault is None:
            raise
        _print(fault, argv)
        return fault.exit_code
    except Exception as error:
        lack = errors.of_machine(error) if isinstance(error, OSError) else None
        known = _of_plugin(error) or lack
        if known is not None:
            _print(known, argv)
            return known.exit_code
        import traceback

        traceback.print_exc()
        print("error: this is a bug of bk; please report the lines above", file=sys.stderr)
        return errors.BUG


def _print(error: BkError, argv: Sequence[str]) -> None:
    """Print an error, in colours when the command line or the terminal wants them."""
    choice = next((word.partition("=")[2] for word in reversed(argv) if word.startswith("--color=")), "auto")
    text = error_text(error)
    print(colours.painted(text) if colours.wanted(sys.stderr, choice) else text, file=sys.stderr)
    if os.environ.get("GITHUB_ACTIONS") == "true":
        from bkrules.report.ci import current_ci

        for line in current_ci().annotation(error.where, root_of(".") or "", error.message):
            print(line, file=sys.stderr)


def prepared(argv: Sequence[str]) -> argparse.Namespace:
    """Return the parsed arguments of a command, whose caches, plugins and modules are those of this process from now on.

    Raises UsageError.
    """
    arguments = _parse(argv)
    arguments.argv = list(argv)
    early_actions.disk_cache = os.path.abspath(arguments.disk_cache) if "disk_cache" in arguments else ""
    errors.PLACES.clear()
    if early_actions.disk_cache:
        errors.PLACES[errors.CACHE] = early_actions.disk_cache
    early_actions.remote_cache, early_actions.runs_cells = None, False
    if getattr(arguments, "remote_cache", "") or getattr(arguments, "remote_executor", ""):
        from bkrules.commands.remote_arguments import remote_of

        early_actions.remote_cache = remote_of(arguments)
    if arguments.noplugin or "bkrules.plugin.manager" in sys.modules:
        from bkrules.plugin import manager

        manager.block(arguments.noplugin)
    if getattr(arguments, "override_module", None) or "bkrules.loading.modules" in sys.modules:
        from bkrules.commands.own_files import module_folders
        from bkrules.loading import modules

        modules.override(module_folders(arguments))
    return arguments


def _of_plugin(error: BaseException) -> BkError | None:
    """Return an error that names the plugin whose code raised; None when the code was bk's own."""
    if "bkrules.plugin.manager" not in sys.modules:
        return None
    from bkrules.plugin.manager import blamed

    return blamed(error)


def _prepare_signals() -> None:
    """End bk in order at SIGTERM, and at SIGHUP of a closed terminal. Signals ignored when bk began, as by `nohup`,
    stay ignored, but not SIGCHLD: without it, the kernel forgets the exit codes of children.
    """
    if threading.current_thread() is threading.main_thread():
        signal.pthread_sigmask(
            signal.SIG_SETMASK, []
        )  # the process that started bk may have blocked all signals, and those of bk's children with them
        if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, signal.default_int_handler)


def _check_folder() -> None:
    """Raise UsageError when the working folder has been removed."""
    try:
        os.getcwd()
    except FileNotFoundError:
        message = "the working folder was removed"
        raise UsageError("no-folder", message, hint="change to an existing folder") from None


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    """Return the parsed arguments, with the options of the rc files; `after` are the words after `--`."""
    words = list(argv)
    place = _own(words)
    arguments = _parsed(words[:place])
    arguments.after = words[place:][words[place : place + 1] == ["--"] :]
    return arguments


def _own(words: Sequence[str]) -> int:
    """Return the number of words that are bk's, and not those of another command."""
    if "--" not in words and not set(HANDS_ON).intersection(words):
        return len(words)
    _, command, rest = rc.split(startup(), words)
    if command in HANDS_ON:
        places = range(len(words) - len(rest), len(words))
        return next((place for place in places if not re.match("--.", words[place])), len(words))
    return words.index("--") if "--" in words and command in RUN_ANOTHER else len(words)


def _parsed(argv: Sequence[str]) -> argparse.Namespace:
    """Return the parsed arguments, with the options of the rc files. Raises UsageError."""
    before = startup()
    first, command, words = rc.split(before, [spelled_out(word) for word in argv])
    own = [module for module, commands in MODULES.items() if command in commands]
    is_help = not {"-h", "--help"}.isdisjoint(first)
    if not command or is_help:
        return _parser(MODULES, plugins=is_help)[0].parse_args(first)
    files = before.parse_known_args(first)[0]
    lines = rc.read(
        None if files.norc or files.noworkspace_rc else root_of("."),
        None if files.norc or files.nohome_rc else os.environ.get("HOME"),
        () if files.norc else files.bkrc,
    )
    known = {rc.COMMON, *(name for commands in MODULES.values() for name in commands)}
    is_of_all = command in OF_ALL
    plugins = not own or is_of_all or not known.issuperset(line.command for line in lines)
    parser, commands = _parser(MODULES if lines or not own or is_of_all else own, command, words, plugins=plugins)
    if command not in commands:
        hint = did_you_mean(command, commands, "commands")
        raise UsageError("unknown-command", f"bk has no command {command!r}", hint=hint)
    options, rest = rc.RcFiles(commands, lines).applied(command, words)
    try:
        return parser.parse_args([*first, command, *_words(options), *rest])
    except UsageError as error:
        own = [*_words(line for line in options if not line.where), *rest]
        parser.parse_args([command, *own])  # the rc files are not at fault for these
        for line in options:
            try:
                parser.parse_args([command, *line.words, *own])
            except UsageError as fault:
                raise UsageError(fault.reason, fault.message, where=line.where, hint=fault.hint) from error
        raise


def _words(lines: Iterable[rc.Line]) -> list[str]:
    return [word for line in lines for word in line.words]


def _parser(
    modules: Iterable[str], wanted: str = "", words: Sequence[str] = (), *, plugins: bool = False
) -> tuple[Parser, dict[str, Parser]]:
    """Return the parser of the whole command line, and those of the commands of these modules, and of `plugins` too.

    `wanted` is the command of the line, and `words` follow it.
    """
    parser = Parser(
        parents=[startup()],
        prog="bk",
        description="Tests container builds on every BuildKit worker.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"bk {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for module in modules:
        import_module(f"bkrules.commands.{module}").add(commands)
    if plugins:
        from bkrules.commands.plugins import add_commands

        add_commands(commands, wanted, words)
    return parser, dict(commands.choices)

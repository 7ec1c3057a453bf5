"""The parser of command lines, and the arguments that most commands share."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from bkrules import errors
from bkrules.build.request import default_cache
from bkrules.errors import BkError, UsageError

PARSER = "parser"
"""The name under which parsed arguments have the parser of their command."""


_REQUIRED = "the following arguments are required"
"""The beginning of argparse's words for a missing argument."""


class Parser(argparse.ArgumentParser):
    """A parser that raises bk's errors. Options cannot be abbreviated, as in Bazel: a new option must not change the
    meaning of existing command lines.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{**settings, "allow_abbrev": False})
        self._line: Sequence[str] = ()

    def format_help(self) -> str:
        """Return the help. Its first line names no option, since the options follow, each with its explanation."""
        if self.usage is None:
            self.usage = " ".join([self.prog.replace("%", "%%"), "[OPTION...]", *map(_shown, self.words())])
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        if message.startswith(_REQUIRED) and (unknown := self._unknown()):
            message = f"unrecognized arguments: {unknown}"  # likelier than a forgotten word
        # a misspelt word may be a secret too; the errors of an option of bk contain none
        message = re.sub(r"(?<!^argument )(?<!-)(--?remote[^=\s]*[= ]).*", r"\1...", message)
        raise UsageError("usage", f"{self.prog}: {message}", hint=f"{self._near(message)}see `{self.prog} --help`")

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Return the parsed arguments, and the words that are none of this parser's."""
        self._line = args or ()
        return super().parse_known_args(args, namespace)

    def _unknown(self) -> str:
        """Return the first option of the parsed line that this parser does not have, or an empty text."""
        names = [word.partition("=")[0] for word in self._line if word.startswith("--") and word != "--"]
        known = {name.replace("-", "_") for name in self.options()}
        return next((name for name in names if name.replace("-", "_") not in known), "")

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: None = None
    ) -> argparse.Namespace:
        """Return the parsed arguments. Raises UsageError, for an unknown option of a command with the nearest one."""
        arguments, rest = self.parse_known_args(args, namespace)
        if rest:
            whose: Parser = getattr(arguments, PARSER, self)
            whose.error(f"unrecognized arguments: {' '.join(rest)}")
        return arguments

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuse a value that is no choice. The words of argparse differ from one Python to the next."""
        if action.choices is not None and value not in action.choices:
            choices = ", ".join(map(str, action.choices))
            raise argparse.ArgumentError(action, f"must be one of {choices}, but was {value!r}")

    def _near(self, message: str) -> str:
        """Return the question whether the nearest option was meant, or where another command's words belong; mostly empty."""
        words = message.partition("unrecognized arguments: ")[2].split()
        if " -- " in (self.usage or "") and not all(word.startswith("-") for word in words):
            return "the words of the command come after `--`; "
        match = re.search(r"unrecognized arguments: (--[\w-]+)", message)
        options = [name for name in self.options() if name.startswith("--")]
        near = match and difflib.get_close_matches(match[1].replace("-", "_").replace("__", "--", 1), options, n=1)
        return f"did you mean {near[0]}? " if near else ""

    def options(self) -> dict[str, argparse.Action]:
        """Return the options by each of their spellings."""
        return self._option_string_actions  # argparse has no public list of them

    def words(self) -> list[argparse.Action]:
        """Return the arguments that are not options, in their order."""
        return self._get_positional_actions()

    def option(self, name: str) -> argparse.Action | None:
        """Return the option of that name, or None."""
        return self.options().get(name)


def _shown(action: argparse.Action) -> str:
    name = action.metavar if isinstance(action.metavar, str) else "|".join(map(str, action.choices or [action.dest]))
    return {"+": f"{name}...", "*": f"[{name}...]", "?": f"[{name}]"}.get(str(action.nargs), name)


if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[Parser]  # argparse has no public name for what add_subparsers returns


def spelled_out(word: str) -> str:
    """Return a word of a command line as argparse understands it.

    argparse would take the pattern `-//x` for an option; with a leading space it does not. It has no options with
    optional values that are never in the next word.
    """
    if word.startswith(("-//", "-@")):
        return f" {word}"
    return "-t" if word.replace("-", "_") == "__cache_test_results" else word


def summaries(commands: Commands) -> dict[str, str]:
    """Return what each command does, in one line."""
    return {action.dest: action.help or "" for action in commands._get_subactions()}  # argparse has no public list


def command(commands: Commands, name: str, run: Callable[[argparse.Namespace], int], text: str) -> Parser:
    """Return a new command, which calls `run`."""
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(**{"command": run, "name": name, PARSER: parser})
    parser.add_argument("--config", metavar="NAME", help="also use the lines of .bkrc files for COMMAND:NAME")
    parser.add_argument("--noplugin", action="append", default=[], metavar="NAME", help="disable this plugin")
    return parser


def startup() -> Parser:
    """Return the options before the command."""
    parser = Parser(prog="bk", add_help=False)
    parser.add_argument("--norc", "--ignore_all_rc_files", action="store_true", help="read no .bkrc")
    parser.add_argument("--noworkspace_rc", action="store_true", help="ignore the .bkrc next to WORKSPACE.py")
    parser.add_argument("--nohome_rc", action="store_true", help="ignore ~/.bkrc")
    parser.add_argument(
        "--bkrc", action="append", default=[], metavar="FILE", help="read this rc file after the others"
    )
    return parser


def add_patterns(parser: argparse.ArgumentParser) -> None:
    """Add target patterns to a command."""
    parser.add_argument("patterns", nargs="+", metavar="PATTERN", help="//pkg:name, //pkg:all, //pkg/..., -//pkg:name")


def patterns_of(arguments: argparse.Namespace) -> list[str]:
    """Return the target patterns of the command line."""
    return [text.strip() for text in arguments.patterns]


def add_cache(parser: argparse.ArgumentParser) -> None:
    """Add `--disk_cache` to a command."""
    parser.add_argument(
        "--disk_cache",
        default=default_cache(),
        type=_utf8,
        metavar="DIR",
        help="where results are kept (default: %(default)s)",
    )


def _utf8(path: str) -> str:
    """Return a path that is valid UTF-8, as configurations and messages between processes are."""
    try:
        path.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"the path is not UTF-8: {path!a}") from None
    return path


def positive(text: str) -> int:
    """Return the value of an option that is a positive whole number."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a positive number, but was {text!r}")
    return int(text)


def nothing(message: str, hint: str) -> BkError:
    """Return the error of a command that found nothing to do."""
    error = BkError("nothing-ran", message, hint=hint)
    error.exit_code = errors.NOTHING_RAN
    return error

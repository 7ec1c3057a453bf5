"""`bk completion`: prints the script that lets a shell complete the command lines of bk."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from bkrules import errors
from bkrules.commands.help import TOPICS
from bkrules.commands.parser import Parser, command, startup, summaries
from bkrules.completion.scripts import SHELLS, script

if TYPE_CHECKING:
    from bkrules.commands.parser import Commands

_KINDS = {
    "FILE": "file",
    "DIR": "file",
    "LABEL": "label",
    "CELL": "cell",
    "WORKER": "worker",
    "PATTERN": "pattern",
    "CELL-or-PATTERN": "cell or pattern",
    "PATTERN-or-REFERENCE": "pattern",
    "PATTERN-or-REPORT": "pattern",
    "EXPRESSION": "pattern",
    "REPORT": "file",
    "RUN": "file",
    "--config": "config",
    "--test_filter": "filter",
}
"""The kind of the values of an option, or of the words of a command, by its name or its metavar."""


def add(commands: Commands) -> None:
    """Add the commands of this module to the parser."""
    completion = command(
        commands, "completion", partial(_completion, commands), "print a completion script for a shell"
    )
    completion.add_argument("shell", choices=SHELLS, metavar="|".join(SHELLS), help="source <(bk completion bash)")


def _completion(commands: Commands, arguments: argparse.Namespace) -> int:
    from bkrules.rules import RULES

    tests = [name for name, rule in sorted(RULES.items()) if rule.is_test]
    print(script(arguments.shell, json.dumps(table(commands, tests), separators=(",", ":"))), end="")
    return errors.SUCCESS


def table(commands: Commands, tests: list[str]) -> dict[str, Any]:
    """Return the options and words of all commands; `tests` are the rules whose targets have cells."""
    texts = summaries(commands)
    return {
        "options": [*_options(startup()), [["--help"], None, ""], [["--version"], None, ""]],
        "commands": {
            name: {
                "help": texts.get(name, ""),
                "options": _options(each),
                "words": _words(name, each, commands.choices),
            }
            for name, each in commands.choices.items()
        },
        "tests": tests,
    }


def _options(parser: Parser) -> list[Any]:
    """Return the options of a parser: the spellings of each, the longest first, its values and its help."""
    return [
        [_spellings(action), None if action.nargs == 0 else _values(action), _first(action)]
        for action in dict.fromkeys(parser.options().values())
        if action.help != argparse.SUPPRESS
    ]


def _spellings(action: argparse.Action) -> list[str]:
    return sorted(action.option_strings, key=lambda name: (not name.startswith("--"), name.count("-")))


def _words(name: str, parser: Parser, known: Iterable[str]) -> list[Any]:
    if name == "help":
        return [[*known, *TOPICS]]
    kinds = [_values(action) for action in parser.words()]
    return ["tests" if name == "test" and kind == "pattern" else kind for kind in kinds]


def _values(action: argparse.Action) -> Any:
    if action.choices is not None:
        return [str(choice) for choice in action.choices]
    named = next((_KINDS[name] for name in action.option_strings if name in _KINDS), "")
    return named or _KINDS.get(str(action.metavar), "")


def _first(action: argparse.Action) -> str:
    """Return the beginning of an option's help, up to 60 characters."""
    text = (action.help or "").partition(";")[0].partition(" (default")[0].replace("%%", "%")
    return text if len(text) <= 60 else f"{text[:57]}..."

"""`bk __complete`: the candidates for the last word of a command line, from a table of options on standard input.

A completion script has that table, which `bk completion` printed into it. Reading it takes a tenth of the time of importing all
commands. No build file is evaluated, no process is started and nothing is written.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bkrules.completion.kept import Kept
from bkrules.completion.names import Names
from bkrules.completion.words import for_bash, of_line, plain
from bkrules.loading.root import root_of
from bkrules.system.files import read_regular

COMMAND = "__complete"
FILES = ":files"
"""The answer that leaves the word to the shell, which knows files best."""
_CONFIG = re.compile(rb"^\s*\w+:(\S+)", re.MULTILINE)
_MOST = 2_000

Candidates = Iterator[tuple[str, str]]
"""Candidates, each with an explanation, which may be empty."""


def main(arguments: Sequence[str]) -> int:
    """Print the candidates for a shell, `bash`, `zsh` or `fish`. Return the exit code, always 0: completion never complains."""
    try:
        shell, *words = arguments
        table = json.load(sys.stdin)
        typed = quote = breaks = ""
        if shell == "bash":
            breaks, line = words
            words, typed, quote = of_line(line)
        elif shell == "fish":
            words[-1] = plain(words[-1])
        found = dict(_limited(completed(table, words), words[-1]))
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError):
        return 0  # what the shell or the kept state says is not what this bk understands
    if shell == "bash":
        lines = list(found) if FILES in found else for_bash(found, typed, quote, breaks)
    else:
        lines = [f"{word}\t{text}" if text else word for word, text in found.items()]
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0


def _limited(candidates: Candidates, word: str) -> Candidates:
    for number, (candidate, text) in enumerate(found for found in candidates if found[0].startswith((word, FILES))):
        if number >= _MOST:
            return
        if "\n" not in candidate:
            yield candidate, text


def completed(table: Mapping[str, Any], words: Sequence[str]) -> Candidates:
    """Yield the candidates for the last of these words; the first is bk. They may begin with something else."""
    *before, word = words[1:]
    command, options, positions = "", table["options"], 0
    waiting: Any = None
    for other in before:
        if waiting is not None:
            waiting = None
        elif other == "--":
            yield FILES, ""
            return
        elif other.startswith("-") and not other.startswith("-//"):
            waiting = _value(options, other) if "=" not in other else None
        elif command:
            positions += 1
        elif other in table["commands"]:
            command, options = other, table["commands"][other]["options"]
        else:
            return
    name, equals, text = word.partition("=")
    if waiting is not None:
        yield from _values(table, waiting, word)
    elif word.startswith("--") and equals:
        found = _value(options, name)
        for value, why in _values(table, found, text) if found is not None else ():
            yield (value if value == FILES else f"{name}={value}", why)
    elif word.startswith("-") and not word.startswith("-//"):
        yield from _options(options)
    elif not command:
        yield from ((name, each["help"]) for name, each in table["commands"].items())
    elif kinds := table["commands"][command]["words"]:
        yield from _values(table, kinds[min(positions, len(kinds) - 1)], word)


def _options(options: Sequence[Any]) -> Candidates:
    for spellings, value, text in options:
        yield f"{spellings[0]}{'=' if value is not None else ''}", text


def _value(options: Sequence[Any], name: str) -> Any:
    """Return the values that an option takes: their kind or their list; None for an option without values."""
    wanted = name.replace("-", "_").replace("__", "--", 1) if name.startswith("--") else name
    return next((value for spellings, value, _ in options if wanted in spellings or name in spellings), None)


def _values(table: Mapping[str, Any], kind: str | Sequence[str], text: str) -> Candidates:
    if not isinstance(kind, str):
        yield from ((value, "") for value in kind)
        return
    if kind == "file":
        yield FILES, ""
    root = root_of(".")
    if root is None:
        return
    kept = Kept(root)
    here = os.path.relpath(os.path.realpath("."), root)
    names = Names(kept, "" if here == "." else here, table["tests"])
    if kind == "config":
        text_of_rc = read_regular(f"{root}/.bkrc")
        yield from ((name.decode(errors="replace"), "") for name in _CONFIG.findall(text_of_rc))
    for name in _named(names, kind, text, table["tests"]):
        yield name, ""


def _named(names: Names, kind: str, text: str, tests: Sequence[str]) -> Iterator[str]:
    if kind in ("pattern", "tests", "cell or pattern"):
        yield from names.patterns(text, tests if kind == "tests" else ())
    if kind in ("cell", "cell or pattern"):
        yield from names.cells(text)
    if kind in ("label", "worker"):
        yield from names.labels(text, ["worker"] if kind == "worker" else ())
    if kind == "worker" and "/" not in text:
        yield from names.workers()
    if kind == "filter":
        yield from names.filters(text)

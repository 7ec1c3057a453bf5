"""`.bkrc`: default options, with the syntax and the meaning of Bazel's `.bazelrc`.

A line is a command and its options: `build --jobs=4`. Options of `build` also apply to `test`, `aquery` and `why`,
those of `common` to every command that has them. `build:ci --keep_going` applies with `--config=ci`. Of two conflicting
lines, the one for the more specific command wins, then the later one; the command line takes precedence over all.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from bkrules.commands.parser import Parser, spelled_out
from bkrules.errors import UsageError, did_you_mean
from bkrules.incremental.dependencies import current
from bkrules.system.files import read_regular

NAME = ".bkrc"
COMMON = "common"
INHERITS = {
    **dict.fromkeys(("test", "aquery", "go", "pin"), ("build",)),
    **dict.fromkeys(("why", "ci", "bisect"), ("build", "test")),
}
"""The other commands whose lines apply to a command, from the least specific. A key depends on the options of `test`,
and `why` explains keys.
"""
_CONFIG = "--config"
_WORKSPACE = "%workspace%"
_DEEPEST = 16


@dataclass(frozen=True)
class Line:
    """A line of an rc file: its command, its configuration, its options, and `file:line`.

    The command line's own options are a line without a place.
    """

    command: str
    config: str
    words: tuple[str, ...]
    where: str


class RcFiles:
    """The lines of all rc files, and their options for a command line. `parsers` are those of the commands by name."""

    def __init__(self, parsers: Mapping[str, Parser], lines: Sequence[Line]) -> None:
        self._parsers = parsers
        self._lines = lines
        for line in lines:
            if line.command not in (*parsers, COMMON):
                hint = did_you_mean(line.command, (*parsers, COMMON), "commands")
                raise UsageError("rc-file", f"there is no command {line.command!r}", where=line.where, hint=hint)
            for _ in self._options(line):
                pass  # every line must be valid, also those of other commands

    def applied(self, command: str, words: Sequence[str]) -> tuple[list[Line], list[str]]:
        """Return all options, in the order of their precedence, and the other words of the command line.

        A configuration stands in the place where it is named. Raises UsageError for an unknown one, and for one that
        includes itself.
        """
        lines = [line for plain in self._of(command, "") for line in self._expanded(command, plain, ())]
        rest: list[str] = []
        taken = 0
        for name, group in _groups(self._parsers[command], words):
            if group == ["--"]:
                return lines, [*rest, *words[taken:]]
            taken += len(group)
            if name == _CONFIG:
                lines += self._configured(command, _value(group), "", ())
            elif name or group[0].startswith("-"):
                lines.append(Line(command, "", tuple(group), ""))
            else:
                rest += group
        return lines, rest

    def _of(self, command: str, config: str) -> list[Line]:
        sections = (COMMON, *INHERITS.get(command, ()), command)
        return [line for name in sections for line in self._lines if (line.command, line.config) == (name, config)]

    def _expanded(self, command: str, line: Line, inside: tuple[str, ...]) -> Iterator[Line]:
        """Yield a line with its configurations expanded, and with only the options that the command has."""
        known: list[str] = []
        for name, group in self._options(line):
            if name == _CONFIG:
                yield replace(line, words=tuple(known))
                known = []
                yield from self._configured(command, _value(group), line.where, inside)
            elif self._parsers[command].option(name) is not None:
                known += group
        yield replace(line, words=tuple(known))

    def _configured(self, command: str, config: str, where: str, inside: tuple[str, ...]) -> Iterator[Line]:
        if config in inside:
            raise UsageError(
                "rc-file", f"--config={config} needs itself: {' -> '.join((*inside, config))}", where=where
            )
        lines = self._of(command, config)
        if not lines:
            names = {line.config for line in self._lines if line.config}
            message = f"no {NAME} has a line for {command}:{config}"
            raise UsageError("rc-file", message, where=where, hint=did_you_mean(config, names, "configurations"))
        for line in lines:
            yield from self._expanded(command, line, (*inside, config))

    def _options(self, line: Line) -> Iterator[tuple[str, list[str]]]:
        """Yield the options of a line by their names, each with its value. Raises UsageError for options unknown to its command."""
        own = self._parsers.values() if line.command == COMMON else [self._parsers[line.command]]
        words = list(line.words)
        while words:
            name = _name(words[0])
            parser = next((known for known in own if known.option(name) is not None), None)
            if not words[0].startswith("-"):
                raise UsageError(
                    "rc-file", f"{words[0]!r} is not an option", where=line.where, hint="only options may stand here"
                )
            if parser is None:
                whose = "no command of bk has the" if line.command == COMMON else f"bk {line.command} has no"
                near = difflib.get_close_matches(name, {word for known in own for word in known.options()}, n=1)
                hint = (
                    f"did you mean {near[0]}?"
                    if near
                    else "see `bk COMMAND --help`, or leave the file out with `bk --norc`"
                )
                raise UsageError("rc-file", f"{whose} option {name}", where=line.where, hint=hint)
            ((name, group),) = _groups(parser, words[:2])[:1]
            yield name, group
            del words[: len(group)]


def split(parser: Parser, words: Sequence[str]) -> tuple[list[str], str, list[str]]:
    """Split a command line in three: the words before the command, the command (empty without one), and the words after it."""
    first: list[str] = []
    for name, group in _groups(parser, words):
        if not name and not group[0].startswith("-"):
            return first, group[0], list(words[len(first) + 1 :])
        first += group
    return first, "", []


def read(root: str | None, home: str | None, more: Sequence[str]) -> list[Line]:
    """Return the lines of the workspace's file, of the home folder's, and of `more`. Raises UsageError. Only `more` must exist."""
    lines: list[Line] = []
    if root is not None:
        lines += _file(f"{root}/{NAME}", root, ())
    if home is not None:
        lines += _file(f"{home}/{NAME}", root, ())
    for path in more:
        if path == "/dev/null":
            break  # as in Bazel: it ends the list
        if not os.path.isfile(path):
            raise UsageError("rc-file", f"--bkrc: file not found: {path}")
        lines += _file(os.path.abspath(path), root, ())
    return lines


def _file(path: str, root: str | None, inside: tuple[str, ...]) -> list[Line]:
    try:
        text = read_regular(current().note(path)).decode().replace("\r\n", "\n")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("rc-file", f"cannot read {path}: {error}") from error
    lines: list[Line] = []
    if "\0" in text:
        raise UsageError("rc-file", f"cannot read {path}: it has a NUL in it")
    for number, words in _words(text, path):
        where = f"{path}:{number}"
        if words[0] in ("import", "try-import"):
            lines += _imported(words, root, where, (*inside, path))
        else:
            command, _, config = words[0].partition(":")
            lines.append(Line(command, config, tuple(spelled_out(word) for word in words[1:]), where))
    return lines


def _words(text: str, path: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the words of non-empty lines, by their numbers; a line that ends with a backslash continues in the next."""
    number = 1
    for line in re.sub(r"\\\n", lambda _: "\0", text).split("\n"):
        try:
            words = shlex.split(line.replace("\0", " "), comments=True)
        except ValueError as error:
            raise UsageError("rc-file", f"unclosed quote: {error}", where=f"{path}:{number}") from error
        if words:
            yield number, words
        number += 1 + line.count("\0")


def _imported(words: list[str], root: str | None, where: str, inside: tuple[str, ...]) -> list[Line]:
    if len(words) != 2:
        raise UsageError("rc-file", f"{words[0]} takes one file", where=where)
    path = words[1]
    if path.startswith(_WORKSPACE):
        if root is None:
            return []  # a file in the home folder applies to whichever workspace is current
        path = root + path.removeprefix(_WORKSPACE)
    elif not os.path.isabs(path):
        hint = f"write {_WORKSPACE}/{path} for a file of the workspace"
        raise UsageError("rc-file", f"{words[0]}: {path!r} is not an absolute path", where=where, hint=hint)
    path = os.path.normpath(path)
    if path in inside or len(inside) >= _DEEPEST:
        raise UsageError("rc-file", f"{path} imports itself: {' -> '.join((*inside, path))}", where=where)
    if words[0] == "import" and not os.path.isfile(path):
        raise UsageError("rc-file", f"file not found: {path}", where=where, hint="use try-import for an optional file")
    return _file(path, root, inside)


def _groups(parser: Parser, words: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Return the words in groups: each option with its value, by its name, and each other word without one.

    An option can be spelled with `-` for each `_`; in its group it has its name.
    """
    groups: list[tuple[str, list[str]]] = []
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        name = _name(word)
        action = parser.option(name) if word.startswith("-") else None
        group = [word if action is None else name + word[len(name) :]]
        has_value = "=" in word if word.startswith("--") else word != name
        if action is not None and action.nargs != 0 and not has_value and waiting:
            group.append(waiting.pop(0))
        groups.append((name if action is not None else "", group))
    return groups


def _name(word: str) -> str:
    """Return the option at the beginning of a word; of `-j4` it is `-j`."""
    if word.startswith("--"):
        return word.partition("=")[0].replace("-", "_").replace("__", "--", 1)
    return word if word == "-t-" else word[:2]


def _value(group: Sequence[str]) -> str:
    return group[1] if len(group) > 1 else group[0].partition("=")[2]

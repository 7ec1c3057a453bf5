"""The rules, axis keys, commands and reporters that plugins register. Each raises ValueError or TypeError for wrong arguments."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

_WORD = re.compile(r"[a-z][a-z0-9_]*")
_COMMAND = re.compile(r"[a-z][a-z0-9_-]*")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*\.[A-Za-z0-9_.-]*")
_OWN_FILES = ("report.json", "test.xml")
_MNEMONIC = re.compile(r"[A-Z][A-Za-z0-9]*")


@dataclass(frozen=True)
class AxisKey:
    """A key that a dictionary among the values of an axis may have.

    `expand` is given the key's value and returns what stands for it: a dictionary with keys that bk knows, such as
    `{"buildkitd.toml": {...}}`. It raises ValueError for a value that it cannot take.
    """

    name: str
    expand: Callable[[Any], Mapping[str, Any]]

    def __post_init__(self) -> None:
        _check(_WORD, self.name, "axis key", "lower-case letters, digits and '_'")
        _check_callable(self.expand, "expand")


@dataclass(frozen=True)
class Command:
    """A command of bk: `bk NAME ...`. `configure` adds its arguments to the parser; `run` returns the exit code."""

    name: str
    help: str
    run: Callable[[argparse.Namespace], int]
    configure: Callable[[argparse.ArgumentParser], object] = field(default=lambda _parser: None)

    def __post_init__(self) -> None:
        _check(_COMMAND, self.name, "command", "lower-case letters, digits, '_' and '-'")
        if not isinstance(self.help, str) or not self.help:
            raise ValueError(f"the command {self.name!r} has the help {self.help!r}: say in one line what it does")
        _check_callable(self.run, "run")
        _check_callable(self.configure, "configure")


@dataclass(frozen=True)
class Reporter:
    """A file that bk writes next to the `report.json` of each matrix.

    `report` is given what `report.json` says, and returns the file's text.
    """

    file: str
    report: Callable[[dict[str, Any]], str]

    def __post_init__(self) -> None:
        _check(_FILE, self.file, "file of a reporter", "letters, digits, '_' and '-', with a suffix")
        if self.file in _OWN_FILES:
            raise ValueError(f"{self.file!r} is a report of bk's own")
        _check_callable(self.report, "report")


@dataclass(frozen=True)
class PluginRule:
    """A rule, imported in build files from the plugin's module; `runners` run the actions that it declares, by mnemonic."""

    rule: Any
    runners: Mapping[str, Callable[[Any], None]]

    def __post_init__(self) -> None:
        if not isinstance(getattr(self.rule, "name", None), str) or not callable(getattr(self.rule, "analyze", None)):
            raise ValueError(f"{self.rule!r} is no rule: make it with bkrules.rules.define.Rule")
        _check(_WORD, self.rule.name, "rule", "lower-case letters, digits and '_'")
        if not isinstance(self.runners, Mapping):
            raise ValueError(f"the runners of {self.rule.name!r} are {self.runners!r}: give a dictionary by mnemonic")
        for mnemonic, runner in self.runners.items():
            _check(_MNEMONIC, mnemonic, "mnemonic", "letters and digits, the first one upper-case")
            _check_callable(runner, f"the runner of {mnemonic}")

    @property
    def name(self) -> str:
        """The rule's name."""
        return str(self.rule.name)


def _check(pattern: re.Pattern[str], name: object, what: str, allowed: str) -> None:
    if not isinstance(name, str) or not pattern.fullmatch(name):
        raise ValueError(f"{name!r} cannot be the name of a {what}: use {allowed}")


def _check_callable(function: object, name: str) -> None:
    if not callable(function):
        raise ValueError(f"{name} must be a function, but was {function!r}")

"""Axis values that change the worker: edits of its daemons' configuration, flags, environment, and a function in the cell.

Such a value is a dictionary with at least one of these keys; any other value is only told to the test.

    {"buildkitd.toml": {"registry": {"localhost:1": {"http": True}}}}  a configuration file, merged table by table
    {"buildkitd.toml": "[registry.'localhost:1']\\nhttp = true"}       the same as text
    {"flags": {"buildkitd": ["--oci-worker-gc=true"]}}                 more arguments of a daemon
    {"environment": {"buildkitd": {"BUILDKIT_STEP_LOG_MAX_SIZE": "1"}}}
    {"updater": "function"}                                            a function in one of the matrix's `updaters`
    {"tools": {"runc": "//targets/tools/runc-1.4:runc"}}               other binaries of the worker, by name
    {"mirror": {"status": 429, "times": 2}}                            what the cell's mirror does wrong: `MirrorFaults`
    {..., "value": 3}                                                  what `sandbox.value` gives, instead of all this
"""

from __future__ import annotations

import ast
import difflib
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import tomli_w

from bkrules.analysis.daemon_keys import FILE, misspelled
from bkrules.analysis.points import Error
from bkrules.errors import LoadError, did_you_mean, is_near
from bkrules.mirror.faults import MirrorFaults
from bkrules.model.parameters import WorkerUpdate
from bkrules.plugin.installed import Plugin, Plugins
from bkrules.plugin.registered import AxisKey

SUFFIX = ".toml"
FLAGS, ENVIRONMENT, UPDATER, MIRROR, TOOLS, VALUE = "flags", "environment", "updater", "mirror", "tools", "value"
_KEYS = (FLAGS, ENVIRONMENT, UPDATER, MIRROR, TOOLS)
_OTHER_WORDS = {
    **dict.fromkeys(("env", "environ", "environments", "variables"), ENVIRONMENT),
    **dict.fromkeys(("args", "arguments"), FLAGS),
    **dict.fromkeys(("binary", "binaries"), TOOLS),
    **dict.fromkeys(("config", "configuration"), FILE),
}
"""Words for what a key of bk does."""
_NEAR = 0.85
"""The likeness of a misspelt key: `tool` and `tools` are that near, `pools` and `tools` are not. One letter of a key is misspelt
too, but for the first one.
"""
Documents = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Update:
    """The changes to a worker by the axis values of one cell.

    `documents` are merged into the configuration files of these names, one after the other; `functions` (`path::name`)
    are called with all files, in the cell, before the daemons start, and end after the test. `mirror` are the faults of
    its mirror, `tools` other binaries, as pairs of a place and a table of labels by names.
    """

    documents: tuple[tuple[str, Documents], ...] = ()
    flags: Mapping[str, list[str]] = field(default_factory=dict)
    environment: Mapping[str, dict[str, str]] = field(default_factory=dict)
    functions: tuple[str, ...] = ()
    mirror: Mapping[str, Any] = field(default_factory=dict)
    tools: tuple[tuple[str, Mapping[str, str]], ...] = ()

    def __bool__(self) -> bool:
        """Return whether there is anything to change."""
        return bool(self.documents or self.flags or self.environment or self.functions or self.mirror or self.tools)

    @property
    def parameters(self) -> WorkerUpdate:
        """Return the parameters of the cell, without the configuration files."""
        flags = {daemon: tuple(words) for daemon, words in self.flags.items()}
        return WorkerUpdate(flags, self.environment, self.functions, self.mirror)


def told(value: object, more: Collection[str] = ()) -> object:
    """Return what a test sees of an axis value; `more` are the keys of plugins."""
    return value[VALUE] if isinstance(value, dict) and is_update(value, more) and VALUE in value else value


def is_update(value: Mapping[str, object], more: Collection[str]) -> bool:
    """Return whether a dictionary changes the worker."""
    return any(key in _KEYS or key in more or (isinstance(key, str) and key.endswith(SUFFIX)) for key in value)


def meant(value: object, more: Collection[str], tools: Collection[str]) -> tuple[str, str] | None:
    """Return a key of a value that changes no worker although it looks so, and what to write instead; None for other values.

    `more` are the keys of plugins, `tools` the binaries of the workers.
    """
    if not isinstance(value, dict) or is_update(value, more):
        return None
    known = [*_KEYS, *more]
    for key in value:
        word = key.lower()
        if word in tools:
            return key, f"{{{TOOLS!r}: {{{word!r}: LABEL}}}}"
        stem, is_file, _ = word.partition(".")
        if is_file and stem in tools:
            return key, repr(f"{stem}{SUFFIX}")
        near = difflib.get_close_matches(word, known, n=1, cutoff=_NEAR)
        near = near or [one for one in known if word[:1] == one[:1] and is_near(word, one)]
        if near or word in _OTHER_WORDS:
            return key, repr(near[0] if near else _OTHER_WORDS[word])
    return None


class Updaters:
    """Reads the updates in axis values. `sources` are the texts of the files with functions, by their paths.

    Raises LoadError, made by `error`, and SyntaxError.
    """

    def __init__(self, sources: Mapping[str, str], error: Error, plugins: Plugins | None = None) -> None:
        self._error = error
        self._plugins = plugins
        self.more: Mapping[str, tuple[AxisKey, Plugin]] = plugins.registered(AxisKey) if plugins else {}
        self._functions: dict[str, str] = {}
        for path, text in sources.items():
            for node in ast.parse(text, path).body:
                if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                    if node.name in self._functions:
                        raise error(
                            "duplicate-name",
                            f"{path}:{node.lineno} and {self._functions[node.name]} both have {node.name!r}",
                            "updaters",
                            "",
                        )
                    self._functions[node.name] = f"{path}::{node.name}"

    def read(self, values: Sequence[tuple[str, str, object]]) -> Update:
        """Return the update of a cell's values, given as axis, choice, value."""
        documents: list[tuple[str, Documents]] = []
        flags: dict[str, list[str]] = {}
        environment: dict[str, dict[str, str]] = {}
        functions: list[str] = []
        mirror: Mapping[str, Any] = {}
        tools: list[tuple[str, Mapping[str, str]]] = []
        for axis, choice, value in values:
            if not isinstance(value, dict) or not is_update(value, self.more):
                continue
            place = f"{axis}={choice}"
            for key, part in self._expanded(place, value):
                if key.endswith(SUFFIX):
                    documents.append((place, {key: self._document(place, key, part)}))
                elif key == FLAGS:
                    for daemon, words in self._table(place, key, part).items():
                        flags.setdefault(daemon, []).extend(self._strings(place, key, words))
                elif key == ENVIRONMENT:
                    for daemon, variables in self._table(place, key, part).items():
                        environment.setdefault(daemon, {}).update(self._variables(place, key, variables))
                elif key == UPDATER:
                    functions.append(self._function(place, part))
                elif key == TOOLS:
                    tools.append((place, self._variables(place, key, part)))
                elif key == MIRROR and mirror:
                    raise self._bad(place, "has a 'mirror', and so has the value of another axis in the same cell")
                elif key == MIRROR:
                    mirror = self._faults(place, part)
                elif key != VALUE:
                    hint = did_you_mean(key, [*_KEYS, *self.more, VALUE, FILE], "keys")
                    raise self._bad(place, f"has no key {key!r}", hint)
        return Update(tuple(documents), flags, environment, tuple(functions), mirror, tuple(tools))

    def _expanded(self, place: str, value: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        """Yield the keys that bk knows, those for which keys of plugins stand included."""
        for key, part in value.items():
            if key not in self.more:
                yield key, part
                continue
            assert self._plugins is not None
            axis_key, plugin = self.more[key]
            hooks = self._plugins.hooks
            try:
                expansion: object = hooks.guarded(
                    plugin.title, f"expand of {key!r}", partial(axis_key.expand, part), ValueError
                )
            except ValueError as error:
                raise self._bad(place, f"has a {key!r} that cannot be used: {error}") from error
            if not isinstance(expansion, Mapping) or not all(isinstance(inner, str) for inner in expansion):
                raise hooks.fault(
                    plugin.title, f"returned {expansion!r} from expand of {key!r}", hint="return a dictionary"
                )
            for inner in expansion:
                if inner in self.more or inner in (TOOLS, VALUE):
                    raise hooks.fault(
                        plugin.title, f"returned the key {inner!r} from expand of {key!r}", hint="use bk's own keys"
                    )
            yield from expansion.items()

    def _bad(self, place: str, what: str, hint: str = "") -> LoadError:
        return self._error("bad-axis", f"the value {place} {what}", "axes", hint)

    def _faults(self, place: str, value: object) -> Mapping[str, Any]:
        table = self._table(place, MIRROR, value)
        try:
            MirrorFaults.read(table)
        except ValueError as error:
            message, _, hint = str(error).partition("\n")
            raise self._bad(place, f"has a 'mirror' {message}", hint) from error
        return table

    def _document(self, place: str, name: str, value: object) -> Mapping[str, Any]:
        document = self._parsed(place, name, value)
        for key, near in misspelled(document) if name == FILE else ():
            raise self._bad(
                place, f"has the key {key!r} in {name!r}, which buildkitd ignores", f"did you mean {near!r}?"
            )
        return document

    def _parsed(self, place: str, name: str, value: object) -> Mapping[str, Any]:
        if isinstance(value, str):
            try:
                return tomllib.loads(value)
            except tomllib.TOMLDecodeError as error:
                raise self._bad(place, f"has a {name!r} that is not TOML: {error}") from error
        table = self._table(place, name, value)
        try:
            tomli_w.dumps(table)
        except TypeError as error:
            raise self._bad(place, f"has a value in {name!r} that TOML cannot express: {error}") from error
        return table

    def _table(self, place: str, name: str, value: object) -> Mapping[str, Any]:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise self._bad(place, f"needs a dictionary as {name!r}, but it was {value!r}")
        return value

    def _strings(self, place: str, name: str, value: object) -> list[str]:
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            raise self._bad(place, f"needs lists of strings in {name!r}, but there was {value!r}")
        return list(value)

    def _variables(self, place: str, name: str, value: object) -> dict[str, str]:
        table = self._table(place, name, value)
        self._strings(place, name, list(table.values()))
        return dict(table)

    def _function(self, place: str, name: object) -> str:
        if name not in self._functions:
            hint = did_you_mean(str(name), self._functions, "functions in 'updaters'")
            raise self._bad(place, f"names no function {name!r}", hint)
        return self._functions[str(name)]


def merged(files: Documents, update: Update, worker: str, error: Error) -> Documents:
    """Return the worker's configuration files, merged with the update's documents. Raises LoadError for a file that it lacks."""
    result: dict[str, Mapping[str, Any]] = dict(files)
    for place, documents in update.documents:
        for name, document in documents.items():
            if name not in result:
                axis, _, choice = place.partition("=")
                hint = f"{did_you_mean(name, result, 'its files')}\nor exclude these cells:"
                raise error(
                    "unknown-file",
                    f"the value {place} changes {name!r}, which the worker {worker} does not have",
                    "axes",
                    f"{hint}  exclude = [{{'worker': {worker!r}, {axis!r}: {choice!r}}}]",
                )
            result[name] = _merge(result[name], document)
    return result


def _merge(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return two tables merged; for other values, the second one wins."""
    result = dict(one)
    for key, value in other.items():
        mine = result.get(key)
        result[key] = _merge(mine if isinstance(mine, dict) else {}, value) if isinstance(value, dict) else value
    return result

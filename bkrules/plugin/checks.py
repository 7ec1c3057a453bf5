"""The checks of a plugin: its metadata, its hooks and their arguments, and its workers."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Collection, Iterator, Sequence
from importlib.metadata import version
from types import ModuleType
from typing import Any

import pluggy

from bkrules.errors import did_you_mean
from bkrules.plugin import spec
from bkrules.plugin.installed import Plugin
from bkrules.plugin.worker import Worker

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


class BadPlugin(Exception):
    """The fault of a plugin, and how its author can fix it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def check_metadata(plugin: Plugin) -> None:
    """Raise BadPlugin for an entry point that does not name a module, and for a plugin of another version of bk."""
    value = plugin.entry_point.value
    if not plugin.module:
        what = "an object" if re.fullmatch(r"[\w.]+\s*:.+", value) else "no module"
        raise BadPlugin(f"its entry point {value!r} names {what}", "name the module alone: MODULE, not MODULE:NAME")
    for text in plugin.requires:
        if re.match(r"bkrules\s*[^\w.;-]", text, re.IGNORECASE):
            _check_requirement(text)


def _check_requirement(text: str) -> None:
    """Raise BadPlugin for a requirement of bkrules that this version does not meet, if its marker applies, without extras."""
    from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        wanted = Requirement(text)
        holds = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
    except (InvalidRequirement, UndefinedComparison, UndefinedEnvironmentName) as error:
        raise BadPlugin(f"its Requires-Dist {text!r} cannot be read", "write it as pip's documents say") from error
    here = version("bkrules")
    if holds and not wanted.specifier.contains(here, prereleases=True):
        raise BadPlugin(f"it requires {text}, and this is bkrules {here}", "install a release that fits")


def hooks_of(manager: pluggy.PluginManager, module: ModuleType) -> tuple[str, ...]:
    """Return the names of the hooks that a module implements. Raises BadPlugin for a function that is not a hook of bk."""
    wanted = getattr(module, "BK_API", spec.API)
    if type(wanted) is not int or wanted > spec.API:
        raise BadPlugin(
            f"it needs version {wanted!r} of the hooks, and this bk has version {spec.API}", "install a newer bk"
        )
    found = []
    for name, function in vars(module).items():
        if _implements(manager, module, name, function):
            _check_hook(name, tuple(inspect.signature(function).parameters), spec.HOOKS, "it")
            found.append(name)
    if not found:
        raise BadPlugin(f"the module {module.__name__} implements no hook", "mark functions with @hookimpl")
    return tuple(found)


def hooks_of_worker(manager: pluggy.PluginManager, worker: type[Worker]) -> Iterator[str]:
    """Yield the hooks that a worker implements for its own cells. Raises BadPlugin for hooks that do not run in a cell."""
    for name in dir(worker):
        function = getattr(worker, name)
        if _implements(manager, worker, name, function):
            _check_hook(
                name,
                tuple(inspect.signature(function).parameters)[1:],
                spec.CELL_HOOKS,
                f"its worker {worker.name!r}",
            )
            yield name


def _implements(manager: pluggy.PluginManager, plugin: object, name: str, member: object) -> bool:
    """Return whether a member implements a hook. Raises BadPlugin for one that merely has the name of a hook."""
    if not inspect.isroutine(member):
        return False
    if manager.parse_hookimpl_opts(plugin, name) is not None:
        return True
    if name in spec.HOOKS:
        raise BadPlugin(f"its {name} is not marked as a hook", "decorate it with @hookimpl")
    return False


def _check_hook(name: str, arguments: Sequence[str], hooks: Collection[str], whose: str) -> None:
    """Raise BadPlugin unless `name` is among `hooks`, and has these arguments."""
    if name not in hooks:
        what = "a hook of modules, not of workers" if name in spec.HOOKS else "no hook of bk"
        raise BadPlugin(f"{whose} implements {name}, which is {what}", did_you_mean(name, hooks, "hooks"))
    known = inspect.signature(getattr(spec, name)).parameters
    for argument in arguments:
        if argument not in known:
            raise BadPlugin(f"its {name} has the argument {argument!r}", f"{name} has: {', '.join(known)}")


def checked_workers(registered: Sequence[object]) -> tuple[type[Worker], ...]:
    """Return the workers that a plugin registered. Raises BadPlugin for anything else, and for two workers of one name."""
    workers: dict[str, type[Worker]] = {}
    for one in registered:
        if not isinstance(one, type) or not issubclass(one, Worker):
            raise BadPlugin(f"it registered {one!r} as a worker", "register a subclass of Worker")
        name: Any = getattr(one, "name", None)
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            allowed = "letters, digits, '_', '.', '+' and '-' of ASCII, the first one a letter or a digit"
            raise BadPlugin(f"its worker {one.__name__} has the name {name!r}", f"a name has {allowed}")
        if inspect.isabstract(one):
            raise BadPlugin(f"its worker {name!r} lacks the methods {', '.join(sorted(one.__abstractmethods__))}")
        if not dataclasses.is_dataclass(one):
            raise BadPlugin(f"its worker {name!r} is no dataclass", "decorate it with @dataclass(frozen=True)")
        if name in workers:
            raise BadPlugin(f"it registered two workers of the name {name!r}", "give one of them another name")
        workers[name] = one
    return tuple(workers.values())

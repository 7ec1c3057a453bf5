"""bk's calls of a worker's methods, in its own process: each has a bound, and its result is checked.

A method that raises, ends the process, takes too long or returns a wrong type is a WorkerFault. It makes only that
worker unusable.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, TypeVar

from bkrules.errors import BkError
from bkrules.plugin.features import UnknownFeature, known
from bkrules.plugin.guard import SECONDS, Hung, bounded, text_of
from bkrules.plugin.host import Host, Lack
from bkrules.plugin.manager import load
from bkrules.plugin.worker import Mirror, SettingsError, Worker

_T = TypeVar("_T")
_NO_PART = frozenset("/= \t\n")
"""The characters that the id of a worker must not have, since it is a part of the names of cells."""


class WorkerFault(BkError):
    """A worker breaks the contract of plugins. The message names the worker, its distribution and the method."""

    label = ""

    def at(self, label: object) -> WorkerFault:
        """Return this error with a target, unless it has one already."""
        if self.label:
            return self
        made = WorkerFault(self.reason, f"{label}: {self.message}", where=self.where, hint=self.hint)
        made.label = str(label)
        return made


def made(kind: type[Worker], settings: Mapping[str, Any]) -> Worker:
    """Return the worker with these settings. Raises SettingsError, and WorkerFault as all functions here do."""
    worker: object = _answer(kind, "from_settings", lambda: kind.from_settings(settings), let=SettingsError)
    if not isinstance(worker, kind):
        raise fault(kind, f"its from_settings() returns {worker!r}", f"return an instance of {kind.__name__}")
    return worker


def default(kind: type[Worker]) -> Worker:
    """Return the worker with its default settings."""
    try:
        return made(kind, {})
    except SettingsError as error:
        raise fault(kind, f"its default settings do not fit together: {error}", "change the defaults") from error


def described(kind: type[Worker]) -> dict[str, dict[str, Any]]:
    """Return the default and the help of each setting, by its name."""
    found: object = _answer(kind, "describe_settings", kind.describe_settings)
    if not isinstance(found, dict) or not all(isinstance(one, dict) for one in found.values()):
        raise fault(kind, f"its describe_settings() returns {found!r}", "leave it as Worker has it")
    return {str(name): {"default": None, "help": "", **one} for name, one in found.items()}


def settings(worker: Worker) -> dict[str, Any]:
    """Return the settings by name, as JSON values."""
    found: object = _answer(type(worker), "settings", worker.settings)
    try:
        copied: object = json.loads(json.dumps(found))
    except (TypeError, ValueError, RecursionError) as error:
        raise fault(
            type(worker), f"its settings() returns a value that is not JSON: {error}", "use plain types"
        ) from error
    if not isinstance(found, dict) or not isinstance(copied, dict):
        raise fault(type(worker), f"its settings() returns {found!r}", "leave it as Worker has it")
    return found


def id_of(worker: Worker) -> str:
    """Return the worker's name in cells."""
    name: object = _answer(type(worker), "id", worker.id)
    if not isinstance(name, str) or not name or not name.isprintable() or _NO_PART.intersection(name):
        raise fault(type(worker), f"its id() returns {name!r}", "return a word that can be a part of a cell's name")
    return name


def tools(worker: Worker) -> tuple[str, ...]:
    """Return the names of the binaries that `start` runs."""
    names = _words(worker, "tools", worker.tools)
    for name in names:
        if "/" in name or name.startswith("."):
            raise fault(type(worker), f"its tools() has {name!r}", "name a binary as a target in WORKSPACE.py is named")
    return names


def host_tools(worker: Worker) -> tuple[str, ...]:
    """Return the commands of this machine that the worker needs."""
    return _words(worker, "host_tools", worker.host_tools)


def preflight(worker: Worker, host: Host) -> tuple[Lack, ...]:
    """Return what this machine lacks for the worker."""
    lacks = _several(worker, "preflight", lambda: worker.preflight(host))
    for lack in lacks:
        if not isinstance(lack, Lack) or not all(isinstance(one, str) for one in (lack.what, lack.why, lack.remedy)):
            raise fault(type(worker), f"its preflight() has {lack!r}", "return a tuple of Lack(what, why, remedy)")
    return lacks


def no_jail(worker: Worker) -> str:
    """Return why the worker cannot run in a jail; empty when it can."""
    reason: object = _answer(type(worker), "no_jail", worker.no_jail)
    if not isinstance(reason, str):
        raise fault(type(worker), f"its no_jail() returns {reason!r}", "return the reason, or an empty string")
    return reason


def features(worker: Worker) -> frozenset[str]:
    """Return the features of the worker's BuildKit."""
    names: object = _answer(type(worker), "features", worker.features)
    if not isinstance(names, set | frozenset) or not all(isinstance(name, str) for name in names):
        raise fault(type(worker), f"its features() returns {names!r}", "return a set of names from FEATURES")
    try:
        return known(names)
    except UnknownFeature as error:
        raise fault(type(worker), f"its features() has an unknown name: {error}", "use names from FEATURES") from error


def cache_key(worker: Worker) -> dict[str, str]:
    """Return the further values of the worker in the keys of its cells."""
    found: object = _answer(type(worker), "cache_key", worker.cache_key)
    if not isinstance(found, Mapping) or not all(isinstance(one, str) for pair in found.items() for one in pair):
        raise fault(type(worker), f"its cache_key() returns {found!r}", "return a dictionary of strings")
    return dict(found)


def modules(worker: Worker) -> list[str]:
    """Return the names of the modules that `start` runs."""
    found = _several(worker, "modules", worker.modules)
    for module in found:
        if not isinstance(module, ModuleType):
            raise fault(
                type(worker), f"its modules() has {module!r}, which is not a module", "return a tuple of modules"
            )
    return [module.__name__ for module in found]


def configuration(worker: Worker, mirror: Mirror) -> Mapping[object, object]:
    """Return the configuration files of the worker's daemons. Names and documents are not checked."""
    documents: object = _answer(type(worker), "configuration", lambda: worker.configuration(mirror))
    if not isinstance(documents, Mapping):
        what = f"its configuration() returns {documents!r}"
        raise fault(type(worker), what, "return a dictionary of documents")
    return documents


def fault(kind: type[Worker], what: str, hint: str) -> WorkerFault:
    """Return the error of a worker that breaks the contract of plugins."""
    return WorkerFault("broken-plugin", f"{_named(kind)} is broken: {what}", hint=hint)


def _words(worker: Worker, method: str, call: Callable[[], object]) -> tuple[str, ...]:
    words = _several(worker, method, call)
    for word in words:
        if not isinstance(word, str) or not word or not word.isprintable():
            raise fault(type(worker), f"its {method}() has {word!r}", "return a tuple of names")
    return words


def _several(worker: Worker, method: str, call: Callable[[], object]) -> tuple[Any, ...]:
    found = _answer(type(worker), method, call)
    if not isinstance(found, tuple | list):
        raise fault(type(worker), f"its {method}() returns {found!r}", "return a tuple")
    return tuple(found)


def _answer(kind: type[Worker], method: str, call: Callable[[], _T], let: type[Exception] | tuple[()] = ()) -> _T:
    """Return the result of a method. Raises WorkerFault for any exception, except those in `let` and Ctrl-C."""
    try:
        return bounded(call, SECONDS)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if isinstance(error, let):
            raise
        text = text_of(error, named=not isinstance(error, Hung))
        raise WorkerFault(
            "broken-plugin",
            f"{_named(kind)} failed in {method}: {text}",
            where=_place(kind, error),
            hint=f"leave it out with --noplugin={_title(kind).partition(' ')[0]}",
        ) from error


def _title(kind: type[Worker]) -> str:
    """Return the distribution of a worker and its version; its module when no installed plugin has it."""
    return load().distributions.get(kind.name, kind.__module__)


def _named(kind: type[Worker]) -> str:
    return f"the worker {kind.name!r} of the plugin {_title(kind)}"


def _place(kind: type[Worker], error: BaseException) -> str:
    """Return the innermost line of the worker's package that an error went through; empty when there is none."""
    top = kind.__module__.partition(".")[0]
    place, trace = "", error.__traceback__
    while trace is not None:
        if str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0] == top:
            place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place

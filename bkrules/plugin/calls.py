"""bk's calls of hooks in its own process: each has a bound, and a fault in one names the plugin."""

from __future__ import annotations

import functools
import reprlib
import threading
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

import pluggy

from bkrules.errors import BkError
from bkrules.plugin import spec
from bkrules.plugin.guard import SECONDS, Hung, bounded, owner_of, text_of

_T = TypeVar("_T")
_OWN_LAST = ("bk_classify_failure",)
"""The hooks that plugins answer before bk does."""


class PluginFault(BkError):
    """A hook of a plugin raised, took too long, or returned something else than it should. `titles` has the plugin."""

    titles: tuple[str, ...] = ()


class _Caller(NamedTuple):
    """A hook in two parts: bk's own implementations, and those of plugins, when there are any."""

    own: Callable[..., Any]
    plugins: Callable[..., Any] | None
    titles: tuple[str, ...]


class Hooks:
    """The hooks of this process. `owners` are the distributions of plugins, with versions, by the names of their modules.

    bk calls its own implementations apart from those of plugins: a limit for plugins is no limit for bk's own work.
    """

    def __init__(self, manager: pluggy.PluginManager | None = None, owners: Mapping[str, str] | None = None) -> None:
        if manager is None:
            manager = pluggy.PluginManager(spec.GROUP)
            manager.add_hookspecs(spec)
        self._manager = manager
        self._owners = {name.partition(".")[0]: title for name, title in (owners or {}).items()}
        self._lock = threading.Lock()
        self._callers: dict[str, _Caller] = {}
        self._muted: set[str] = set()
        self.faults: list[BkError] = []

    def add(self, plugin: object) -> None:
        """Register an implementation of bk's own, unless it is there already."""
        with self._lock:
            if not self._manager.is_registered(plugin):
                self._manager.register(plugin)
                self._callers.clear()

    def remove(self, plugin: object) -> None:
        """Take out an implementation of bk's own."""
        with self._lock:
            self._manager.unregister(plugin)
            self._callers.clear()

    def plugins_with(self, *names: str) -> list[str]:
        """Return the distributions, bk's own implementations left out, that implement one of these hooks."""
        return sorted({title for name in names for title in self._caller(name).titles})

    def is_only(self, plugin: object, name: str) -> bool:
        """Return whether nobody but `plugin` implements a hook."""
        return all(one.plugin is plugin for one in getattr(self._manager.hook, name).get_hookimpls())

    def _caller(self, name: str) -> _Caller:
        caller = self._callers.get(name)
        if caller is None:
            caller = self._callers[name] = self._split(name)
        return caller

    def _split(self, name: str) -> _Caller:
        hook = getattr(self._manager.hook, name)
        titles = [
            (one.plugin, self._owners.get(_module_of(one.plugin).partition(".")[0])) for one in hook.get_hookimpls()
        ]
        muted = self._muted if name in spec.LISTENERS else set()
        heard = tuple(sorted({title for _, title in titles if title is not None and title not in muted}))
        own = self._manager.subset_hook_caller(name, [plugin for plugin, title in titles if title is not None])
        others = [plugin for plugin, title in titles if title not in heard]
        return _Caller(own, self._manager.subset_hook_caller(name, others) if heard else None, heard)

    def call(self, name: str, /, **arguments: object) -> Any:
        """Call a hook. Return its result, or a list of results.

        bk's own implementations come first, those of _OWN_LAST last. Raises BkError that names the plugin when one raises,
        ends the process or takes longer than SECONDS.
        """
        caller = self._caller(name)
        if caller.plugins is None:
            return caller.own(**arguments)
        theirs = functools.partial(
            self.guarded, " or ".join(caller.titles), name, functools.partial(caller.plugins, **arguments)
        )
        parts = [functools.partial(caller.own, **arguments), theirs]
        answers = (part() for part in (reversed(parts) if name in _OWN_LAST else parts))
        if getattr(self._manager.hook, name).spec.opts["firstresult"]:
            return next((answer for answer in answers if answer is not None), None)
        return [one for answer in answers for one in answer]

    def guarded(
        self,
        title: str,
        what: str,
        call: Callable[[], _T],
        let: type[Exception] | tuple[()] = (),
        seconds: float | None = None,
    ) -> _T:
        """Return the result of a function of a plugin, for which it has so many seconds, SECONDS by default.

        Raises PluginFault that names the plugin by `title`, or by the code that raised. Exceptions of the class `let` pass.
        """
        try:
            return bounded(call, SECONDS if seconds is None else seconds)
        except (PluginFault, KeyboardInterrupt):
            raise
        except BaseException as error:
            if isinstance(error, let):
                raise
            found = owner_of(error, self._owners)
            text = text_of(error, named=not isinstance(error, Hung))
            where = f"{found[0].tb_frame.f_code.co_filename}:{found[0].tb_lineno}" if found else ""
            raise self.fault(found[1] if found else title, f"failed in {what}: {text}", where) from error

    def tell(self, name: str, /, **arguments: object) -> None:
        """Call a hook of listeners. The fault of a plugin is in `faults`, and its listeners hear nothing more in this process."""
        try:
            self.call(name, **arguments)
        except PluginFault as error:
            self.faults.append(error)
            self._muted.update(error.titles)
            self._callers.clear()

    def wrong(self, name: str, answer: object, hint: str) -> PluginFault:
        """Return the error of a hook that returned what it should not."""
        return self.fault(
            " or ".join(self.plugins_with(name)) or "bk", f"returned {reprlib.repr(answer)} from {name}", hint=hint
        )

    def fault(self, title: str, what: str, where: str = "", hint: str = "") -> PluginFault:
        """Return an error that names the plugin, or the plugins of which one is at fault."""
        remedy = f"leave it out with --noplugin={title.partition(' ')[0]}"
        hints = "\n".join(filter(None, (hint, remedy)))
        error = PluginFault("broken-plugin", f"the plugin {title} {what}", where=where, hint=hints)
        error.titles = tuple(title.split(" or "))
        return error


def _module_of(plugin: object) -> str:
    return plugin.__name__ if isinstance(plugin, ModuleType) else type(plugin).__module__

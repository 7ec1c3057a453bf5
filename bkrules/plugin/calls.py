"""bk's calls of hooks in its own process: each has a bound, and a fault in one names the plugin."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, TypeVar

import pluggy

from bkrules.errors import BkError
from bkrules.plugin import spec
from bkrules.plugin.guard import SECONDS, Hung, bounded, is_of_pluggy, owner_of, text_of

_T = TypeVar("_T")


class PluginFault(BkError):
    """A hook of a plugin raised, took too long, or returned something else than it should. `titles` has the plugin."""

    titles: tuple[str, ...] = ()


class Hooks:
    """The hooks of this process. `owners` are the distributions of plugins, with versions, by the names of their modules."""

    def __init__(self, manager: pluggy.PluginManager | None = None, owners: Mapping[str, str] | None = None) -> None:
        if manager is None:
            manager = pluggy.PluginManager(spec.GROUP)
            manager.add_hookspecs(spec)
        self._manager = manager
        self._owners = {name.partition(".")[0]: title for name, title in (owners or {}).items()}
        self._lock = threading.Lock()
        self.faults: list[BkError] = []

    def add(self, plugin: object) -> None:
        """Register an implementation of bk's own, unless it is there already."""
        with self._lock:
            if not self._manager.is_registered(plugin):
                self._manager.register(plugin)

    def remove(self, plugin: object) -> None:
        """Take out an implementation of bk's own."""
        self._manager.unregister(plugin)

    def plugins_with(self, *names: str) -> list[str]:
        """Return the distributions, bk's own implementations left out, that implement one of these hooks."""
        modules = (
            _module_of(one.plugin) for name in names for one in getattr(self._manager.hook, name).get_hookimpls()
        )
        return sorted({title for name in modules if (title := self._owners.get(name.partition(".")[0]))})

    def call(self, name: str, **arguments: object) -> Any:
        """Call a hook; its result, or a list of results.

        Raises BkError that names the plugin when one raises, ends the process or takes longer than SECONDS. Exceptions of bk's
        own implementations pass through.
        """
        call = functools.partial(getattr(self._manager.hook, name), **arguments)
        titles = " or ".join(self.plugins_with(name))
        return self.guarded(titles, name, call, shared=True) if titles else call()

    def guarded(
        self,
        title: str,
        what: str,
        call: Callable[[], _T],
        let: type[Exception] | tuple[()] = (),
        seconds: float | None = None,
        *,
        shared: bool = False,
    ) -> _T:
        """Return what a function of a plugin returns within so many seconds, SECONDS by default.

        Raises BkError that names the plugin by `title`, or by the code that raised. BkError comes as it is, and so does what `let`
        names, and what bk's own code raises in a call that plugins and bk share.
        """
        try:
            return bounded(call, SECONDS if seconds is None else seconds)
        except (BkError, KeyboardInterrupt):
            raise
        except BaseException as error:
            found = owner_of(error, self._owners)
            is_plugins = found is not None or isinstance(error, Hung) or is_of_pluggy(error)
            if isinstance(error, let) or (shared and not is_plugins):
                raise
            text = text_of(error, named=not isinstance(error, Hung))
            where = f"{found[0].tb_frame.f_code.co_filename}:{found[0].tb_lineno}" if found else ""
            raise self.fault(found[1] if found else title, f"failed in {what}: {text}", where) from error

    def tell(self, name: str, **arguments: object) -> None:
        """Call a hook of listeners. A plugin whose listener fails is in `faults`, and hears nothing more in this process."""
        try:
            self.call(name, **arguments)
        except PluginFault as error:
            self.faults.append(error)
            for plugin in self._manager.get_plugins():
                if self._owners.get(_module_of(plugin).partition(".")[0], "") in error.titles:
                    self._manager.unregister(plugin)

    def wrong(self, name: str, answer: object, hint: str) -> PluginFault:
        """Return the error of a hook that returned what it should not."""
        return self.fault(" or ".join(self.plugins_with(name)) or "bk", f"returned {answer!r} from {name}", hint=hint)

    def fault(self, title: str, what: str, where: str = "", hint: str = "") -> PluginFault:
        """Return an error that names the plugin, or the plugins of which one is at fault."""
        remedy = f"leave it out with --noplugin={title.partition(' ')[0]}"
        hints = "\n".join(filter(None, (hint, remedy)))
        error = PluginFault("broken-plugin", f"the plugin {title} {what}", where=where, hint=hints)
        error.titles = tuple(title.split(" or "))
        return error


def _module_of(plugin: object) -> str:
    return plugin.__name__ if isinstance(plugin, ModuleType) else type(plugin).__module__

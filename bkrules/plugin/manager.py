"""The plugin manager: finds the installed plugins, registers each with pluggy, and asks them for their workers.

A process has one `PluginManager`, made when the first worker is needed. A broken plugin makes only its own workers
unusable: its error is kept, and raised when such a worker is needed.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import Distribution, distributions
from types import ModuleType
from typing import Any

import pluggy

from bkrules.errors import BkError, UsageError, did_you_mean
from bkrules.plugin import spec
from bkrules.plugin.calls import Hooks
from bkrules.plugin.checks import BadPlugin, check_metadata, checked_workers, hooks_of, hooks_of_worker
from bkrules.plugin.guard import Hung, guarded, owner_of, text_of
from bkrules.plugin.installed import BLOCKED, Plugin, Plugins, name_of
from bkrules.plugin.registered import AxisKey, Command, PluginRule, Reporter
from bkrules.plugin.worker import Worker

_REGISTRATION: dict[str, Callable[..., Any]] = {
    "bk_register_workers": lambda worker: (worker,),
    "bk_register_rules": PluginRule,
    "bk_register_axis_keys": AxisKey,
    "bk_register_commands": Command,
    "bk_register_reporters": Reporter,
}
"""The hooks by which a plugin registers, and what becomes of the arguments of `register`."""


_blocked: tuple[str, ...] = ()
_left_out: tuple[str, ...] = ()


def block(names: Sequence[str]) -> None:
    """Block the plugins of these names, of distributions or entry points, in this process, as `--noplugin` does."""
    global _blocked
    if _blocked != tuple(names):
        _blocked = tuple(names)
        load.cache_clear()


def leave_out(names: Sequence[str]) -> None:
    """Also block the plugins that a workspace leaves out; these need not be installed, since machines differ."""
    global _left_out
    if _left_out != tuple(names):
        _left_out = tuple(names)
        load.cache_clear()


@functools.lru_cache(maxsize=1)
def load() -> Plugins:
    """Return the workers of every distribution with an entry point in the group `bk`, in the order of their names.

    A broken plugin is in `Plugins.broken`. Raises UsageError for a blocked name that no plugin has.
    """
    found = sorted(_installed(), key=lambda plugin: plugin.names)
    known = {name for plugin in found for name in plugin.names}
    for name in _blocked:
        if name not in known:
            hint = did_you_mean(name, known, "installed")
            raise UsageError("unknown-plugin", f"--noplugin: no plugin {name!r} is installed", hint=hint)
    manager = pluggy.PluginManager(spec.GROUP)
    manager.add_hookspecs(spec)
    plugins = [_loaded(manager, plugin) for plugin in found]
    joined = _joined(plugins)
    return dataclasses.replace(joined, hooks=Hooks(manager, joined.owners))


def _loaded(manager: pluggy.PluginManager, plugin: Plugin) -> Plugin:
    """Return a plugin with its hooks and workers, or with its error."""
    if plugin.error is not None:
        return plugin
    for names, by in ((_blocked, "--noplugin"), (_left_out, "'noplugins' in WORKSPACE.py")):
        if set(plugin.names) & set(names):
            return plugin.failed(BkError(BLOCKED, f"the plugin {plugin.title} is blocked by {by}"))
    step = "import"
    try:
        check_metadata(plugin)
        with guarded():
            module = plugin.entry_point.load()
        step = "hooks"
        plugin = dataclasses.replace(plugin, origin=str(getattr(module, "__file__", "")))
        plugin = dataclasses.replace(plugin, hooks=hooks_of(manager, module))
        title = f"{plugin.title} {plugin.entry_point.name}"
        manager.register(module, title)
        answers = {}
        for step in (hook for hook in _REGISTRATION if hook in plugin.hooks):
            answers[step] = _asked(manager, module, step)
        step = "bk_register_workers"
        workers = checked_workers([one for (one,) in answers.pop(step, ())])
        plugin = dataclasses.replace(plugin, registered=tuple(one for found in answers.values() for one in found))
        hooks = {name for worker in workers for name in hooks_of_worker(manager, worker)}
        return dataclasses.replace(plugin, workers=workers, worker_hooks=tuple(sorted(hooks)))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # anything that a plugin raises, including `SystemExit`, is its own fault
        manager.unregister(name=f"{plugin.title} {plugin.entry_point.name}")
        return plugin.failed(_broken(plugin, step, error))


def _asked(manager: pluggy.PluginManager, module: ModuleType, hook: str) -> list[Any]:
    """Return what a plugin registers by a hook; a worker as it was given. Raises BadPlugin."""
    given: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    others = [one for one in manager.get_plugins() if one is not module]
    ask = manager.subset_hook_caller(hook, others)
    with guarded():
        ask(register=lambda *arguments, **named: given.append((arguments, named)))
    made: list[Any] = []
    names: set[str] = set()
    for arguments, named in given:
        try:
            made.append(_REGISTRATION[hook](*arguments, **named))
        except (TypeError, ValueError) as error:
            raise BadPlugin(f"it registers what {hook} does not take: {error}") from error
        name = "" if hook == "bk_register_workers" else name_of(made[-1])
        if name and name in names:
            raise BadPlugin(f"it registers {name!r} twice in {hook}", "give one of them another name")
        names.add(name)
    return made


def _installed() -> Iterator[Plugin]:
    """Yield the entry points in the group `bk`; of two distributions of one name, those of the one that Python finds first.

    Entry points are one small file; a distribution's name requires parsing all of its metadata. Unreadable entry points
    are skipped.
    """
    seen: set[str] = set()
    for one in distributions():
        try:
            points = one.entry_points.select(group=spec.GROUP)
        except ValueError:  # bytes that are not text, lines that are not entry points
            continue
        if points:
            name, release, requires = _metadata(one)
            if name in seen:
                continue
            seen.add(name)
            for point in points:
                plugin = Plugin(name or f"of the entry point {point.value!r}", release, point, requires)
                yield plugin if name else plugin.failed(_broken(plugin, "import", BadPlugin("it has no METADATA")))


def _metadata(distribution: Distribution) -> tuple[str, str, tuple[str, ...]]:
    """Return a distribution's name, version and requirements; empty ones without readable METADATA."""
    try:
        metadata = distribution.metadata
        found = metadata["Name"], metadata["Version"], tuple(metadata.get_all("Requires-Dist") or ())
    except (ValueError, TypeError, OSError):  # bytes that are not text, or not a file
        return "", "", ()
    return found[0] or "", found[1] or "", found[2]


def _broken(plugin: Plugin, step: str, error: BaseException) -> BkError:
    """Return the error of an unusable plugin, which names the distribution and the hook."""
    own = isinstance(error, BadPlugin | Hung)
    text = text_of(error, named=not own and not isinstance(error, ImportError | RuntimeError))
    where = f"  in {step}" if step.startswith("bk_") else ""
    hint = getattr(error, "hint", "") if isinstance(error, BadPlugin) else ""
    remedy = (
        f"leave it out with --noplugin={plugin.distribution}, or remove it with:"
        f"  {sys.executable} -m pip uninstall {plugin.distribution}"
    )
    return BkError(
        "broken-plugin",
        f"the plugin {plugin.title} cannot be loaded: {text}",
        where=where.strip(),
        hint="\n".join(filter(None, (hint, remedy))),
    )


def _joined(plugins: Sequence[Plugin]) -> Plugins:
    """Return the workers of all plugins. Only a name that two of them have is unusable."""
    owners: dict[str, list[tuple[Plugin, type[Worker]]]] = {}
    for plugin in plugins:
        for worker in plugin.workers:
            owners.setdefault(worker.name, []).append((plugin, worker))
    single = {name: found[0] for name, found in owners.items() if len(found) == 1}
    conflicts = {
        name: BkError(
            "duplicate-worker",
            f"two plugins have a worker {name!r}: {' and '.join(plugin.title for plugin, _ in found)}",
            hint="remove one of them, or leave it out with --noplugin=NAME",
        )
        for name, found in owners.items()
        if len(found) > 1
    }
    workers = {name: worker for name, (_, worker) in single.items()}
    origins = {name: plugin.title for name, (plugin, _) in single.items()}
    return Plugins(workers, origins, installed=tuple(plugins), conflicts=conflicts)


def blamed(error: BaseException) -> BkError | None:
    """Return the error that names the plugin whose code raised, by its traceback; None when it was no plugin's code."""
    if load.cache_info().currsize == 0:
        return None
    owners = {one.module.partition(".")[0]: one for one in load().installed if one.module}
    found = owner_of(error, {module: plugin.title for module, plugin in owners.items()})
    if found is None:
        return None
    trace, title = found
    frame = trace.tb_frame
    worker = frame.f_locals.get("self", frame.f_locals.get("cls"))
    name = getattr(worker, "name", "") if isinstance(worker, Worker) or inspect.isclass(worker) else ""
    return BkError(
        "broken-plugin",
        f"{f'the worker {name!r} of ' if name else ''}the plugin {title} failed in {frame.f_code.co_name}: "
        f"{text_of(error)}",
        where=f"{frame.f_code.co_filename}:{trace.tb_lineno}",
        hint=f"leave it out with --noplugin={title.partition(' ')[0]}",
    )

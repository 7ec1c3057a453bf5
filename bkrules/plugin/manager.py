"""The plugin manager: finds the installed plugins, registers each with pluggy, and asks them for their workers.

A process has one `PluginManager`, made when the first worker is needed. A broken plugin makes only its own workers
unusable: its error is kept, and raised when such a worker is needed.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import Distribution, EntryPoint, distributions, version
from types import ModuleType
from typing import Any, TypeVar

import pluggy

from bkrules.errors import BkError, UsageError, did_you_mean
from bkrules.plugin import spec
from bkrules.plugin.calls import Hooks
from bkrules.plugin.guard import Hung, guarded, owner_of, text_of
from bkrules.plugin.registered import AxisKey, Command, PluginRule, Reporter
from bkrules.plugin.worker import Worker

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


Registered = PluginRule | AxisKey | Command | Reporter
_Kind = TypeVar("_Kind", PluginRule, AxisKey, Command, Reporter)
_REGISTRATION: dict[str, Callable[..., Any]] = {
    "bk_register_workers": lambda worker: (worker,),
    "bk_register_rules": PluginRule,
    "bk_register_axis_keys": AxisKey,
    "bk_register_commands": Command,
    "bk_register_reporters": Reporter,
}
"""The hooks by which a plugin registers, and what becomes of the arguments of `register`."""


class _BadPlugin(Exception):
    """The fault of a plugin, and how its author can fix it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class Plugin:
    """An entry point in the group `bk`.

    `hooks` are implemented by its module, `worker_hooks` by its workers. `error` is why its workers are unusable, or
    None.
    """

    distribution: str
    version: str
    entry_point: EntryPoint
    requires: tuple[str, ...] = ()
    origin: str = ""
    hooks: tuple[str, ...] = ()
    worker_hooks: tuple[str, ...] = ()
    registered: tuple[Registered, ...] = ()
    workers: tuple[type[Worker], ...] = ()
    error: BkError | None = None

    @property
    def title(self) -> str:
        """The distribution and its version."""
        return f"{self.distribution} {self.version}".strip()

    @property
    def module(self) -> str:
        """The module of its entry point; empty when that names anything else."""
        found = re.fullmatch(r"([\w.]+)\s*(\[.*\])?", self.entry_point.value)
        return found[1] if found else ""

    @property
    def names(self) -> tuple[str, str]:
        """The names by which `--noplugin` blocks it."""
        return (self.distribution, self.entry_point.name)

    def failed(self, error: BkError) -> Plugin:
        """Return this plugin without workers, because of an error."""
        return dataclasses.replace(self, workers=(), registered=(), error=error)


@dataclass(frozen=True)
class Plugins:
    """The usable workers by name, and the distribution of each; `before` are those of all workers ever seen here.

    `conflicts` are the errors of the worker names that two plugins have.
    """

    workers: dict[str, type[Worker]]
    distributions: dict[str, str]
    before: Mapping[str, str] = field(default_factory=dict)
    installed: tuple[Plugin, ...] = ()
    conflicts: Mapping[str, BkError] = field(default_factory=dict)
    hooks: Hooks = field(default_factory=Hooks, compare=False, repr=False)

    @property
    def broken(self) -> tuple[Plugin, ...]:
        """The installed plugins that have an error, blocked ones included."""
        return tuple(plugin for plugin in self.installed if plugin.error is not None)

    @property
    def in_cells(self) -> dict[str, str]:
        """The modules of the plugins that act in every cell, and their distributions."""
        usable = (plugin for plugin in self.installed if plugin.error is None)
        return {plugin.module: plugin.distribution for plugin in usable if not spec.CELL_HOOKS.isdisjoint(plugin.hooks)}

    @property
    def owners(self) -> dict[str, str]:
        """The modules of the plugins, as far as their entry points name one, and the title of each."""
        return {plugin.module: plugin.title for plugin in self.installed if plugin.module}

    def registered(self, kind: type[_Kind]) -> dict[str, tuple[_Kind, Plugin]]:
        """Return what usable plugins have registered of a kind, by name. Raises BkError for a name that two of them have."""
        found: dict[str, tuple[_Kind, Plugin]] = {}
        for plugin in self.installed:
            for one in plugin.registered:
                if isinstance(one, kind):
                    name = name_of(one)
                    if name in found:
                        titles = f"{found[name][1].title} and {plugin.title}"
                        message = f"two plugins have a {kind.__name__} {name!r}: {titles}"
                        hint = "remove one of them, or leave it out with --noplugin=NAME"
                        raise BkError("duplicate-name", message, hint=hint)
                    found[name] = (one, plugin)
        return found

    @functools.cached_property
    def runners(self) -> dict[str, tuple[Callable[[Any], None], Plugin]]:
        """The runners of plugins by the mnemonics of their actions. Raises BkError for a mnemonic that two of them have."""
        found: dict[str, tuple[Callable[[Any], None], Plugin]] = {}
        for rule, plugin in self.registered(PluginRule).values():
            for mnemonic, runner in rule.runners.items():
                if found.get(mnemonic, (runner, plugin)) != (runner, plugin):
                    message = f"two runners of {mnemonic!r}: of {found[mnemonic][1].title} and {plugin.title}"
                    raise BkError(
                        "duplicate-name", message, hint=f"leave one out with --noplugin={plugin.distribution}"
                    )
                found[mnemonic] = (runner, plugin)
        return found

    def rules_of(self, module: str) -> dict[str, Any] | None:
        """Return the rules of a plugin's module by name; None when it is no plugin's. Raises BkError for a broken plugin."""
        for plugin in self.installed:
            if plugin.module == module:
                if plugin.error is not None:
                    raise plugin.error
                return {one.name: one.rule for one in plugin.registered if isinstance(one, PluginRule)}
        return None

    def fault_of(self, worker: str) -> BkError | None:
        """Return why an installed worker is unusable; None when no plugin here is known to have one of that name.

        The workers of a plugin that cannot be loaded are known by its entry point's name, and by its earlier workers.
        """
        if worker in self.conflicts:
            return self.conflicts[worker]
        origin = self.before.get(worker, "").split(" ")[0]
        plain = re.sub(r"\W", "_", worker)
        return next((one.error for one in self.broken if origin == one.distribution or plain == one.names[1]), None)


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
                yield plugin if name else plugin.failed(_broken(plugin, "import", _BadPlugin("it has no METADATA")))


def _metadata(distribution: Distribution) -> tuple[str, str, tuple[str, ...]]:
    """Return a distribution's name, version and requirements; empty ones without readable METADATA."""
    try:
        metadata = distribution.metadata
        found = metadata["Name"], metadata["Version"], tuple(metadata.get_all("Requires-Dist") or ())
    except (ValueError, TypeError, OSError):  # bytes that are not text, or not a file
        return "", "", ()
    return found[0] or "", found[1] or "", found[2]


def _loaded(manager: pluggy.PluginManager, plugin: Plugin) -> Plugin:
    """Return a plugin with its hooks and workers, or with its error."""
    if plugin.error is not None:
        return plugin
    for names, by in ((_blocked, "--noplugin"), (_left_out, "'noplugins' in WORKSPACE.py")):
        if set(plugin.names) & set(names):
            return plugin.failed(BkError("blocked-plugin", f"the plugin {plugin.title} is blocked by {by}"))
    step = "import"
    try:
        _check_metadata(plugin)
        with guarded():
            module = plugin.entry_point.load()
        step = "hooks"
        plugin = dataclasses.replace(plugin, origin=str(getattr(module, "__file__", "")))
        plugin = dataclasses.replace(plugin, hooks=_hooks(manager, module))
        title = f"{plugin.title} {plugin.entry_point.name}"
        manager.register(module, title)
        answers = {}
        for step in (hook for hook in _REGISTRATION if hook in plugin.hooks):
            answers[step] = _asked(manager, module, step)
        step = "bk_register_workers"
        workers = _checked([one for (one,) in answers.pop(step, ())])
        plugin = dataclasses.replace(plugin, registered=tuple(one for found in answers.values() for one in found))
        hooks = {name for worker in workers for name in _hooks_of_worker(manager, worker)}
        return dataclasses.replace(plugin, workers=workers, worker_hooks=tuple(sorted(hooks)))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # anything that a plugin raises, including `SystemExit`, is its own fault
        manager.unregister(name=f"{plugin.title} {plugin.entry_point.name}")
        return plugin.failed(_broken(plugin, step, error))


def _asked(manager: pluggy.PluginManager, module: ModuleType, hook: str) -> list[Any]:
    """Return what a plugin registers by a hook; a worker as it was given. Raises _BadPlugin."""
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
            raise _BadPlugin(f"it registers what {hook} does not take: {error}") from error
        name = "" if hook == "bk_register_workers" else name_of(made[-1])
        if name and name in names:
            raise _BadPlugin(f"it registers {name!r} twice in {hook}", "give one of them another name")
        names.add(name)
    return made


def name_of(one: Registered) -> str:
    """Return the name of what a plugin registered."""
    return one.file if isinstance(one, Reporter) else one.name


def _broken(plugin: Plugin, step: str, error: BaseException) -> BkError:
    """Return the error of an unusable plugin, which names the distribution and the hook."""
    own = isinstance(error, _BadPlugin | Hung)
    text = text_of(error, named=not own and not isinstance(error, ImportError | RuntimeError))
    where = f"  in {step}" if step.startswith("bk_") else ""
    hint = getattr(error, "hint", "") if isinstance(error, _BadPlugin) else ""
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


def _check_metadata(plugin: Plugin) -> None:
    """Raise _BadPlugin for an entry point that does not name a module, and for a plugin of another version of bk."""
    value = plugin.entry_point.value
    if not plugin.module:
        what = "an object" if re.fullmatch(r"[\w.]+\s*:.+", value) else "no module"
        raise _BadPlugin(f"its entry point {value!r} names {what}", "name the module alone: MODULE, not MODULE:NAME")
    for text in plugin.requires:
        if re.match(r"bkrules\s*[^\w.;-]", text, re.IGNORECASE):
            _check_requirement(text)


def _check_requirement(text: str) -> None:
    """Raise _BadPlugin for a requirement of bkrules that this version does not meet, if its marker applies, without extras."""
    from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        wanted = Requirement(text)
        holds = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
    except (InvalidRequirement, UndefinedComparison, UndefinedEnvironmentName) as error:
        raise _BadPlugin(f"its Requires-Dist {text!r} cannot be read", "write it as pip's documents say") from error
    here = version("bkrules")
    if holds and not wanted.specifier.contains(here, prereleases=True):
        raise _BadPlugin(f"it requires {text}, and this is bkrules {here}", "install a release that fits")


def _hooks(manager: pluggy.PluginManager, module: ModuleType) -> tuple[str, ...]:
    """Return the names of the hooks that a module implements. Raises _BadPlugin for a function that is not a hook of bk."""
    wanted = getattr(module, "BK_API", spec.API)
    if type(wanted) is not int or wanted > spec.API:
        raise _BadPlugin(
            f"it needs version {wanted!r} of the hooks, and this bk has version {spec.API}", "install a newer bk"
        )
    found = []
    for name, function in vars(module).items():
        if _implements(manager, module, name, function):
            _check_hook(name, tuple(inspect.signature(function).parameters), spec.HOOKS, "it")
            found.append(name)
    if not found:
        raise _BadPlugin(f"the module {module.__name__} implements no hook", "mark functions with @hookimpl")
    return tuple(found)


def _hooks_of_worker(manager: pluggy.PluginManager, worker: type[Worker]) -> Iterator[str]:
    """Yield the hooks that a worker implements for its own cells. Raises _BadPlugin for hooks that do not run in a cell."""
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
    """Return whether a member implements a hook. Raises _BadPlugin for one that merely has the name of a hook."""
    if not inspect.isroutine(member):
        return False
    if manager.parse_hookimpl_opts(plugin, name) is not None:
        return True
    if name in spec.HOOKS:
        raise _BadPlugin(f"its {name} is not marked as a hook", "decorate it with @hookimpl")
    return False


def _check_hook(name: str, arguments: Sequence[str], hooks: Collection[str], whose: str) -> None:
    """Raise _BadPlugin unless `name` is among `hooks`, and has these arguments."""
    if name not in hooks:
        what = "a hook of modules, not of workers" if name in spec.HOOKS else "no hook of bk"
        raise _BadPlugin(f"{whose} implements {name}, which is {what}", did_you_mean(name, hooks, "hooks"))
    known = inspect.signature(getattr(spec, name)).parameters
    for argument in arguments:
        if argument not in known:
            raise _BadPlugin(f"its {name} has the argument {argument!r}", f"{name} has: {', '.join(known)}")


def _checked(registered: Sequence[object]) -> tuple[type[Worker], ...]:
    """Return the workers that a plugin registered. Raises _BadPlugin for anything else, and for two workers of one name."""
    workers: dict[str, type[Worker]] = {}
    for one in registered:
        if not isinstance(one, type) or not issubclass(one, Worker):
            raise _BadPlugin(f"it registered {one!r} as a worker", "register a subclass of Worker")
        name: Any = getattr(one, "name", None)
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            allowed = "letters, digits, '_', '.', '+' and '-' of ASCII, the first one a letter or a digit"
            raise _BadPlugin(f"its worker {one.__name__} has the name {name!r}", f"a name has {allowed}")
        if inspect.isabstract(one):
            raise _BadPlugin(f"its worker {name!r} lacks the methods {', '.join(sorted(one.__abstractmethods__))}")
        if not dataclasses.is_dataclass(one):
            raise _BadPlugin(f"its worker {name!r} is no dataclass", "decorate it with @dataclass(frozen=True)")
        if name in workers:
            raise _BadPlugin(f"it registered two workers of the name {name!r}", "give one of them another name")
        workers[name] = one
    return tuple(workers.values())


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

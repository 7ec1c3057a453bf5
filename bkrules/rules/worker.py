"""`worker`: a configured worker of an installed plugin."""

from __future__ import annotations

from bkrules.analysis.context import Context
from bkrules.errors import did_you_mean
from bkrules.model.label import Label
from bkrules.model.providers import BinaryInfo, WorkerInfo
from bkrules.model.rule import Attr, Rule, Target
from bkrules.plugin import ask
from bkrules.plugin.installed import Plugins
from bkrules.plugin.worker import SettingsError, Worker

BASE_TOOLS = ("buildctl", "registry")


def _analyze(context: Context) -> tuple[object, ...]:
    try:
        return (_made(context),)
    except ask.WorkerFault as error:
        fault = error.at(context.label)
        name = context.attribute("id") or context.label.name
        return (WorkerInfo(context.label, name, None, {}, fault=fault, usable=context.broken(fault, name)),)


def _made(context: Context) -> WorkerInfo:
    """Make the worker, and find its tools. Raises LoadError for a mistake of the build file, WorkerFault for one of the plugin."""
    try:
        worker = ask.made(_kind(context), context.target.extra)
    except SettingsError as error:
        raise context.error(
            "unknown-attribute" if error.unknown else "bad-attribute", str(error), error.name, error.hint
        ) from error
    found = _tools(context, (*BASE_TOOLS, *ask.tools(worker)))
    tools = {name: tool.file for name, tool in found.items()}
    covered = any(tool.covered for tool in found.values())
    return WorkerInfo(context.label, context.attribute("id") or ask.id_of(worker), worker, tools, covered)


def _kind(context: Context) -> type[Worker]:
    """Return the worker's class. Raises LoadError when it is not installed, and WorkerFault when its plugin is broken."""
    name = context.attribute("plugin")
    kind = context.plugins.workers.get(name)
    fault = context.plugins.fault_of(name) if kind is None else None
    if fault is not None:
        what = f"the worker {name!r} is unusable: {fault.message}"
        raise ask.WorkerFault("unusable-worker", what, where=context.target.location.of("plugin"), hint=fault.hint)
    if kind is None:
        package = "bk-worker-" + name.replace("+", "-").replace("_", "-").lower()
        hint = did_you_mean(name, context.plugins.workers, "installed")
        before = context.plugins.before.get(name)
        source = (
            f"it came with the package {before}: install it again, and name it in plugins/requirements.txt to keep it"
            if before
            else f"by its name it would come with the package {package}"
        )
        raise context.error(
            "unknown-worker",
            f"unknown worker {name!r}",
            "plugin",
            f"{hint}\n{source}",
        )
    return kind


def _implicit(target: Target, plugins: Plugins) -> list[Label]:
    """Return the binaries that the plugin needs by name, and no attribute sets."""
    return [Label("", name) for name in tools_of(target, plugins) if name not in target.attributes["tools"]]


def tools_of(target: Target, plugins: Plugins) -> tuple[str, ...]:
    """Return the names of a worker's tools. There are none for a worker that its own analysis will refuse."""
    kind = plugins.workers.get(target.attributes["plugin"])
    if kind is None:
        return ()
    try:
        return (*BASE_TOOLS, *ask.tools(ask.made(kind, target.extra)))
    except (SettingsError, ask.WorkerFault):
        return ()


def _tools(context: Context, wanted: tuple[str, ...]) -> dict[str, BinaryInfo]:
    given: dict[str, Label] = context.attribute("tools")
    for name in given:
        if name not in wanted:
            raise context.error(
                "unknown-tool", f"the worker runs no {name!r}", "tools", did_you_mean(name, wanted, "its tools")
            )
    found: dict[str, BinaryInfo] = {}
    for name in wanted:
        label = given.get(name, Label("", name))
        if context.workspace.target(label) is None:
            raise context.error(
                "missing-tool",
                f"it needs {name!r}, and there is no {label}",
                "plugin",
                "name a module that has it in WORKSPACE.py, as  bk_dep(name = 'bk_tools')\n"
                f"or declare it there:  go_binary(name = {name!r}, ...)  or  host_binary(name = {name!r})",
            )
        found[name] = context.binary("tools", label)
    return found


WORKER = Rule(
    "worker",
    "A BuildKit worker. The plugin's own settings are attributes too: `bk workers` lists them.",
    {
        "plugin": Attr("string", "The worker's name, one of those that `bk workers` lists.", required=True),
        "id": Attr("string", "Its name in cells; the plugin's choice by default."),
        "tools": Attr(
            "label_dict", "Other binaries than those of WORKSPACE.py, by name: {'runc': '//:runc_old'}.", default={}
        ),
    },
    _analyze,
    open_ended=True,
    implicit=_implicit,
)

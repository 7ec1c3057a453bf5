"""The inputs of a cell: everything that can change what happens in it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import tomli_w

from bkrules.analysis import own_hooks
from bkrules.analysis.context import Context
from bkrules.analysis.host_inputs import HELPERS, REGISTRY, Machine
from bkrules.analysis.plugin_files import plugin_files
from bkrules.analysis.runs import ENVIRONMENT
from bkrules.analysis.updaters import Update, merged
from bkrules.errors import MachineLacks
from bkrules.images.storage import CONFIGURATION
from bkrules.model.action import Artifact, HostFile, Output, Source, Text, parameters
from bkrules.model.label import LabelError, parse_label
from bkrules.model.parameters import UNCHANGED, CellLimits, CellParameters, WorkerUpdate
from bkrules.model.providers import PackageInfo, WorkerInfo
from bkrules.model.reference import Reference
from bkrules.plugin import ask
from bkrules.plugin.installed import Plugins
from bkrules.plugin.worker import MIRROR_ADDRESS, Mirror, Worker

_LIBRARIES = f"{HELPERS}lib/"
PACKAGES = "packages/"
"""The folder of the files of packages among the inputs of a cell: each is at the same path below `/` in the cell."""
COVERAGE = "coverage"
"""The folder of a cell for the coverage data of its tools. Only such tools have the variable GOCOVERDIR."""


@dataclass(frozen=True)
class Limits:
    """The limits of a cell: MiB of memory, processes, MiB of its root, which is in memory too."""

    memory: int = 6144
    pids: int = 4096
    disk: int = 4096


class SandboxInputs(NamedTuple):
    """The inputs of a cell with one worker and one mirror, whichever test it runs."""

    inputs: dict[str, Artifact]
    environment: dict[str, str]
    platform: dict[str, str]
    parameters: CellParameters
    update: WorkerUpdate = UNCHANGED
    is_broken: bool = False


def sandbox_inputs(
    context: Context, info: WorkerInfo, images: Mapping[Reference, Output], limits: Limits
) -> SandboxInputs:
    """Return the inputs, environment, platform and parameters of a cell with this worker and these images in its mirror.

    Raises WorkerFault.
    """
    try:
        return _sandbox_inputs(context, info, images, limits)
    except ask.WorkerFault as fault:
        raise fault.at(info.label) from fault


def _sandbox_inputs(
    context: Context, info: WorkerInfo, images: Mapping[Reference, Output], limits: Limits
) -> SandboxInputs:
    inputs: dict[str, Artifact] = {f"tools/{name}": _tool(tool) for name, tool in info.tools.items()}
    inputs |= _checked(context, info.worker, _configuration(context, info, images))
    for reference, layout in images.items():
        inputs[f"mirror/{reference.host}/{reference.repository}/{reference.tag}"] = layout
    machine = context.machine
    inputs |= inputs_of_machine(machine, context.plugins, {"": info.worker})
    inputs |= helper_inputs(machine, ask.host_tools(info.worker)) | _libraries(machine, *info.tools.values())
    spec = CellParameters(
        plugin=info.worker.name,
        settings=ask.settings(info.worker),
        mirror=tuple(str(reference) for reference in sorted(images)),
        plugins=tuple(context.plugins.in_cells),
        unsupported=tuple(sorted(context.unsupported(ask.features(info.worker)))),
        limits=CellLimits(limits.memory << 20, limits.pids, limits.disk << 20),
        ext4=bool(info.worker.wants_ext4 and machine.host.mke2fs),
    )
    environment = {**ENVIRONMENT, "GOCOVERDIR": f"/out/{COVERAGE}"} if info.covered else dict(ENVIRONMENT)
    return SandboxInputs(inputs, environment, machine.platform, spec)


def usable(context: Context, info: WorkerInfo, fault: ask.WorkerFault) -> Output:
    """Return an output that an action with a broken worker waits for, and whose action fails. Raises the fault unless
    `keep_going`.
    """
    return info.usable or context.broken(fault.at(info.label), info.id)


def broken_inputs(context: Context, info: WorkerInfo, fault: ask.WorkerFault) -> SandboxInputs:
    """Return what a cell with a broken worker is made of: an action that fails. Raises the fault unless the build keeps going."""
    nothing = CellParameters(
        plugin=info.id, settings={}, mirror=(), plugins=(), unsupported=(), limits=CellLimits(0, 0, 0)
    )
    return SandboxInputs({"plugin/usable": usable(context, info, fault)}, {}, {}, nothing, is_broken=True)


def python_inputs(machine: Machine) -> dict[str, Artifact]:
    """Return the interpreter of this machine with its libraries, and the packages of the locked environment."""
    inputs: dict[str, Artifact] = {f"host/lib/{path.rpartition('/')[2]}": HostFile(path) for path in machine.libraries}
    inputs["host/python"] = HostFile(machine.interpreter)
    inputs["python/packages"] = Text(machine.packages.encode())
    return inputs


def inputs_of_machine(machine: Machine, plugins: Plugins, workers: Mapping[str, Worker]) -> dict[str, Artifact]:
    """Return the inputs that are this machine's in every cell with these workers, besides the commands of the machine.

    `workers` are by the folder of their inputs: an empty text, or the place of an extra worker. Raises WorkerFault.
    """
    found: dict[str, Artifact] = {name: HostFile(path) for name, path in machine.runtime}
    found |= python_inputs(machine)
    found[REGISTRY] = Text(CONFIGURATION.encode())
    for place, worker in workers.items():
        found |= {f"plugin/{name}": HostFile(path) for name, path in plugin_files(worker, plugins.in_cells).items()}
        found[f"{place}plugin/cache_key"] = Text(parameters(own_hooks.cache_key(plugins, worker)).encode())
    return found


def with_tools(context: Context, sandbox: SandboxInputs, worker: WorkerInfo) -> SandboxInputs:
    """Return the inputs with the binaries of the attribute `tools`, which the tests find on PATH. Raises LoadError."""
    more: dict[str, Artifact] = {}
    for label in context.attribute("tools"):
        binary = context.binary("tools", label)
        file, name = binary.file, binary.name or label.name.rpartition("/")[2]
        if f"tools/{name}" in more or worker.tools.get(name, file) != file:
            other = f"{worker.label} runs another" if name in worker.tools else "there are two tools called"
            raise context.error("duplicate-name", f"{other} {name!r}", "tools", "rename the one in 'tools'")
        more[f"tools/{name}"] = _tool(file)
        more |= _libraries(context.machine, file)
    return sandbox._replace(inputs={**sandbox.inputs, **more}) if more else sandbox


def with_packages(context: Context, sandbox: SandboxInputs) -> SandboxInputs:
    """Return the inputs with the files of the attribute `packages`. Raises LoadError for a path that two packages have."""
    more: dict[str, Artifact] = {}
    for label in context.attribute("packages"):
        for path, file in context.provider("packages", label, PackageInfo, "a debian_package").files.items():
            place = PACKAGES + _merged(path)
            if more.get(place, file) != file:
                what = f"{label} has the file {path!r}, which another package has too"
                raise context.error("duplicate-name", what, "packages", "leave it out of the 'files' of one")
            more[place] = file
    return sandbox._replace(inputs={**sandbox.inputs, **more}) if more else sandbox


def _merged(path: str) -> str:
    """Return the path of a package's file in a cell, where `/bin`, `/lib` and the like are links into `/usr`."""
    return f"usr/{path}" if path.partition("/")[0] in ("bin", "lib", "lib64", "sbin") else path


def _other_tools(context: Context, worker: WorkerInfo, update: Update) -> dict[str, Artifact]:
    """Return the binaries that a cell's axis values put in place of the worker's, as inputs. Raises LoadError.

    A worker that runs no such tool stays as it is.
    """
    more: dict[str, Artifact] = {}
    for place, labels in update.tools:
        for name, text in labels.items():
            if name not in worker.tools:
                continue
            try:
                label = parse_label(text, context.label.package)
            except LabelError as error:
                raise context.error("bad-axis", f"the value {place}: {error}", "axes") from error
            if context.workspace.target(label) is None:
                hint = context.workspace.unknown(label)
                raise context.error("unknown-label", f"the value {place}: there is no target {label}", "axes", hint)
            binary = context.binary("axes", label)
            if f"tools/{name}" in more:
                what = f"the value {place} has the tool {name!r}, and so has the value of another axis in the same cell"
                raise context.error("bad-axis", what, "axes")
            if binary.covered:
                what = f"the value {place}: {label} counts what of it runs, which belongs to a worker"
                raise context.error("bad-axis", what, "axes", "name it in 'tools' of a worker")
            more[f"tools/{name}"] = _tool(binary.file)
            more |= _libraries(context.machine, binary.file)
    return more


def _configuration(context: Context, info: WorkerInfo, images: Iterable[Reference]) -> Mapping[Any, Any]:
    """Return the configuration files of a worker's daemons, by name, when these images are in the mirror."""
    mirror = Mirror(MIRROR_ADDRESS, tuple(sorted({reference.host for reference in images})))
    return own_hooks.configuration(context.plugins, info.worker, mirror)


def _checked(context: Context, worker: Worker, documents: Mapping[Any, Any]) -> dict[str, Artifact]:
    """Return the configuration files as inputs.

    Raises WorkerFault for a name that leaves their folder, and for a file that is not a TOML document.
    """
    others = " or ".join(context.plugins.hooks.plugins_with("bk_configure"))
    source = f"its configuration(), or bk_configure of {others}, has" if others else "its configuration() has"
    for name in documents:
        if not _is_file_name(name):
            hint = "name a file below Daemons.configuration, such as 'daemon.toml' or 'certs/ca.toml'"
            raise ask.fault(type(worker), f"{source} a file of the name {name!r}", hint)
        if any(other.startswith(f"{name}/") for other in documents if isinstance(other, str)):
            raise ask.fault(type(worker), f"{source} {name!r} as a file and as a folder", "rename one")
    try:
        return _files(documents)
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        what = f"{source} a document that is not TOML: {error}"
        raise ask.fault(type(worker), what, "return a dictionary of what TOML can say for each file") from error


def _is_file_name(name: object) -> bool:
    """Return whether a name is the normalised name of a file below a folder."""
    return (
        isinstance(name, str)
        and name.isprintable()  # no NUL, no line feed, nothing unprintable
        and not {"", ".", ".."}.intersection(name.split("/"))
    )


def _files(documents: Mapping[str, Mapping[str, Any]]) -> dict[str, Artifact]:
    return {f"config/{name}": Text(tomli_w.dumps(dict(document)).encode()) for name, document in documents.items()}


def updated(
    context: Context,
    sandbox: SandboxInputs,
    info: WorkerInfo,
    images: Iterable[Reference],
    update: Update,
    code: Iterable[str],
) -> SandboxInputs:
    """Return the inputs with the changes of a cell's axis values; `code` are the files with their functions. Raises LoadError."""
    if not update:
        return sandbox
    documents = merged(_configuration(context, info, images), update, info.id, context.error)
    inputs = {**sandbox.inputs, **_files(documents), **_other_tools(context, info, update)}
    if update.functions:
        inputs |= {f"updaters/{path}": Source(path) for path in code}
    return sandbox._replace(inputs=inputs, update=update.parameters)


def _tool(file: Artifact) -> Artifact:
    """Return a binary as a tool of a cell, where it is executable."""
    return replace(file, executable=True) if isinstance(file, HostFile) else file


def _libraries(machine: Machine, *tools: Artifact) -> dict[str, Artifact]:
    """Return the libraries that the binaries of this machine among these tools load, as inputs."""
    found = helper_inputs(machine, sorted({tool.path for tool in tools if isinstance(tool, HostFile)}))
    return {path: file for path, file in found.items() if path.startswith(_LIBRARIES)}


def helper_inputs(machine: Machine, commands: Iterable[str]) -> dict[str, Artifact]:
    """Return the files of this machine's commands, as inputs. A missing one is reported when the key is computed."""
    names = tuple(commands)
    try:
        found = machine.helpers(names)
    except MachineLacks:
        found = {os.path.basename(name): name for name in names}
    return {f"{HELPERS}{name}": HostFile(path) for name, path in found.items()}

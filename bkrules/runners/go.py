"""The runners of FetchWheel and GoBuild: a Go toolchain and the tools that it builds."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from bkrules.analysis.host_inputs import SEARCH_PATH
from bkrules.errors import ActionFailed, MachineLacks
from bkrules.execution import doing
from bkrules.execution.context import RunContext, limit_met, limit_text, network_environment
from bkrules.execution.result import RESOURCES, Outcome
from bkrules.model import digest
from bkrules.model.action import Action, DirectoryNode, FileNode, HostFolder, Node
from bkrules.model.parameters import FetchWheel, parameters_of
from bkrules.model.resources import Limits
from bkrules.model.status import Status
from bkrules.rules.wheels import WHEEL
from bkrules.runners import go_reach
from bkrules.runners.compiler import compiler_of
from bkrules.runners.watched import Compiled, FetchedModules, FetchedWheel
from bkrules.runners.wheels import toolchain
from bkrules.sandbox import outputs
from bkrules.sandbox.spawner import CommandSandbox, Ended
from bkrules.system.files import read_text
from bkrules.system.network import HINT, no_network

_SHOWN = 300
"""The limit in characters of a line of a log in an error."""
COUNTED = "."
COUNT = f'{{{{if ne .ImportPath "unsafe"}}}}{COUNTED}{{{{end}}}}'
"""A template by which `go list` prints a line for each package that Go compiles, and nothing else: the log is for its errors."""
LIMITS = Limits(memory=32768, pids=16384, disk=4096, timeout=7200)
"""The limits of a build. Go runs as many compilers as there are cores, and writes outside of its root too."""


def fetch_wheel(action: Action, _inputs: Mapping[str, Node], context: RunContext) -> Outcome:
    """Fetch a pinned wheel with pip. Raises ActionFailed when its bytes are not those that were pinned."""
    spec = parameters_of(action, FetchWheel)
    folder = context.scratch(action)
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--progress-bar=off",
        "--disable-pip-version-check",
        "--no-deps",
        "--only-binary=:all:",
        "--dest",
        str(folder),
    ]
    temporary = folder / "tmp"
    temporary.mkdir()
    home = os.environ.get("HOME", "/root")
    environment = {"PATH": SEARCH_PATH, "HOME": home, "TMPDIR": str(temporary), **network_environment()}
    doing.tell(action.id, FetchedWheel(folder, _new_log(action, context)))
    _run([*command, spec.requirement], folder, environment, action, context)
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise ActionFailed("fetch", f"{action.label}: pip fetched {len(wheels)} wheels for {spec.requirement}")
    fetched = digest.of_file(wheels[0])
    if fetched.hash != spec.sha256:
        raise ActionFailed(
            "wrong-digest",
            f"{action.label}: {wheels[0].name} has another sha256 than the one pinned",
            hint=f"pinned:  {spec.sha256}\nfetched: {fetched.hash}\nif the new bytes are the right ones, pin them in WORKSPACE.py",
        )
    return Outcome(Status.PASSED, {WHEEL: str(wheels[0])})


def go_build(action: Action, inputs: Mapping[str, Node], context: RunContext) -> Outcome:
    """Build one command, or the tests of a package. Go's own caches are next to the disk cache.

    First bk fetches the modules, which go.sum names by digest; then the build runs in a sandbox without a network.
    """
    folder = context.scratch(action)
    is_tree = action.arguments[1] == "-C"  # so what else bk puts into the folder is no part of the module
    for path, node in inputs.items():
        if path.startswith("src/") and isinstance(node, FileNode):
            target = folder / (path if is_tree else path.removeprefix("src/"))
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(node.path, target)
    folders = {folder / path: item.path for path, item in action.inputs if isinstance(item, HostFolder)}
    wheel = inputs[WHEEL]
    assert isinstance(wheel, FileNode)
    doing.tell(action.id, "unpacks Go")
    go = toolchain(wheel, context.cache)
    built, modules, scratch = context.cache / "go/build", context.cache / "go/mod", folder / "tmp"
    for place in (built, modules, scratch):
        place.mkdir(parents=True, exist_ok=True)
    compiler = compiler_of(inputs, context.cache, dict(action.environment)["GOARCH"])
    environment = {
        "PATH": f"{go}/bin:{SEARCH_PATH}",
        "HOME": str(folder),
        "GOCACHE": str(built),
        "GOMODCACHE": str(modules),
        "GOTMPDIR": str(scratch),
        **({} if _has_workspace(action, inputs) else {"GOWORK": "off"}),
        **compiler.environment,
        **dict(action.environment),
    }
    where = folder / "src" if is_tree else folder
    packages = 0
    if "-mod=vendor" not in environment["GOFLAGS"]:
        doing.tell(action.id, FetchedModules(_new_log(action, context)))
        with _linked(folders):
            packages = _fetch(go, where, {**environment, **network_environment()}, action, context)
    binds = [(str(folder), True), (str(built), True), (str(modules), False), (str(go), False)]
    binds += compiler.binds
    shown = (
        *((path, path, writable) for path, writable in binds),
        *((path, str(place), False) for place, path in folders.items()),
    )
    sandbox = CommandSandbox(str(context.folder.root), shown, compiler.links, LIMITS)
    offline = {**environment, "GOPROXY": "off", "GOSUMDB": "off"}
    trace = scratch / "trace.json"
    doing.tell(action.id, Compiled(trace, packages))
    unlimited = _run([f"{go}/bin/go", *traced(action.arguments, trace)], where, offline, action, context, sandbox)
    for name in action.folders:
        doing.tell(action.id, "looks what each test reaches")
        reach = scratch / "reach"
        words = go_reach.prepared(reach, inputs)
        _run([f"{go}/bin/go", *words], reach, {**offline, **go_reach.ALONE}, action, context, sandbox)
        _run(
            go_reach.command(reach, f"{go}/bin/go", folder / name, action, inputs),
            where,
            offline,
            action,
            context,
            sandbox,
        )
    return Outcome(Status.PASSED, {name: str(folder / name) for name in action.outputs}, unlimited=unlimited)


def traced(words: Sequence[str], trace: Path) -> list[str]:
    """Return the words of a build, which then writes a trace. Go takes -C as its first flag alone."""
    place = 3 if words[1] == "-C" else 1
    return [*words[:place], f"-debug-trace={trace}", *words[place:]]


def _fetch(go: Path, where: Path, environment: Mapping[str, str], action: Action, context: RunContext) -> int:
    """Fetch the modules of a build. Return the number of packages that it compiles.

    Raises ActionFailed for a module whose digest no go.sum has.
    """
    words = action.arguments
    change = words[1:3] if words[1] == "-C" else ()
    tags = words.index("-tags") if "-tags" in words else 0
    tagged = words[tags : tags + 2] if tags else ()
    tests = ["-test"] if words[0] == "test" else []
    sums = where.joinpath(*change[1:], "go.sum")
    before = _pinned(sums)
    command = [f"{go}/bin/go", "list", *change, "-buildvcs=false", "-deps", *tests, "-f", COUNT, *tagged, words[-1]]
    _run(command, where, environment, action, context, counted=COUNTED)
    more = sorted(_pinned(sums) - before)
    if more:
        raise ActionFailed(
            "unpinned",
            f"{action.label}: it needs {' '.join(more[0].split()[:2])}, whose digest is in no go.sum",
            hint="run `go mod tidy` in the folder of the module that requires it",
        )
    return read_text(context.log(action)).splitlines().count(COUNTED)


def _pinned(sums: Path) -> set[str]:
    """Return the lines of a go.sum for modules, without those for their go.mod files alone."""
    lines = read_text(sums).splitlines() if sums.exists() else []
    return {line for line in lines if "/go.mod " not in line}


def _has_workspace(action: Action, inputs: Mapping[str, Node]) -> bool:
    """Return whether a go.work among the sources applies to the build."""
    tree = inputs.get("src")
    below = tree.files if isinstance(tree, DirectoryNode) else {path.removeprefix("src/") for path in inputs}
    folder = os.path.normpath(action.arguments[2]) if action.arguments[1] == "-C" else "."
    while folder not in ("", "."):
        if f"{folder}/go.work" in below:
            return True
        folder = os.path.dirname(folder)
    return "go.work" in below


@contextmanager
def _linked(folders: Mapping[Path, str]) -> Iterator[None]:
    """Show folders of this machine by links at their places, as long as the context lasts."""
    for place, path in folders.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(path)
    try:
        yield
    finally:
        for place in folders:
            place.unlink()


def _new_log(action: Action, context: RunContext) -> Path:
    """Return the path of an action's log, without the log of an earlier command."""
    log = context.log(action)
    log.unlink(missing_ok=True)
    return log


def _run(
    command: list[str],
    folder: Path,
    environment: Mapping[str, str],
    action: Action,
    context: RunContext,
    sandbox: CommandSandbox | None = None,
    *,
    counted: str = "",
) -> tuple[str, ...]:
    """Run a command. Return the limits that this machine could not apply.

    The lines that are `counted` alone are no part of the log of a failure.

    Raises ActionFailed when it fails, and MachineLacks for one without a sandbox when nobody answers it.
    """
    log = _new_log(action, context)
    if sandbox is None:
        ended = Ended(context.processes.run(command, str(folder), environment, str(log)))
        over = ""
    else:
        ended = context.processes.run_in_sandbox(command, str(folder), environment, str(log), sandbox)
        over = limit_text(sandbox.limits, limit_met(ended, log))
    if ended.code and counted:
        log.write_text("".join(line for line in read_text(log).splitlines(keepends=True) if line.strip() != counted))
    if ended.code and sandbox is None and no_network(said := outputs.tail(log)):
        what = f"{action.label}: {action.mnemonic} has no answer from the network"
        last = next((line for line in said.splitlines() if no_network(line)), "")[:_SHOWN]
        raise MachineLacks("no-network", what, hint=f"{last}\n{HINT}\nits output is in {log}")
    if ended.code or over:
        raise ActionFailed(
            RESOURCES if over else "command-failed",
            f"{action.label}: {action.mnemonic} {over or f'failed with exit status {ended.code}'}",
            hint=f"its output is in {log}",
            log=outputs.tail(log),
        )
    return ended.unlimited

"""`bk pin`: the go.mod and go.sum of go_binary targets that build a package of another module."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from bkrules import errors
from bkrules.commands.own_files import add_modules
from bkrules.commands.parser import add_cache, command, nothing
from bkrules.errors import BkError, MachineLacks, UsageError

if TYPE_CHECKING:
    from bkrules.build.pinned_go import PinnedGo
    from bkrules.build.pins import Files, Pins
    from bkrules.build.request import Options
    from bkrules.commands.parser import Commands
    from bkrules.loading.workspace import Workspace
    from bkrules.model.label import Label

GoOf = Callable[["Label"], "PinnedGo"]


def add(commands: Commands) -> None:
    """Add the command of this module to the parser."""
    pin = command(commands, "pin", _pin, "write go.mod and go.sum of the go_binary targets that build another module")
    pin.add_argument(
        "patterns", nargs="*", metavar="PATTERN", help="//pkg:name, //pkg:all, //pkg/..., -//pkg:name (default: //...)"
    )
    what = pin.add_mutually_exclusive_group()
    what.add_argument(
        "--update",
        action="store_true",
        help="move the build files to newer releases first: a go_binary to the newest, a release of go_releases to the newest "
        "patch of its series",
    )
    what.add_argument("--check", action="store_true", help="write nothing, and end with 1 when a file is not right")
    add_cache(pin)
    add_modules(pin)


def _pin(arguments: argparse.Namespace) -> int:
    from bkrules.build.analysis import open_workspace
    from bkrules.build.request import Options

    patterns = [text.strip() for text in arguments.patterns] or ["//..."]
    options = Options(os.cpu_count() or 1, os.path.abspath(arguments.disk_cache))
    workspace = open_workspace(".")
    labels = _labels(workspace, patterns)
    chosen = _chosen(workspace, labels)
    if not chosen:
        what = f"no go_binary with a 'module' is among {' '.join(patterns)}"
        raise nothing(what, "see `bk query 'kind(go_binary, //...)'`")
    go_of = _toolchains(workspace, options)
    if arguments.check:
        return _check(workspace, chosen, options, go_of)
    if arguments.update:
        labels |= _update(workspace, chosen, go_of)
        workspace = open_workspace(".")
        chosen = _chosen(workspace, labels)
    return _write(workspace, chosen, go_of)


def _labels(workspace: Workspace, patterns: Sequence[str]) -> set[Label]:
    from bkrules.build.analysis import package_of
    from bkrules.model.label import parse_pattern

    package = package_of(workspace, ".")
    return {target.label for target in workspace.match([parse_pattern(text, package) for text in patterns])}


def _chosen(workspace: Workspace, labels: set[Label]) -> list[Pins]:
    """Return the pins of the targets with these labels, each with all targets that share it. Raises LoadError."""
    from bkrules.build.pins import pins_of

    found = [pins for pins in pins_of(workspace.every()) if any(target.label in labels for target in pins.targets)]
    for pins in found:
        assert pins.modules  # or it raises
    return found


def _toolchains(workspace: Workspace, options: Options) -> GoOf:
    """Return a function that gives the Go of a toolchain, each fetched once."""
    known: dict[Label, PinnedGo] = {}

    def go_of(label: Label) -> PinnedGo:
        from bkrules.build.pinned_go import pinned_go

        if label not in known:
            known[label] = pinned_go(workspace, label, options)
        return known[label]

    return go_of


def _update(workspace: Workspace, chosen: Sequence[Pins], go_of: GoOf) -> set[Label]:
    """Move the build files to newer releases. Return the labels of the targets that have moved."""
    from bkrules.build.pin_updates import newer, write

    moves = newer(workspace, chosen, go_of)
    write(workspace, moves)
    for move in moves:
        print(f"moved {move.target.label}: {move.old} -> {move.new}", flush=True)
    return {move.label for move in moves}


def _write(workspace: Workspace, chosen: Iterable[Pins], go_of: GoOf) -> int:
    from bkrules.build.pins import read, resolved, write

    unchanged = 0
    for pins in chosen:
        before = read(workspace, pins)
        after = resolved(go_of(pins.toolchain), pins, before)
        if after == before:
            unchanged += 1
            continue
        write(workspace, pins, after)
        print(f"pinned {pins.mod.path}: {_summary(pins, after)}", flush=True)
    print(f"{unchanged} were right")
    return errors.SUCCESS


def _summary(pins: Pins, files: Files) -> str:
    modules = ", ".join(f"{module} {version}" for module, version in pins.modules.items())
    return f"{modules}, {files.mod.count(' v')} modules, {len(files.sum.splitlines())} sums"


def _check(workspace: Workspace, chosen: Sequence[Pins], options: Options, go_of: GoOf) -> int:
    wrong = 0
    for pins in chosen:
        lines = [] if _is_built(workspace, pins, options) else _faults(workspace, pins, go_of)
        wrong += bool(lines)
        for line in lines:
            print(line, flush=True)
    if wrong:
        print(f"{wrong} of {len(chosen)} pins are not right; `bk pin` writes them", file=sys.stderr)
        return errors.BUILD_FAILED
    print(f"{len(chosen)} pins are right")
    return errors.SUCCESS


def _is_built(workspace: Workspace, pins: Pins, options: Options) -> bool:
    """Return whether all binaries of these very pins are in the disk cache, which proves that they are right."""
    from bkrules.build.analysis import analyze_targets
    from bkrules.build.execute import Execution

    try:
        analysis = analyze_targets(workspace, pins.targets)
    except BkError:
        return False
    execution = Execution(analysis, options, lambda line: print(line, file=sys.stderr), show=False)
    found = [execution.look_up(action).cache for action in analysis.wanted().values()]
    execution.digests.save()
    return all(found)


def _faults(workspace: Workspace, pins: Pins, go_of: GoOf) -> list[str]:
    """Return lines that tell how the pins differ from what they must be. Raises MachineLacks when the network is needed."""
    from bkrules.build.pins import differences, is_right, read, resolved

    go, before = go_of(pins.toolchain), read(workspace, pins)
    try:
        if before is not None and is_right(go, pins, before):
            return []
        return differences(before, resolved(go, pins, before), pins.mod)
    except (MachineLacks, UsageError):
        raise
    except BkError as error:
        return str(error).splitlines()

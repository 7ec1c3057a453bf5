"""`bk repro` and `bk replay`: one file with a cell and its outcome, and the same cell on another machine."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from bkrules import errors
from bkrules.analysis.runs import Runs
from bkrules.build.analysis import check_output, hide_output
from bkrules.build.request import Options
from bkrules.commands.build_arguments import add_cells, runs_of
from bkrules.commands.cells import one_cell
from bkrules.commands.harness import add_overrides, overrides_of
from bkrules.commands.own_files import add_modules
from bkrules.commands.parser import add_cache, command, nothing, positive
from bkrules.commands.remote_arguments import add_remote, remote_of
from bkrules.errors import UsageError
from bkrules.loading.glob import OUTPUT
from bkrules.loading.root import root_of

if TYPE_CHECKING:
    from bkrules.commands.parser import Commands
    from bkrules.repro.archive import Archive
    from bkrules.repro.here import CellHere
    from bkrules.repro.manifest import Recorded
    from bkrules.repro.record import Written
    from bkrules.repro.replay import Replayed, Sources
    from bkrules.repro.reproduction import Reproduction

SUFFIX = ".repro.tgz"
REPLAYS = "replays"
"""The folder in `bk-out` for the logs of replays."""
_FACTS = {"system": "", "architecture": "", "kernel": "kernel ", "python": "Python "}
_DIGITS = 12
_SHOWN = 6
_KIB, _MIB = 1 << 10, 1 << 20


def add(commands: Commands) -> None:
    """Add the commands of this module to the parser."""
    repro = command(
        commands, "repro", _repro, "write a cell and its outcome to one file, which `bk replay` runs elsewhere"
    )
    repro.add_argument(
        "cell",
        metavar="CELL",
        help="test_x/worker=oci, its beginning, a pattern as of --test_filter, or //pkg:matrix[CELL]",
    )
    repro.add_argument(
        "-o",
        "--output",
        default="",
        metavar="FILE",
        help=f"the file to write (default: the name of the cell, and {SUFFIX})",
    )
    repro.add_argument(
        "--self_contained",
        action="store_true",
        help="put tools and large images into the file too, which a replay otherwise builds from the pins of its workspace",
    )
    add_cells(repro)
    add_overrides(repro)
    replay = command(
        commands,
        "replay",
        _replay,
        "run the cell in a file of `bk repro`, or the build in one of `bk record`, and compare the outcome",
    )
    replay.add_argument("file", metavar="FILE", help="a file of `bk repro` or `bk record`")
    replay.add_argument("--show", action="store_true", help="print what the replay would do, and run nothing")
    replay.add_argument(
        "--trust",
        action="store_true",
        help="run the cell as it was recorded, and not in a jail, with the registry in the file, which runs outside of the cell",
    )
    replay.add_argument(
        "--attempts",
        type=positive,
        default=1,
        metavar="N",
        help="run it up to N times, until the outcome is the recorded one",
    )
    replay.add_argument("--json", action="store_true", help="print JSON")
    add_cells(replay)
    add_modules(replay)
    for parser in (repro, replay):
        add_cache(parser)
        add_remote(parser)


def _options(arguments: argparse.Namespace) -> Options:
    return Options(os.cpu_count() or 1, os.path.abspath(arguments.disk_cache), remote=remote_of(arguments))


def _repro(arguments: argparse.Namespace) -> int:
    from bkrules.build.session import NotBuilt
    from bkrules.report.summary import summarize
    from bkrules.repro import outcome
    from bkrules.repro.record import record

    analysis, action = one_cell(arguments.cell, runs_of(arguments), overrides_of(arguments))
    assert action.cell is not None
    if action.cell.skip:
        raise nothing(f"{action.title} does not run: {action.cell.skip}", "choose a cell that is not skipped")
    if action.mnemonic != "TestCell":
        what = f"{action.title} compares what other cells built"
        raise nothing(what, "choose one of these cells")
    path = output_path(arguments.output or re.sub(r"[^\w.+=-]+", "-", action.title)[:100] + SUFFIX)
    try:
        written = record(analysis, action, _options(arguments), path, self_contained=arguments.self_contained)
    except NotBuilt as error:
        print(summarize(error.result, analysis.out), file=sys.stderr)
        return error.exit_code
    print(f"{path}: {size_text(written.size)}, {action.title}: {outcome.shown(written.manifest.result)}")
    tell_of(written, path)
    return errors.SUCCESS


def tell_of(written: Written, path: Path) -> None:
    """Print what a written file lacks, and how to replay it."""
    if written.targets:
        print(
            f"  a replay builds {several(written.targets)} from the pins of its workspace; --self_contained includes them"
        )
        if written.manifest.changed:
            print("  this workspace has uncommitted changes, which other clones lack")
    if written.manifest.variables:
        print(f"  it has no values of --test_env: a replay needs {several(written.manifest.variables)}")
    print(f"  on another machine:  bk replay {path.name}")


def output_path(text: str) -> Path:
    """Return the path of a file to write. Raises UsageError when that cannot be one."""
    path = Path(text)
    if path.is_dir():
        raise UsageError("usage", f"--output: cannot write the file {text}", hint="it is a folder: name a file in it")
    if not path.absolute().parent.is_dir():
        hint = f"make the folder first:  mkdir -p {path.absolute().parent}"
        raise UsageError("usage", f"--output: cannot write the file {text}", hint=hint)
    return path


def _replay(arguments: argparse.Namespace) -> int:
    from bkrules.build.session import NotBuilt
    from bkrules.report.summary import summarize

    out = Path(root_of(".") or ".").absolute() / OUTPUT
    check_output(out)
    hide_output(out)
    runs = runs_of(arguments)
    if runs.number != 1:
        raise UsageError("usage", "bk replay: --runs_per_test is not for one cell", hint="say --attempts=N")
    try:
        return _replayed(arguments, out, runs, _options(arguments))
    except NotBuilt as error:
        print(summarize(error.result, out), file=sys.stderr)
        return error.exit_code


def _replayed(arguments: argparse.Namespace, out: Path, runs: Runs, options: Options) -> int:
    """Replay a file. Return the exit code. Raises BkError."""
    from bkrules.analysis import host_inputs
    from bkrules.cache.cas import Cas
    from bkrules.cache.file_digests import FileDigests
    from bkrules.cache.maintenance import in_use
    from bkrules.loading.plugins import load_plugins
    from bkrules.loading.workspace import STATE
    from bkrules.repro import outcome, replay
    from bkrules.repro.here import Here
    from bkrules.repro.reproduction import open_reproduction

    host_inputs.note_reads_of_plugins()
    digests = FileDigests(str(out / STATE / "digests"))
    cas = Cas(f"{options.disk_cache}/cas", digests)
    scratch = Path(options.disk_cache)
    scratch.mkdir(parents=True, exist_ok=True)
    with in_use(options.disk_cache):
        with _opened(arguments.file, scratch) as file:
            recorded = open_reproduction(file, cas.path)
            _check_variables(recorded, runs)
            plugins = load_plugins(root_of("."))
            machine = host_inputs.load(str(out / STATE), runs.kernel_key)
            found = replay.sources(recorded, file, trusted=arguments.trust)
            here = Here(machine, plugins, digests, cas, trusted=arguments.trust)
            cell = here.cell(recorded, file, dict(runs.environment))
            if not arguments.json or arguments.show:
                _tell(recorded, found, cell, arguments, machine.host.unlimited())
            if arguments.show:
                return errors.SUCCESS
            cell = replay.stage(found, file, cell, cas, options)
        place = out / REPLAYS / recorded.manifest.action.hash[:_DIGITS]
        with replay.opened_context(options, cas, place, machine, plugins) as context:
            for _ in range(arguments.attempts):
                ended = replay.replay(cell, context, dict(runs.environment))
                is_same = outcome.is_same(recorded.manifest.result, ended.result)
                if is_same:
                    break
    digests.save()
    _conclude(recorded, ended, cell, is_same=is_same, as_json=arguments.json)
    return errors.SUCCESS if is_same else errors.ANOTHER_OUTCOME


def _opened(name: str, scratch: Path) -> AbstractContextManager[Archive]:
    """Open the file. Raises UsageError when there is none."""
    from bkrules.repro import archive

    if not Path(name).exists():
        raise UsageError("no-file", f"there is no file {name}", hint="name a file of `bk repro` or `bk record`")
    return archive.opened(Path(name), scratch)


def _check_variables(recorded: Reproduction, runs: Runs) -> None:
    """Raise UsageError when the cell ran with a variable whose value the command line does not give."""
    given = dict(runs.environment)
    missing = [name for name in recorded.manifest.variables if name not in given]
    if missing:
        what = f"the cell was run with {several(missing)}, whose values are never in a file"
        raise UsageError(
            "no-variable", what, hint=" ".join(f"--test_env={plain_text(name)}=VALUE" for name in missing[:_SHOWN])
        )


def _tell(
    recorded: Reproduction, found: Sources, cell: CellHere, arguments: argparse.Namespace, unlimited: Sequence[str]
) -> None:
    """Print what the file has, and what the replay is about to do. `unlimited` are the limits that this machine lacks."""
    from bkrules.repro import outcome

    manifest = recorded.manifest
    facts = [f"{word}{manifest.facts[name]}" for name, word in _FACTS.items() if manifest.facts.get(name)]
    where = ", ".join([f"bk {manifest.bk}", *facts])
    commit = f", commit {manifest.commit[:12]}{' with changes' if manifest.changed else ''}" if manifest.commit else ""
    size = sum(content.size for content in set(found.held.values()))
    limits = recorded.parameters.limits
    confined = "as it was recorded, NOT in a jail: it can take over this machine" if arguments.trust else "in a jail"
    runs = "the test code and the tools of the file"
    lines = [f"{recorded.title} of {manifest.matrix}"]
    if recorded.build is not None:
        runs = "the build and the tools of the file"
        lines.append(f"command: buildctl {shlex.join(recorded.build.words)}")
        lines.append(f"images: {several(recorded.parameters.mirror) or 'none'}")
        lines += [f"left out: {one}" for one in manifest.left_out[:_SHOWN]]
    lines += [
        f"recorded: {outcome.shown(manifest.result)}",
        f"recorded with: {where}{commit}",
        f"runs: {runs}, {confined}, without a network, with up to {limits.memory // _MIB} MiB "
        f"of memory, for up to {recorded.timeout} s",
        f"from the file: {len(found.held)} inputs, {size_text(size)}",
    ]
    lines += [f"without a limit on this machine: {several(unlimited)}"] if unlimited else []
    lines += [f"builds: {several(found.targets)}"] if found.targets else []
    lines += [f"differs here: {several([each.name for each in cell.differences])}"] if cell.differences else []
    for line in lines:
        print(plain_text(line), file=sys.stderr)


def _conclude(recorded: Reproduction, ended: Replayed, cell: CellHere, *, is_same: bool, as_json: bool) -> None:
    """Print whether the outcome is the recorded one."""
    from bkrules.model.action import key_of
    from bkrules.repro import outcome

    if as_json:
        document = {
            "cell": recorded.title,
            "key": {"recorded": recorded.manifest.action.hash, "here": key_of(cell.action, cell.inputs).digest.hash},
            "reproduced": is_same,
            "recorded": _document(recorded.manifest.result),
            "here": _document(ended.result),
            "differences": [vars(each) for each in cell.differences],
            "logs": str(ended.logs),
        }
        print(json.dumps(document, indent=1))
        return
    if is_same:
        print(f"reproduced: {outcome.shown(ended.result)}")
        return
    print(f"not reproduced: {outcome.shown(ended.result)}")
    print(f"  recorded: {outcome.shown(recorded.manifest.result)}")
    for each in cell.differences[:_SHOWN]:
        print(f"  differs here: {plain_text(each.name)}: {plain_text(each.recorded)}, here {plain_text(each.here)}")
    if len(cell.differences) > _SHOWN:
        print(f"  and {len(cell.differences) - _SHOWN} more differences")
    if any(each.name == "isolation" for each in cell.differences):
        print("  if you trust the file, --trust runs the cell as it was recorded, and not in a jail")
    print(f"  see {ended.logs}")


def _document(result: Recorded) -> dict[str, object]:
    return {
        "status": result.status,
        "class": result.failure or None,
        "place": result.place or None,
        "reason": result.reason or None,
    }


def size_text(size: int) -> str:
    """Return a number of bytes in MiB or KiB."""
    return f"{size / _MIB:.1f} MiB" if size >= _MIB else f"{-(-size // _KIB)} KiB"


def several(names: Iterable[str]) -> str:
    """Return names of a stranger, the first few of many."""
    names = list(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(plain_text(name) for name in names[:_SHOWN]) + more


def plain_text(text: str) -> str:
    """Return a text of a stranger as one line that no terminal obeys."""
    from bkrules.repro.outcome import plain

    return plain(text, 400)

"""The files that outlive a build: report.json and test.xml of a matrix, key.json and logs of a cell."""

from __future__ import annotations

import copy
import os
import shutil
import stat
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from bkrules.cache import atomic
from bkrules.cache.cas import MODE
from bkrules.cache.file_digests import FileDigests
from bkrules.execution.layout import KEY, PREVIOUS
from bkrules.execution.result import Attempt, Result
from bkrules.incremental.dependencies import current
from bkrules.model.action import Action, DirectoryNode, FileNode
from bkrules.model.label import Label
from bkrules.model.selected import plan_of
from bkrules.model.status import Status
from bkrules.plugin.calls import PluginFault
from bkrules.plugin.installed import Plugins
from bkrules.plugin.registered import Reporter
from bkrules.plugin.spec import hookimpl
from bkrules.report.build_result import BuildResult, by_matrix, by_status
from bkrules.report.indented import indented
from bkrules.report.kept_keys import KeptKeys, whole_document
from bkrules.system.files import read_regular
from bkrules.system.locks import locked

SCHEMA = 2
"""The version of `report.json`, which `report.schema.json` describes."""
LOCK = ".state/lock"  # below `bk-out`
_MANY = 100
"""The least number of results for a further thread that writes outputs."""
REPORT, JUNIT = "report.json", "test.xml"


def write(
    build: BuildResult, wanted: Collection[Label], out: Path, digests: FileDigests, plugins: Plugins | None = None
) -> None:
    """Write all files of a build below `out`; of the `wanted` targets, the outputs too.

    Files that already have the right bytes are left, so that their stamps stay. Builds that end at the same time write
    one after the other.
    """
    with locked(f"{out}/{LOCK}"):
        _write(build, wanted, out, digests, plugins)


def _write(
    build: BuildResult, wanted: Collection[Label], out: Path, digests: FileDigests, plugins: Plugins | None
) -> None:
    for label, cells in by_matrix(build.results).items():
        with current().of_package(label.package):
            write_matrix(label, cells, build, out, digests, plugins)
    _write_others([result for result in build.results if result.action.cell is None], wanted, out, digests)


def _write_others(results: Sequence[Result], wanted: Collection[Label], out: Path, digests: FileDigests) -> None:
    """Write the keys and outputs of actions that are no cells, many of them in threads: most of the time is the file system's.

    Raises the first exception, when all threads have ended.
    """
    size = max(_MANY, -(-len(results) // len(os.sched_getaffinity(0))))
    parts = [results[start : start + size] for start in range(0, len(results), size)]
    faults: list[BaseException] = []

    def write_part(part: Sequence[Result]) -> None:
        try:
            for result in part:
                _write_other(result, wanted, out, digests)
        except BaseException as error:  # carried to the thread of the build, which raises it
            faults.append(error)

    here, threads = parts[:1], list[threading.Thread]()
    for part in parts[1:]:
        thread = threading.Thread(target=write_part, args=(part,), daemon=True)
        try:
            thread.start()
            threads.append(thread)
        except RuntimeError:  # this machine has no room for a further thread
            here.append(part)
    for part in here:
        write_part(part)
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]


def _write_other(result: Result, wanted: Collection[Label], out: Path, digests: FileDigests) -> None:
    """Write the key of an action that is no cell, and its outputs when it belongs to one of the `wanted` targets."""
    keep_key_of_action(result, out, digests)
    label = result.action.label
    if label in wanted and result.status == Status.PASSED:
        with current().of_package(label.package):
            _show(result, f"{out}/{label.package}/{label.name}", digests)


def _show(result: Result, folder: str, digests: FileDigests) -> None:
    """Put the outputs of a requested target where a user finds them, as links to the cache. Those of an earlier build are
    removed when the new ones are in a remote cache alone.
    """
    if not result.is_here:
        for name in result.outputs:
            _remove(f"{folder}/{name}")
        return
    for name, node in result.outputs.items():
        path = f"{folder}/{name}"
        if isinstance(node, FileNode):
            if not _shows(path, node, digests, MODE):
                atomic.place(node.path, path)
        elif isinstance(node, DirectoryNode) and not _shows_all(path, node, digests):
            shutil.rmtree(path, ignore_errors=True)
            for inner, file in node.files.items():
                atomic.place(file.path, f"{path}/{inner}")


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        with suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(path)


def _shows(path: str, node: FileNode, digests: FileDigests, mode: int | None = None) -> bool:
    """Return whether `path` is a file of these bytes and this mode. The blob that it links to may have been written to."""
    try:
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode) or (mode is not None and stat.S_IMODE(status.st_mode) != mode):
            return False
        return current().look(path) == digests.stamp(node.path) or digests.now(path) == node.digest
    except OSError:
        return False


def _shows_all(folder: str, node: DirectoryNode, digests: FileDigests) -> bool:
    """Return whether `folder` has all these files, and no others."""
    if os.path.islink(folder) or not os.path.isdir(current().note(folder)):
        return False
    present: set[str] = set()
    for parent, folders, names in os.walk(folder):
        present.update(f"{parent}/{name}"[len(folder) + 1 :] for name in names)
        if any(os.path.islink(f"{parent}/{name}") for name in folders) or not (folders or names):
            return False
    return present == node.files.keys() and all(
        _shows(f"{folder}/{path}", file, digests, MODE) for path, file in node.files.items()
    )


def write_matrix(
    label: Label,
    results: Sequence[Result],
    build: BuildResult,
    out: Path,
    digests: FileDigests,
    plugins: Plugins | None = None,
) -> None:
    """Write report.json, test.xml and the reports of plugins of a matrix, and key.json of every cell."""
    folder = out / label.package / label.name
    keys = KeptKeys(folder)
    cells = [_cell(result, folder, out.parent, digests, keys) for result in results]
    keys.sweep()
    document = document_of(label, results, build, cells)
    place = reports(label, build, out)
    if build.selected and build.selected.job:
        _remove_other_plans(place)
    OwnReporters(label, results, folder).bk_register_reporters(
        lambda file, report: _update(place / file, report(document).encode())
    )
    if plugins is not None:
        _write_reports(plugins, document, place)


def document_of(
    label: Label, results: Sequence[Result], build: BuildResult, cells: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Return the report of a matrix with these entries of its cells."""
    points = len({result.action.cell.point for result in results if result.action.cell})
    return {
        "schema": SCHEMA,
        "label": str(label),
        "exit_code": build.exit_code,
        "kernel_key": build.kernel_key,
        "selection": {
            "declared": build.selected.declared[label] if build.selected else points,
            "selected": points,
            "by": list(build.selected.by) if build.selected else [],
            "partition": build.selected.partition or None if build.selected else None,
        },
        "summary": {**by_status(results), "cached": sum(result.cached for result in results), "total": len(results)},
        "cells": cells,
    }


def _remove_other_plans(place: Path) -> None:
    """Remove the reports of jobs of earlier plans, which a CI that keeps `bk-out` would send again."""
    own = plan_of(place.name)
    for folder in place.parent.glob("plan_*_job_*"):
        if plan_of(folder.name) not in ("", own):
            shutil.rmtree(folder)


def _write_reports(plugins: Plugins, document: dict[str, Any], place: Path) -> None:
    """Write the reports of plugins; what is wrong with one is a fault of the build."""
    for reporter, plugin in plugins.registered(Reporter).values():
        call = partial(reporter.report, copy.deepcopy(document))
        try:
            text: object = plugins.hooks.guarded(plugin.title, f"the reporter of {reporter.file}", call)
            if not isinstance(text, str):
                raise plugins.hooks.fault(plugin.title, f"returned {text!r} from the reporter of {reporter.file}")
        except PluginFault as fault:
            plugins.hooks.faults.append(fault)
            continue
        _update(place / reporter.file, text.encode(errors="replace"))


class OwnReporters:
    """bk's own reports of one matrix."""

    def __init__(self, label: Label, results: Sequence[Result], folder: Path) -> None:
        from bkrules.report.junit import junit

        self._junit = partial(junit, label, results, folder)

    @hookimpl
    def bk_register_reporters(self, register: Callable[[str, Callable[[dict[str, Any]], str]], None]) -> None:
        """Register report.json and test.xml."""
        register(REPORT, indented)
        register(JUNIT, lambda _document: self._junit())


def _update(path: Path, data: bytes) -> None:
    """Write a file, unless it has these bytes already."""
    current().note(str(path))
    if path.is_symlink() or not path.is_file() or path.read_bytes() != data:
        atomic.write(str(path), data)


def reports(label: Label, build: BuildResult, out: Path) -> Path:
    """Return the folder of the reports of a matrix. Each shard has a separate one next to the others."""
    folder = out / label.package / label.name
    return folder / build.selected.folder if build.selected else folder


def outputs(
    result: Result, build: BuildResult, wanted: Collection[Label], out: Path, more: Sequence[str] = ()
) -> list[str]:
    """Return the files in `bk-out` that show a result, with the reports of its matrix; `more` are those of plugins."""
    action = result.action
    folder = f"{out}/{action.label.package}/{action.label.name}"
    if action.cell is not None:
        shown = [str(reports(action.cell.matrix, build, out) / name) for name in (REPORT, JUNIT, *more)]
        return [*shown, *(f"{folder}/{action.cell.folder}/{name}" for name in (KEY, *result.outputs))]
    if action.label not in wanted:
        return []
    paths = {f"{folder}/{name}": None for name in result.outputs}
    for name, node in result.outputs.items():
        if isinstance(node, DirectoryNode):
            files = [f"{folder}/{name}/{path}" for path in node.files]
            # The stamp of a folder shows new files in it.
            paths |= dict.fromkeys([*files, *(path.rpartition("/")[0] for path in files)])
    return list(paths)


def _cell(result: Result, folder: Path, root: Path, digests: FileDigests, keys: KeptKeys) -> dict[str, Any]:
    from bkrules.report.junit import reported

    cell = result.action.cell
    assert cell is not None
    place = folder / cell.folder
    if result.key is not None:
        current().note(str(place / KEY))
        _keep_key(result, keys.document(result.key, result.action.mnemonic, cell.folder), place, digests)
    log = place / "test.log"
    return {
        **entry(result),
        "attempts": [_attempt(attempt, place, root) for attempt in result.ran.attempts] if result.ran else [],
        "log": str(log.relative_to(root)) if log.exists() else None,
        **({"cases": [case.to() for case in cases]} if (cases := reported(result, folder)) else {}),
    }


def entry(result: Result) -> dict[str, Any]:
    """Return a cell as a report has it, without what only the files of its run tell."""
    cell = result.action.cell
    assert cell is not None
    return {
        "name": cell.name,
        "label": cell.label,
        "status": result.status,
        "cached": result.cached,
        "cache": result.cache,
        "seconds": round(result.seconds, 3),
        "run": {"number": cell.run, "of": cell.runs} if cell.runs else None,
        "attempts": [],
        "key": result.key.digest.hash if result.key else None,
        "worker": cell.worker,
        "axes": dict(cell.axes),
        "log": None,
        "class": result.failure or None,
        "reason": result.reason or None,
        "egress": [{"who": who, "what": what} for who, what in result.ran.egress] if result.ran else [],
        "isolation": _isolation(result),
        "tainted": list(result.ran.tainted) if result.ran else [],
        "unmet_faults": bool(result.ran and result.ran.unmet),
    }


def _attempt(attempt: Attempt, place: Path, root: Path) -> dict[str, Any]:
    return {
        "status": attempt.status,
        "seconds": round(attempt.seconds, 3),
        "log": str((place / attempt.log).relative_to(root)),
        "class": attempt.failure or None,
        "reason": attempt.reason or None,
    }


def _isolation(result: Result) -> str | None:
    """Return how well a cell was isolated; empty when it never ran. A cell without a limit is never cached."""
    jailed = result.action.cell is not None and result.action.cell.jail
    if result.ran is None:
        return ("jail" if jailed else "full") if result.cached else None
    lacking = " and ".join(result.ran.unlimited)
    without = [f"without a limit of {lacking}"] if lacking else []
    return ", ".join([*(["jail"] if jailed else []), *without]) or "full"


def _keep_key(result: Result, text: bytes, place: Path, digests: FileDigests) -> None:
    """Write the key of a result; for a cached one also its logs, unless they are unchanged, or in a remote cache alone."""
    path = place / KEY
    try:
        current = read_regular(path)
    except OSError:
        current = b""
    if result.cached and not (current == text and _are_logs_of(result, place, digests)):
        shutil.rmtree(place, ignore_errors=True)  # logs of another key would look like logs of this one
        if result.is_here:
            _restore(result.outputs, place)
        current = b""
    if current != text:
        atomic.write(str(path), text)


def _are_logs_of(result: Result, place: Path, digests: FileDigests) -> bool:
    for name, node in result.outputs.items():
        files = (
            {f"{name}/{path}": file for path, file in node.files.items()}
            if isinstance(node, DirectoryNode)
            else {name: node}
        )
        if not all(_shows(f"{place}/{path}", file, digests) for path, file in files.items()):
            return False
    return True


def keep_key_of_action(result: Result, out: Path, digests: FileDigests) -> None:
    """Keep the key of an action that ran and is not a cell, and the key of its previous run, for `bk why`."""
    if result.key is None or result.cached:
        return
    place = action_folder(result.action, out)
    if (place / KEY).exists():
        (place / KEY).replace(place / PREVIOUS)
    _keep_key(result, whole_document(result.key, result.action.mnemonic), place, digests)


def action_folder(action: Action, out: Path) -> Path:
    """Return the folder of an action's keys; for a cell it is the folder of its logs."""
    folder = out / action.label.package / action.label.name
    return (
        folder / action.cell.folder
        if action.cell
        else out / ".state/keys" / action.label.package / action.id.rpartition(":")[2]
    )


def _restore(outputs: Mapping[str, Any], place: Path) -> None:
    place.mkdir(parents=True, exist_ok=True)
    for name, node in outputs.items():
        files = node.files if isinstance(node, DirectoryNode) else {"": node}
        for path, file in files.items():
            target = place / name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file.path, target)

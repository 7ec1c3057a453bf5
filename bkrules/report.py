"""What the user sees: lines while a build runs, a grid and a summary when it is over, and the files that outlive it."""

from __future__ import annotations

import html
import json
import re
import shutil
import sys
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from bkrules import errors
from bkrules.action import Action
from bkrules.cache import atomic
from bkrules.execution.result import Result
from bkrules.label import Label
from bkrules.why import KEY, PREVIOUS

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text

SCHEMA = 1
REPORT, JUNIT = "report.json", "test.xml"
TAIL_LINES = 20
DAEMON_LINES = 8
TAIL_WIDTH = 240


@dataclass(frozen=True)
class BuildResult:
    """The results of a build, in the order of its plan, and what they come to.

    `fault` is why a remote cache that is required could not be given the results; `remote` says that there was such a cache.
    """

    results: tuple[Result, ...]
    seconds: float
    interrupted: bool = False
    leaks: tuple[str, ...] = ()
    fault: str = ""
    remote: bool = False

    @property
    def cells(self) -> list[Result]:
        """The results of test cells."""
        return [result for result in self.results if result.action.cell is not None]

    @property
    def exit_code(self) -> int:
        """Bazel's exit code for the whole; of several, the first of: interrupted, build, tests, machine, nothing ran."""
        if self.interrupted:
            return errors.INTERRUPTED
        broken = {result.failure for result in self.results if result.status == "failed" and result.action.cell is None}
        if broken - {"machine"} or self.leaks:
            return errors.BUILD_FAILED
        if any(result.status in ("failed", "timed out") and result.failure != "machine" for result in self.cells):
            return errors.TESTS_FAILED
        if broken or self.fault or any(result.failure == "machine" for result in self.cells):
            return errors.MACHINE_LACKS
        if any(result.status == "not run" for result in self.results):
            return errors.NOTHING_RAN
        return errors.SUCCESS


class Progress:
    """Says what is going on: a live display on a terminal, one line for each thing that ended elsewhere."""

    def __init__(self, stream: IO[str], total: int, *, live: bool) -> None:
        self._stream = stream
        self._total = total
        self._done = 0
        self._running: dict[str, float] = {}
        self._live: Live | None = None
        self._wants_live = live

    def start(self, name: str, mnemonic: str) -> None:
        """An action has begun."""
        self._running[name] = time.monotonic()
        if self._wants_live and self._live is None:
            self._live = self._open_live()
        elif self._live is None and mnemonic != "TestCell":
            self.say(f"  {mnemonic} {name}")

    def end(self, result: Result) -> None:
        """An action has a result. Hits are only counted."""
        self._done += 1
        action = result.action
        self._running.pop(action.title, None)
        if result.cached or result.status == "not run":
            return
        word = result.status if action.cell is None else result.status.upper()
        if action.cell is None and result.status == "passed":
            word = action.mnemonic
        reason = f": {result.reason.splitlines()[0]}" if result.reason else ""
        self.say(f"[{self._done}/{self._total}] {word} {action.title} {result.seconds:.2f}s{reason}")

    def close(self) -> None:
        """Take the live display away."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, line: str) -> None:
        """Print a line, from any thread."""
        if self._live is not None:
            self._live.console.print(line, highlight=False, markup=False)
        else:
            print(line, file=self._stream, flush=True)

    def _open_live(self) -> Live:
        from rich.console import Console
        from rich.live import Live

        live = Live(
            console=Console(file=self._stream), get_renderable=self._frame, refresh_per_second=10, transient=True
        )
        live.start()
        return live

    def _frame(self) -> Text:
        from rich.text import Text

        now = time.monotonic()
        lines = [f"{self._done}/{self._total} actions, {len(self._running)} running"]
        lines += [f"  {now - since:6.1f}s  {name}" for name, since in list(self._running.items())]
        return Text("\n".join(lines))


def grid(cells: Sequence[Result]) -> str:
    """A table of one matrix: its tests with their axes down, its workers across."""
    workers: dict[str, None] = {}
    rows: dict[str, dict[str, str]] = {}
    for result in cells:
        cell = result.action.cell
        assert cell is not None
        workers[cell.worker] = None
        row = "/".join([cell.test, *(f"{axis}={choice}" for axis, choice in cell.axes)])
        rows.setdefault(row, {})[cell.worker] = _mark(result)
    table = [["", *workers]] + [[row, *(marks.get(worker, "") for worker in workers)] for row, marks in rows.items()]
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in table
    )


def _mark(result: Result) -> str:
    if result.status == "passed":
        return "passed (cached)" if result.cached else f"passed {result.seconds:.2f}s"
    return result.status if result.status in ("skipped", "not run") else result.status.upper()


def summary(build: BuildResult, out: Path) -> str:
    """All that is printed when a build is over."""
    parts = []
    for label, cells in by_matrix(build.results).items():
        parts.append(f"{label}\n{grid(cells)}")
    parts += [_failure(result, out) for result in build.results if result.status in ("failed", "timed out")]
    parts += [f"error: a worker that cells shared: {leak}" for leak in build.leaks]
    parts += [f"error: {build.fault}"] if build.fault else []
    parts += _remarks(build.results)
    parts += _reasons(build.results)
    parts.append(_counts(build))
    return "\n\n".join(parts)


def by_matrix(results: Iterable[Result]) -> dict[Label, list[Result]]:
    """The results of cells by their matrix."""
    found: dict[Label, list[Result]] = {}
    for result in results:
        if result.action.cell is not None:
            found.setdefault(result.action.cell.matrix, []).append(result)
    return found


def _failure(result: Result, out: Path) -> str:
    action = result.action
    if action.cell is None:
        lines = [f"error: {result.reason}"]
        lines += [f"  {line}" for line in result.hint.splitlines()]
        return "\n".join([*lines, *_tail(result.log)])
    kinds = [result.failure] if result.failure not in ("", "test") else []
    kinds += [_count(result.ran.attempts, "attempt")] if result.ran and result.ran.attempts > 1 else []
    kind = f" ({', '.join(kinds)})" if kinds else ""
    lines = [f"{result.status.upper()}{kind}: {action.cell.name}: {result.reason}"]
    lines += [f"  {line}" for line in result.hint.splitlines()]
    lines += [f"  {who} tried to reach {what}" for who, what in (result.ran.egress if result.ran else ())]
    folder = out / action.label.package / action.label.name / action.cell.name
    logs = sorted(folder.glob("*.log"), key=lambda path: (path.name != "test.log", path.name))
    for log in logs:
        count = TAIL_LINES if log.name == "test.log" else DAEMON_LINES
        lines += [f"  {log}", *_tail(log.read_text(errors="replace"), count)]
    return "\n".join(lines)


def _tail(text: str, lines: int = TAIL_LINES) -> list[str]:
    shown = text.splitlines()[-lines:]
    return [f"    | {line[:TAIL_WIDTH]}{'...' if len(line) > TAIL_WIDTH else ''}" for line in shown]


def _remarks(results: Iterable[Result]) -> list[str]:
    """What is to be known of cells that did not fail: flaky ones, those that are not kept, those that tried to leave."""
    found: dict[str, int] = {}
    blocks = []
    for result in results:
        if result.ran is None or result.status not in ("passed", "flaky"):
            continue
        if result.status == "flaky":
            blocks.append(f"FLAKY: {result.action.title}: {result.reason}")
        for name in result.ran.unlimited:
            remark = f"passed without a limit of {name}, which this machine cannot give: not kept in the cache"
            found[remark] = found.get(remark, 0) + 1
        if result.ran.tainted:
            blocks.append(
                f"TAINTED: {result.action.title}: it changed {', '.join(result.ran.tainted)}; not kept in the cache"
            )
        for who, what in result.ran.egress:
            remark = f"passed although {who} tried to reach {what}, and could not"
            found[remark] = found.get(remark, 0) + 1
    return [*blocks, *(f"{_count(count, 'cell')} {remark}" for remark, count in found.items())]


def _reasons(results: Iterable[Result]) -> list[str]:
    """Why cells were skipped or not run, each reason once."""
    found: dict[tuple[str, str, str], int] = {}
    for result in results:
        if result.action.cell is not None and result.status in ("skipped", "not run"):
            why = (result.status, result.reason, result.hint)
            found[why] = found.get(why, 0) + 1
    blocks = []
    for (status, reason, hint), count in found.items():
        remedies = "".join(f"\n  {line}" for line in hint.splitlines())
        blocks.append(f"{_count(count, 'cell')} {status}: {reason}{remedies}")
    return blocks


def _counts(build: BuildResult) -> str:
    cells = build.cells
    others = [result for result in build.results if result.action.cell is None]
    parts = []
    if cells:
        words = ", ".join(f"{count} {status}" for status, count in _by_status(cells).items())
        not_cached = sum(not result.cached for result in cells)
        parts.append(f"{_count(len(cells), 'cell')}: {words} ({_cached(cells, build.remote)}, {not_cached} not)")
    ran = sum(not result.cached and result.status != "not run" for result in others)
    parts.append(f"{_count(len(others), 'action')}: {ran} ran, {_cached(others, build.remote)}")
    saved = sum(result.seconds for result in build.results if result.cached)
    return f"{'; '.join(parts)}; {saved:.1f} s saved, {build.seconds:.2f} s taken"


def _cached(results: Sequence[Result], remote: bool) -> str:
    """How many results are cached; with a remote cache, in which."""
    where = [result.cache for result in results if result.cached]
    if not remote:
        return f"{len(where)} cached"
    return f"{where.count('disk')} from the disk cache, {where.count('remote')} from the remote cache"


def _by_status(results: Iterable[Result]) -> dict[str, int]:
    found: dict[str, int] = {}
    for result in results:
        found[result.status] = found.get(result.status, 0) + 1
    return found


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def write_matrix(label: Label, results: Sequence[Result], build: BuildResult, out: Path) -> None:
    """Write report.json and test.xml of a matrix, and key.json of every cell."""
    folder = out / label.package / label.name
    cells = [_cell(result, folder, out.parent) for result in results]
    document = {
        "schema": SCHEMA,
        "label": str(label),
        "exit_code": build.exit_code,
        "summary": {**_by_status(results), "cached": sum(result.cached for result in results), "total": len(results)},
        "cells": cells,
    }
    atomic.write(str(folder / REPORT), json.dumps(document, indent=1).encode())
    atomic.write(str(folder / JUNIT), junit(label, results).encode())


def outputs(build: BuildResult, wanted: Collection[Label], out: Path) -> list[str]:
    """The files that a build shows in `bk-out`."""
    found = [
        str(out / label.package / label.name / name) for label in by_matrix(build.results) for name in (REPORT, JUNIT)
    ]
    for result in build.results:
        folder = out / result.action.label.package / result.action.label.name
        if result.action.cell is not None:
            found += [str(folder / result.action.cell.name / name) for name in (KEY, *result.outputs)]
        elif result.action.label in wanted:
            found += [str(folder / name) for name in result.outputs]
    return found


def _cell(result: Result, folder: Path, root: Path) -> dict[str, Any]:
    cell = result.action.cell
    assert cell is not None
    place = folder / cell.name
    if result.key is not None:
        _keep_key(result, place)
    log = place / "test.log"
    return {
        "name": cell.name,
        "label": cell.label,
        "status": result.status,
        "cached": result.cached,
        "cache": result.cache,
        "seconds": round(result.seconds, 3),
        "attempts": result.ran.attempts if result.ran else 0,
        "key": result.key.digest.hash if result.key else None,
        "worker": cell.worker,
        "axes": dict(cell.axes),
        "log": str(log.relative_to(root)) if log.exists() else None,
        "class": result.failure or None,
        "reason": result.reason or None,
        "egress": [{"who": who, "what": what} for who, what in result.ran.egress] if result.ran else [],
        "isolation": _isolation(result),
        "tainted": list(result.ran.tainted) if result.ran else [],
    }


def _isolation(result: Result) -> str | None:
    """How well a cell was isolated; nothing for one that never ran. Only results of full isolation are ever cached."""
    if result.ran is None:
        return "full" if result.cached else None
    lacking = " and ".join(result.ran.unlimited)
    return f"without a limit of {lacking}" if lacking else "full"


def _keep_key(result: Result, place: Path) -> None:
    assert result.key is not None
    document = {"key": result.key.digest.hash, "mnemonic": result.action.mnemonic, "leaves": dict(result.key.leaves)}
    text = json.dumps(document, indent=1).encode()
    path = place / KEY
    try:
        current = path.read_bytes()
    except FileNotFoundError:
        current = b""
    if current != text:
        if result.cached:
            shutil.rmtree(place, ignore_errors=True)  # logs of another key would be taken for this one's
            _restore(result.outputs, place)
        atomic.write(str(path), text)


def keep_key_of_action(result: Result, out: Path) -> None:
    """Keep the key of an action that ran and is no cell, and that of its run before, for `bk why`."""
    if result.key is None or result.cached:
        return
    place = action_folder(result.action, out)
    if (place / KEY).exists():
        (place / KEY).replace(place / PREVIOUS)
    _keep_key(result, place)


def action_folder(action: Action, out: Path) -> Path:
    """Where the keys of an action are kept; for a cell it is the cell's own folder."""
    folder = out / action.label.package / action.label.name
    return (
        folder / action.cell.name
        if action.cell
        else out / ".state/keys" / action.label.package / action.id.rpartition(":")[2]
    )


def _restore(outputs: Mapping[str, Any], place: Path) -> None:
    place.mkdir(parents=True, exist_ok=True)
    for name, node in outputs.items():
        shutil.copyfile(node.path, place / name)


def junit(label: Label, results: Sequence[Result]) -> str:
    """The results of a matrix as JUnit XML."""
    failures = sum(result.status in ("failed", "timed out") for result in results)
    skipped = sum(result.status in ("skipped", "not run") for result in results)
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<testsuites><testsuite name={_quoted(str(label))} tests="{len(results)}" failures="{failures}" skipped="{skipped}">',
    ]
    for result in results:
        cell = result.action.cell
        assert cell is not None
        lines.append(
            f'<testcase classname={_quoted(str(label))} name={_quoted(cell.name)} time="{result.seconds:.3f}">'
        )
        axes = {"worker": cell.worker, **dict(cell.axes), "cached": str(result.cached).lower()}
        properties = "".join(f"<property name={_quoted(name)} value={_quoted(value)}/>" for name, value in axes.items())
        lines.append(f"<properties>{properties}</properties>")
        if result.status in ("failed", "timed out"):
            head = f"type={_quoted(result.failure)} message={_quoted(result.reason)}"
            lines.append(f"<failure {head}>{html.escape(_printable(_log(result)))}</failure>")
        elif result.status in ("skipped", "not run"):
            lines.append(f"<skipped message={_quoted(result.reason)}/>")
        lines.append("</testcase>")
    return "\n".join([*lines, "</testsuite></testsuites>", ""])


def _quoted(text: str) -> str:
    return f'"{html.escape(_printable(text))}"'


def _log(result: Result) -> str:
    return Path(result.log).read_text(errors="replace") if result.log and Path(result.log).exists() else ""


# What XML 1.0 cannot hold, escaped or not: control characters, lone surrogates, two noncharacters.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _printable(text: str) -> str:
    return _NOT_XML.sub("", text)


def error_text(error: errors.BkError) -> str:
    """An error as it is printed."""
    return f"error: {error}"


def wants_live(stream: IO[str]) -> bool:
    """Whether a live display suits the stream."""
    return stream.isatty() and sys.platform != "win32"

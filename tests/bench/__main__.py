"""The whole table of bk's speed: `.venv/bin/python -m tests.bench`. README.md next to it explains how."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import enclosure
from bench import cells, chart, engine, mirror
from bench.kinds import Failed
from bench.rows import Measured, Row, from_file, text, to_file, worse
from bench.shared import machine, positive, ran

from bkrules.plugin import host

_PYTHON, _CRANE, _HARNESS = "python -c pass", "crane", "go tuned"
_STARTS = {"bk --version": "bk --version", "null build, 10": "bk"}
"""The works that are compared with the start of Python, with the name of bk's side in the engine's races."""
_PARALLEL = (1, 2, 4)


@dataclass(frozen=True)
class Sizes:
    """The sizes of graphs: the small one, the two of which something changes, and that of clean builds."""

    little: int = 10
    some: int = 1000
    many: int = 10_000
    clean: int = 1000


@dataclass
class Found:
    """What was measured, why rows are missing, and the load of the machine meanwhile."""

    rows: list[Measured] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    loads: list[float] = field(default_factory=lambda: [os.getloadavg()[0]])


def rows(sizes: Sizes) -> list[Row]:
    """Return all rows, with the ratios that bk should reach."""
    return [
        Row("bk --version", _PYTHON, 1.1),
        Row(f"null build, {sizes.little:,}", _PYTHON, 1.4),
        Row(f"null build, {sizes.many:,}", "ninja", 1.3),
        Row(f"one change of {sizes.some:,}", "ninja", 5),
        Row(f"one change of {sizes.many:,}", "ninja", 3),
        Row(f"clean build, {sizes.clean:,}", "ninja", 2.5),
        Row(f"clean build, {sizes.clean:,}", "Bazel", 0.2),
        Row(f"all from cache, {sizes.clean:,}", "Bazel", 0.15),
        *(Row(f"mirror, {kind}", _CRANE, 0.4) for kind in mirror.KINDS),
        *(Row(f"20 cells, {number} at a time", _HARNESS, 0.95) for number in _PARALLEL),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print. Return 0, 1 when a side failed or a row is worse than before, or 2 for wrong usage."""
    sizes = Sizes()
    options = _options(argv)
    if options.small:
        sizes, options.rounds = Sizes(2, 3, 4, 3), 1
    chosen = [row for row in rows(sizes) if any(fnmatchcase(row.name, pattern) for pattern in options.rows)]
    lacks = host.probe().lacks()
    try:
        before = from_file(options.compare) if options.compare else {}
        if not chosen:
            raise ValueError("no row has such a name; there are: " + "; ".join(row.name for row in rows(sizes)))
        if lacks:
            raise ValueError("\n".join(map(str, lacks)))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    found = Found()
    try:
        _engine(chosen, sizes, options, found)
        _mirror(chosen, options, found)
        _cells(chosen, options, found)
    except (Failed, enclosure.Broken, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    found.rows.sort(key=lambda one: chosen.index(one.row))
    return _told(found, options, before)


def _told(found: Found, options: argparse.Namespace, before: dict[str, Measured]) -> int:
    lines = machine(found.loads)
    print(f"wall seconds, median of {options.rounds} rounds; the ratio is the median of the rounds' ratios\n")
    print(text(found.rows, before))
    print("\n".join(["", *lines, *(f"not here: {line}" for line in found.missing)]))
    if options.json:
        to_file(options.json, found.rows, lines)
    if options.chart:
        options.chart.write_text(chart.svg(found.rows))
    return 1 if worse(found.rows, before) else 0


def _engine(chosen: Sequence[Row], sizes: Sizes, options: argparse.Namespace, found: Found) -> None:
    mine = [row for row in chosen if row.peer in (_PYTHON, "ninja", "Bazel")]
    if not mine:
        return
    names = ["bk", *(name for name in ("ninja", "Bazel") if any(row.peer == name for row in mine))]
    tools, missing = engine.find_tools(names, install=options.install)
    found.missing += missing
    works = {row.work for row in mine}
    null_or_change = [
        size
        for size in (sizes.little, sizes.some, sizes.many)
        if {f"null build, {size:,}", f"one change of {size:,}"} & works
    ]
    clean = sizes.clean if {f"clean build, {sizes.clean:,}", f"all from cache, {sizes.clean:,}"} & works else 0
    races = engine.measure(tools, null_or_change or [sizes.little], clean, options.rounds, found.loads)
    for row in mine:
        runs: Mapping[str, Sequence[engine.Run]] = races.runs.get(row.work, {})
        own, other = runs.get("bk"), runs.get(row.peer)
        if row.peer == _PYTHON:
            starts = races.runs["start"]
            own, other = (starts if row.work in starts else runs).get(_STARTS.get(row.work, "bk")), starts[_PYTHON]
        if own and other:
            found.rows.append(Measured(row, [run.seconds for run in own], [run.seconds for run in other]))


def _mirror(chosen: Sequence[Row], options: argparse.Namespace, found: Found) -> None:
    mine = [row for row in chosen if row.peer == _CRANE]
    if not mine:
        return
    try:
        tools = mirror.crane()
    except subprocess.CalledProcessError as error:
        found.missing.append(
            f"crane: bk cannot build it: {(error.stderr or error.stdout or b'').decode().strip()[-300:]}"
        )
        return

    def bench(folder: Path) -> None:
        runs = mirror.measure(folder, options.rounds, tools, found.loads)
        for row in mine:
            kind = row.work.partition(", ")[2]
            found.rows.append(Measured(row, runs["bk", kind], runs[_CRANE, kind]))

    _ended(bench)


def _cells(chosen: Sequence[Row], options: argparse.Namespace, found: Found) -> None:
    mine = {number: row for row in chosen for number in _PARALLEL if row.work == f"20 cells, {number} at a time"}
    if not mine:
        return
    if lacks := cells.lacks():
        found.missing.append(f"{_HARNESS}: {'; '.join(lacks)}")
        return

    def bench(folder: Path) -> None:
        runs, _ = cells.measure(folder, options.rounds, sorted(mine), found.loads)
        for number, row in mine.items():
            own, other = ([run.seconds for run in runs[number, side]] for side in ("bk", _HARNESS))
            found.rows.append(Measured(row, own, other))

    _ended(bench)


def _ended(bench: Callable[[Path], None]) -> None:
    """Run a part of the bench in a temporary folder. Raises Failed."""
    if ran(bench):
        raise Failed("the rows above this line are not whole")


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description="Measure every row of bk's table of speed."
    )
    parser.add_argument("--rounds", type=positive, default=5, help="how often each row is timed")
    parser.add_argument(
        "--rows",
        type=lambda text: text.split(";"),
        default=["*"],
        metavar="NAME;...",
        help="rows by name; * stands for any text",
    )
    parser.add_argument("--small", action="store_true", help="the smallest sizes, one round: does the bench work?")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured")
    parser.add_argument(
        "--compare", type=Path, metavar="FILE", help="mark rows that are more than 5 %% worse than in this file"
    )
    parser.add_argument("--chart", type=Path, metavar="FILE", help="write a chart as SVG")
    parser.add_argument("--install", action="store_true", help="install Debian's Bazel when there is none, as root")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())

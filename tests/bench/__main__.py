"""The whole table of bk's speed: `.venv/bin/python -m tests.bench`. README.md next to it explains how."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import enclosure
from bench import cells, chart, cold, engine, mirror, pull
from bench.kinds import Failed
from bench.rows import Measured, Row, from_file, text, to_file, worse
from bench.shared import ended_in_order, machine, positive, ran

from bkrules.plugin import host

PYTHON, _CRANE, _HARNESS = "python -c pass", "crane", cells.TUNED
_STARTS = {"bk --version": "bk --version", "null build, 10": "bk"}
"""The works that are compared with the start of Python, with the name of bk's side in the engine's races."""
_PARALLEL = (1, 2, 4)
_PULL = f"pull of 1 GiB by {pull.CLIENTS}"
_COLD = "first build of the tools"
_HELP = """what the rows take, on two idle cores:
  bk --version, null builds, one change, clean build, all from cache:
              1 to 2 minutes, and 1 minute for each round
  mirror      10 seconds, and 5 seconds for each round
  pull        30 seconds, and 5 seconds for each round
  20 cells    1 minute, and 50 seconds for each round
  null build, 100,000, with --large alone:
              10 to 15 minutes, and 1 minute for each round
  first build of the tools, with --cold alone:
              15 minutes, 10 GiB of disk, and what the registries of Python and Go take
"""


@dataclass(frozen=True)
class Sizes:
    """The sizes of graphs: the small one, the two of which something changes, that of clean builds, and the one on request."""

    little: int = 10
    some: int = 1000
    many: int = 10_000
    clean: int = 1000
    most: int = 100_000
    layer: int = pull.MIB
    tools: str = "@bk_tools//:all"


SMALL = Sizes(2, 3, 4, 3, 5, 1, "@bk_tools//:box")


@dataclass
class Found:
    """What was measured, why rows are missing, and the load of the machine meanwhile."""

    rows: list[Measured] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    loads: list[float] = field(default_factory=lambda: [os.getloadavg()[0]])


def rows(sizes: Sizes, *, first_build: bool = False, large: bool = False) -> list[Row]:
    """Return all rows, with the ratios that bk should reach; those that take long only on request."""
    return [
        Row("bk --version", PYTHON, 1.1),
        Row(f"null build, {sizes.little:,}", PYTHON, 1.4),
        Row(f"null build, {sizes.many:,}", "ninja", 1.3),
        *([Row(f"null build, {sizes.most:,}", "ninja", 1.3)] if large else []),
        Row(f"one change of {sizes.some:,}", "ninja", 5),
        Row(f"one change of {sizes.many:,}", "ninja", 3),
        Row(f"clean build, {sizes.clean:,}", "ninja", 2.5),
        Row(f"clean build, {sizes.clean:,}", "Bazel", 0.2),
        Row(f"all from cache, {sizes.clean:,}", "Bazel", 0.15),
        *(Row(f"mirror, {kind}", _CRANE, 0.4) for kind in mirror.KINDS),
        *(Row(f"20 cells, {number} at a time", _HARNESS, 0.95) for number in _PARALLEL),
        *(Row(f"20 cells on shared workers, {number} at a time", _HARNESS, 0.35) for number in _PARALLEL),
        Row(_PULL, pull.SIDES[1], 1.11),
        *([Row(_COLD, cold.SIDES[1], 1)] if first_build else []),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print. Return 0, 1 when a side failed or a row is worse than before, or 2 for wrong usage."""
    sizes = Sizes()
    options = _options(argv)
    if options.small:
        sizes, options.rounds = SMALL, 1
    known = rows(sizes, first_build=options.cold, large=options.large)
    chosen = [row for row in known if any(fnmatchcase(row.name, pattern) for pattern in options.rows)]
    lacks = host.probe().lacks()
    try:
        before = from_file(options.compare) if options.compare else {}
        if not chosen:
            raise ValueError("no row has such a name; there are: " + "; ".join(row.name for row in known))
        if lacks:
            raise ValueError("\n".join(map(str, lacks)))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    found, failed = Found(), False
    parts: list[Callable[[], None]] = [
        lambda: _engine(chosen, sizes, options, found),
        lambda: _large(chosen, sizes, options, found),
        lambda: _mirror(chosen, options, found),
        lambda: _pull(chosen, sizes, options, found),
        lambda: _cells(chosen, options, found),
        lambda: _cold(chosen, sizes, found),
    ]
    for part in parts:  # a part that fails takes no row of another with it
        try:
            with ended_in_order():
                part()
        except (Failed, enclosure.Broken, subprocess.CalledProcessError) as error:
            print(f"error: {error}", file=sys.stderr)
            failed = True
    found.rows.sort(key=lambda one: chosen.index(one.row))
    return _told(found, options, before) or int(failed)


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
    peers, large = (PYTHON, "ninja", "Bazel"), f"null build, {sizes.most:,}"
    mine = [row for row in chosen if row.peer in peers and row.work != large]
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
        if row.peer == PYTHON:
            starts = races.runs["start"]
            own, other = (starts if row.work in starts else runs).get(_STARTS.get(row.work, "bk")), starts[PYTHON]
        if own and other:
            found.rows.append(Measured(row, [run.seconds for run in own], [run.seconds for run in other]))


def _large(chosen: Sequence[Row], sizes: Sizes, options: argparse.Namespace, found: Found) -> None:
    for row in chosen:
        if row.work == f"null build, {sizes.most:,}":
            tools, missing = engine.find_tools(["bk", row.peer], install=options.install)
            found.missing += missing
            runs = engine.measure(tools, [sizes.most], 0, options.rounds, found.loads).runs[row.work]
            if row.peer in runs:
                seconds = [[run.seconds for run in runs[name]] for name in ("bk", row.peer)]
                found.rows.append(Measured(row, *seconds))


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
    sides = {"20 cells": cells.OWN, "20 cells on shared workers": cells.OWN_SHARED}
    mine = {
        (number, side): row
        for number in _PARALLEL
        for work, side in sides.items()
        for row in chosen
        if row.work == f"{work}, {number} at a time"
    }
    if not mine:
        return
    if lacks := cells.lacks():
        found.missing.append(f"{_HARNESS}: {'; '.join(lacks)}")
        return

    def bench(folder: Path) -> None:
        races = [*mine, *((number, cells.TUNED) for number in dict.fromkeys(number for number, _ in mine))]
        runs, _ = cells.measure(folder, options.rounds, sorted(races), found.loads)
        for (number, side), row in mine.items():
            own, other = ([run.seconds for run in runs[number, one]] for one in (side, cells.TUNED))
            found.rows.append(Measured(row, own, other))

    _ended(bench)


def _pull(chosen: Sequence[Row], sizes: Sizes, options: argparse.Namespace, found: Found) -> None:
    for row in chosen:
        if row.work == _PULL:

            def bench(folder: Path, row: Row = row) -> None:
                runs = pull.measure(folder, options.rounds, sizes.layer, found.loads)
                own, other = ([seconds for seconds, _ in runs[side]] for side in pull.SIDES)
                found.rows.append(Measured(row, own, other))

            _ended(bench)


def _cold(chosen: Sequence[Row], sizes: Sizes, found: Found) -> None:
    for row in chosen:
        if row.work == _COLD:

            def bench(folder: Path, row: Row = row) -> None:
                runs = cold.measure(folder, 1, sizes.tools, found.loads)
                found.rows.append(Measured(row, *(runs[side] for side in cold.SIDES)))

            _ended(bench)


def _ended(bench: Callable[[Path], None]) -> None:
    """Run a part of the bench in a temporary folder. Raises Failed."""
    if ran(bench):
        raise Failed("these rows are missing; the reason is above")


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description="Measure every row of bk's table of speed.",
        epilog=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
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
    parser.add_argument("--cold", action="store_true", help="also time the first build of the tools, one round of it")
    parser.add_argument("--large", action="store_true", help="also time a null build of 100,000 targets")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured")
    parser.add_argument(
        "--compare", type=Path, metavar="FILE", help="mark rows that are more than 5 %% worse than in this file"
    )
    parser.add_argument("--chart", type=Path, metavar="FILE", help="write a chart as SVG")
    parser.add_argument("--install", action="store_true", help="install Debian's Bazel when there is none, as root")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())

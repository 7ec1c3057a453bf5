"""BuildKit's own tests by hand and as cells: `.venv/bin/python tests/bench/suite.py`. See tests/bench/README.md."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import enclosure
from bench.bk_side import PHASES
from bench.kinds import Cell, Failed
from bench.shared import disk_cache, machine, positive, ran, say, table
from integration.test_go_harness import PACKAGE, SAMPLE
from spaces import Space, place_tools

REPOSITORY = Path(__file__).resolve().parents[2]
_BINARY = "client_test"
_MATRIX = "client_matrix"
_PATH = f"{enclosure.ASSETS}/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ENDED = re.compile(r"^ *--- (PASS|SKIP|FAIL): TestIntegration/(\w+)/worker=\S+ \((.+)s\)$", re.MULTILINE)
_TESTS = [name for name in SAMPLE if name != "TestCacheExportIgnoreError"] + ["TestUser"]
"""The sample, without a test that wants an answer to each question for a name, which an enclosure does not give."""
_STATUSES = {"PASS": "passed", "SKIP": "skipped", "FAIL": "failed"}


@dataclass(frozen=True)
class Side:
    """A run of all tests by one side: its wall seconds, and each test's status and time."""

    seconds: float
    statuses: dict[str, str]
    cells: dict[str, Cell]


def main() -> int:
    """Measure and print; the exit code: 0, or 1 when a side failed or the sides disagree."""
    options = _options()
    return ran(lambda folder: _Bench(folder, Space(REPOSITORY, disk_cache()), options).run())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare BuildKit's own tests by hand with the same tests as cells.")
    parser.add_argument("--rounds", type=positive, default=3, help="how often each side is timed")
    parser.add_argument("--parallel", type=positive, default=2, help="how many tests run at a time")
    parser.add_argument("--worker", default="oci", choices=("oci", "containerd"), help="the worker of the tests")
    parser.add_argument("tests", nargs="*", default=_TESTS, help="tests of the package client; 60 of them by default")
    return parser.parse_args()


class _Bench:
    """The race of the two sides."""

    def __init__(self, folder: Path, space: Space, options: argparse.Namespace) -> None:
        self._assets, self._mirror = folder / "assets", folder / "mirror"
        self._space, self._options = space, options
        self._tests = f"^({'|'.join(options.tests)})$"

    def run(self) -> None:
        """Measure in turns, and print. Raises Failed."""
        self._prepare()
        sides = {"by hand": self._by_hand, "cells": self._cells}
        found: dict[str, list[Side]] = {name: [] for name in sides}
        loads = [os.getloadavg()[0]]
        for turn in range(self._options.rounds):
            for name, side in sides.items():
                found[name].append(side())
                say(f"round {turn + 1} of {self._options.rounds}: {name}: {found[name][-1].seconds:.2f} s")
            _check({name: runs[-1] for name, runs in found.items()})
            loads.append(os.getloadavg()[0])
        self._print(found, loads)

    def _prepare(self) -> None:
        say("building the tools, the tests and their mirror")
        self._bk("build", "@bk_tools//:all", f"{PACKAGE}:{_BINARY}", f"{PACKAGE}:mirror")
        self._bk("mirror", "sync", "--to", str(self._mirror), f"{PACKAGE}:mirror")
        place_tools(REPOSITORY, self._assets / "bin", f"{PACKAGE.removeprefix('//')}/{_BINARY}/{_BINARY}")

    def _bk(self, *arguments: str) -> None:
        done = self._space.bk(*arguments)
        if done.returncode:
            raise Failed(f"bk {arguments[0]} ended with status {done.returncode}:\n{done.stdout}{done.stderr}")

    def _by_hand(self) -> Side:
        """Run the tests where there is no network but the loopback, with bk's tools on PATH."""
        chosen = f"^TestIntegration$/{self._tests}/^worker={self._options.worker}$"
        parallel = f"-test.parallel={self._options.parallel}"
        arguments = [str(enclosure.ASSETS / "bin" / _BINARY), "-test.v", parallel, f"-test.run={chosen}"]
        environment = {
            "PATH": _PATH,
            "HOME": "/root",
            "TMPDIR": "/tmp",
            "BUILDKIT_REGISTRY_MIRROR_DIR": str(enclosure.SHARED),
        }
        answer: dict[str, Any] = enclosure.run(
            lambda: enclosure.run_command(arguments, environment), self._assets, shared=self._mirror
        )
        ended = _ENDED.findall(answer["output"])
        if answer["status"]:
            failed = ", ".join(test for status, test, _ in ended if status == "FAIL") or answer["output"]
            raise Failed(f"by hand, the tests ended with status {answer['status']}: {failed}")
        statuses = {test: _STATUSES[status] for status, test, _ in ended}
        return Side(answer["seconds"], statuses, {test: Cell(float(seconds)) for _, test, seconds in ended})

    def _cells(self) -> Side:
        """Run the same tests as cells. None is taken from the cache."""
        chosen = f"--test_filter=TestIntegration/{self._tests}/^worker={self._options.worker}$"
        more = ["--cache_test_results=no", "--jobs", str(self._options.parallel)]
        began = time.monotonic()
        self._bk("test", f"{PACKAGE}:{_MATRIX}", chosen, *more)
        seconds = time.monotonic() - began
        report = REPOSITORY / "bk-out" / PACKAGE.removeprefix("//") / _MATRIX / "report.json"
        cells = {cell["name"].split("/")[1]: cell for cell in json.loads(report.read_text())["cells"]}
        if cached := [name for name, cell in cells.items() if cell["cached"]]:
            raise Failed(f"bk took from its cache: {', '.join(cached)}")
        statuses = {name: cell["status"] for name, cell in cells.items()}
        return Side(seconds, statuses, {name: _cell(cell) for name, cell in cells.items()})

    def _print(self, found: dict[str, list[Side]], loads: Sequence[float]) -> None:
        statuses = list(found["cells"][-1].statuses.values())
        counts = f"{statuses.count('passed')} passed, {statuses.count('skipped')} skipped"
        print(f"\n{len(statuses)} tests on {self._options.worker}, {counts}; {self._options.parallel} at a time\n")
        rows = [["wall seconds", "median", "min", "max"]]
        for name, sides in found.items():
            seconds = [side.seconds for side in sides]
            rows.append([name, *(f"{value:.2f}" for value in (median(seconds), min(seconds), max(seconds)))])
        print(table(rows))
        ratios = [cells.seconds / hand.seconds for hand, cells in zip(found["by hand"], found["cells"], strict=True)]
        of_rounds = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"\ncells / by hand: {median(ratios):.2f}, median of the rounds ({of_rounds})\n")
        rows = [["a test, milliseconds", "by hand", "cell", *PHASES]]
        for name, choose in (("median", median), ("sum", sum)):
            columns = [
                [cell.seconds for cell in side.cells.values()] for side in (found["by hand"][-1], found["cells"][-1])
            ]
            phases = [[cell.phases.get(phase, 0) for cell in found["cells"][-1].cells.values()] for phase in PHASES]
            rows.append([name, *(f"{1000 * choose(values):.0f}" for values in (*columns, *phases))])
        print(table(rows))
        print("\n".join(["", *machine(loads)]))


def _cell(reported: dict[str, Any]) -> Cell:
    result = (REPOSITORY / reported["log"]).with_name("result.json")
    return Cell(reported["seconds"], json.loads(result.read_text()).get("seconds", {}) if result.exists() else {})


def _check(sides: dict[str, Side]) -> None:
    """Raise Failed unless both sides ran the same tests, and each ended in the same way."""
    hand, cells = (dict(side.statuses) for side in sides.values())
    cells = {name: "passed" if status == "flaky" else status for name, status in cells.items()}
    if different := sorted(name for name in {*hand, *cells} if hand.get(name) != cells.get(name)):
        lines = [
            f"{name}: by hand {hand.get(name, 'not run')}, as a cell {cells.get(name, 'not run')}" for name in different
        ]
        raise Failed("the sides disagree:\n" + "\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())

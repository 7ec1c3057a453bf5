"""The cost of many cells and targets: `.venv/bin/python tests/bench/growth.py`. See README.md next to it."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import growth
from bench.kinds import Failed
from bench.shared import machine, numbers, ran, say, table

MODULE = 10_000
"""The most tests in one module, and targets in one package: a matrix has a limit."""
_COMMANDS = {
    "targets: query": ("query", "deps(//...)"),
    "sets of a function: aquery": ("aquery", "//...", "--json"),
    "sets of a function: why": ("why", "//..."),
    "functions of a module: aquery": ("aquery", "//...", "--json"),
    "methods of a class: aquery": ("aquery", "//...", "--json"),
}
_FORMS = {"targets": "targets", "sets": "sets", "functions": "tests", "methods": "methods"}


@dataclass(frozen=True)
class Cost:
    """CPU seconds of a command, its largest memory in bytes, and the bytes that it prints."""

    seconds: float
    memory: int
    printed: int


def main() -> int:
    """Measure and print; the exit code: 0, or 1 when a command failed."""
    parser = argparse.ArgumentParser(description="Measure what cells and targets cost in small and large workspaces.")
    parser.add_argument("--sizes", type=numbers, default=[1_000, 5_000, 20_000, 50_000], metavar="N,...")
    sizes = sorted(parser.parse_args().sizes)
    return ran(lambda folder: _bench(folder, sizes))


def _bench(folder: Path, sizes: Sequence[int]) -> None:
    loads = [os.getloadavg()[0]]
    rows = [["what", *(f"{size:,}" for size in sizes), "last / first", "memory, MiB", "printed, MiB"]]
    for name, words in _COMMANDS.items():
        costs = []
        for size in sizes:
            say(f"{name}: {size:,}")
            root = folder / f"{_FORMS[name.split()[0].rstrip(':')]}-{size}"
            if not root.exists():
                _write(root, size)
            costs.append(_cost(root, words))
        each = [1000 * cost.seconds / size for cost, size in zip(costs, sizes, strict=True)]
        rows.append(
            [
                name,
                *(f"{one:.3f}" for one in each),
                f"{each[-1] / each[0]:.2f}",
                " ".join(f"{cost.memory >> 20}" for cost in costs),
                " ".join(f"{cost.printed / (1 << 20):.1f}" for cost in costs),
            ]
        )
    loads.append(os.getloadavg()[0])
    lines = "\n".join(machine(loads))
    print(f"\nMilliseconds of CPU a cell or target, of a whole command\n\n{table(rows)}\n{lines}")


def _write(root: Path, size: int) -> None:
    form = root.name.partition("-")[0]
    most = min(size, MODULE)
    growth.write(root, form, most, modules=size // most)


def _cost(root: Path, words: Sequence[str]) -> Cost:
    command = [sys.executable, "-I", "-m", "bkrules", "--nohome_rc", *words]
    with (root / "printed").open("wb") as printed:
        child = subprocess.Popen(command, cwd=root, stdout=printed, stderr=subprocess.PIPE)
        assert child.stderr is not None
        said = child.stderr.read().decode()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise Failed(f"{' '.join(command)} ended with {child.returncode}:\n{said}")
    return Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss << 10, (root / "printed").stat().st_size)


if __name__ == "__main__":
    raise SystemExit(main())

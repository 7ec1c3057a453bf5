"""bk's engine against other build tools: `.venv/bin/python tests/bench/engine.py`. docs/performance.md says more."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.graphs import Graph
from bench.kinds import Failed
from bench.peers import TOOLS, Missing, find
from bench.shared import ended_in_order, machine, numbers, positive, say, table
from bench.tools import Bk, Tool

from bkrules.plugin import host
from bkrules.sandbox import cgroups

_TIMED = Path(__file__).with_name("timed.py")
_OLD_ENOUGH = 2.2
"""Seconds after which bk, and tools that compare whole seconds, trust the time of a file."""
_MIB = 1024


@dataclass(frozen=True)
class Run:
    """One timed command: wall and processor seconds, and peak memory in KiB."""

    seconds: float
    cpu: float
    memory: int


@dataclass
class Races:
    """Runs by what was done and by whom. `memory` is that of servers, in KiB."""

    runs: dict[str, dict[str, list[Run]]] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)

    def add(self, what: str, who: str, run: Run) -> None:
        """Record a run."""
        self.runs.setdefault(what, {}).setdefault(who, []).append(run)


class Bench:
    """The graphs of each tool below `folder`, timed in the cgroups below `group`. There are no clean builds when `clean` is 0."""

    def __init__(self, folder: Path, group: str, tools: Sequence[Tool], sizes: Sequence[int], clean: int) -> None:
        self._folder, self._group = folder, group
        self._tools, self._sizes, self._clean = tools, sizes, clean
        self._graphs: dict[tuple[str, int], Graph] = {}
        self._turn = 0
        self.races = Races()

    def prepare(self) -> None:
        """Write every graph, and build it once."""
        for tool in self._tools:
            for size in sorted({*self._sizes, self._clean} - {0}):
                say(f"preparing: {tool.name}, {size}")
                graph = self._graphs[tool.name, size] = tool.graph(self._folder, size)
                self._build(tool, graph, clean=True)
                graph.check_bytes()
        self._settle()

    def round(self) -> None:
        """Time everything once. The tools take turns, in the other order each time, so that a change of the machine's mood
        meets all of them.
        """
        self._turn += 1
        tools = self._tools if self._turn % 2 else self._tools[::-1]
        self._floor()
        for size in self._sizes:
            for tool in tools:
                self._null(tool, size)
        for size in self._sizes[1:] or self._sizes:
            for tool in tools:
                self._change(tool, size)
        for tool in tools if self._clean else ():
            self._from_nothing(tool)
        self._settle()

    def ask_servers(self) -> None:
        """Note the memory of servers."""
        for tool in self._tools:
            for size in self._sizes:
                memory = tool.server_memory(self._graphs[tool.name, size])
                if memory:
                    self.races.memory[f"null build, {size:,}"] = memory

    def _settle(self) -> None:
        """Let every file be old enough, and every tool see that there is nothing to do."""
        time.sleep(_OLD_ENOUGH)
        for (name, _), graph in self._graphs.items():
            self._build(next(tool for tool in self._tools if tool.name == name), graph)

    def _floor(self) -> None:
        launcher = next((tool.program for tool in self._tools if isinstance(tool, Bk)), None)
        self.races.add("start", "python -c pass", self._run([sys.executable, "-I", "-c", "pass"], self._folder))
        if launcher:
            self.races.add("start", "bk --version", self._run([launcher, "--version"], self._folder))

    def _null(self, tool: Tool, size: int) -> None:
        graph = self._graphs[tool.name, size]
        before = graph.stamps()
        self.races.add(f"null build, {size:,}", tool.name, self._build(tool, graph))
        graph.check_untouched(before)

    def _change(self, tool: Tool, size: int) -> None:
        graph = self._graphs[tool.name, size]
        before = graph.stamps()
        edited = graph.edit(self._turn * 7919 % size, self._turn)
        self.races.add(f"one change of {size:,}", tool.name, self._build(tool, graph))
        graph.check_untouched(before, but=edited)
        graph.check_bytes()

    def _from_nothing(self, tool: Tool) -> None:
        graph = self._graphs[tool.name, self._clean]
        tool.forget(graph, cache=True)
        self.races.add(f"clean build, {self._clean:,}", tool.name, self._build(tool, graph, clean=True))
        graph.check_bytes()
        if tool.has_cache:
            tool.forget(graph, cache=False)
            self._build(tool, graph)
            tool.forget(graph, cache=False)
            self.races.add(f"all from cache, {self._clean:,}", tool.name, self._build(tool, graph))
            graph.check_bytes()

    def _build(self, tool: Tool, graph: Graph, *, clean: bool = False) -> Run:
        return self._run(tool.command(graph, clean=clean), graph.folder)

    def _run(self, command: Sequence[str], folder: Path) -> Run:
        """Run a command in its turn. Raises Failed when it does."""
        log = self._folder / "log"
        timed = [sys.executable, "-I", "-S", str(_TIMED), self._group, str(log), *command]
        done = subprocess.run(timed, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode or done.stdout.split()[-1] != "0":
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:]) if log.exists() else ""
            raise Failed(f"in {folder}: {' '.join(command)}\n{done.stdout}{done.stderr}{tail}")
        seconds, cpu, memory, _ = done.stdout.split()
        return Run(float(seconds), float(cpu), int(memory))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code: 0, 1 when a tool failed, 2 for wrong usage or when this machine lacks something."""
    options = _options(argv)
    lacks = host.probe().lacks()
    if lacks:
        print("\n".join(f"error: {lack}" for lack in lacks), file=sys.stderr)
        return 2
    tools, missing = find_tools(options.tools, install=options.install)
    loads = [os.getloadavg()[0]]
    try:
        with ended_in_order():
            races = measure(tools, options.sizes, options.clean, options.rounds, loads)
    except Failed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(report(races, [tool.name for tool in tools], options.rounds))
    lines = [*machine(loads), ", ".join(tool.version() for tool in tools), *(f"not here: {line}" for line in missing)]
    print("\n".join(["", *lines]))
    return 0


def measure(tools: Sequence[Tool], sizes: Sequence[int], clean: int, rounds: int, loads: list[float]) -> Races:
    """Time so many rounds. The load of the machine after each is added to `loads`. Raises Failed."""
    with _scratch() as folder, cgroup() as group:
        bench = Bench(folder, group, tools, sizes, clean)
        bench.prepare()
        for turn in range(1, rounds + 1):
            bench.round()
            loads.append(os.getloadavg()[0])
            say(f"round {turn} of {rounds} done")
        bench.ask_servers()
    return bench.races


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare bk's engine with other build tools, on the same graphs.")
    parser.add_argument("--rounds", type=positive, default=3, help="how often each is timed")
    parser.add_argument(
        "--sizes", type=numbers, default=[10, 1000, 10_000], metavar="N,...", help="targets of null builds"
    )
    parser.add_argument("--clean", type=positive, default=1000, metavar="N", help="targets of clean builds")
    names = [kind.name for kind in TOOLS]
    parser.add_argument("--tools", type=_names, default=names, metavar="NAME,...", help=f"of {', '.join(names)}")
    parser.add_argument("--install", action="store_true", help="install Bazel by apt-get when it is missing")
    return parser.parse_args(argv)


def _names(text: str) -> list[str]:
    known = [kind.name for kind in TOOLS]
    for name in text.split(","):
        if name not in known:
            raise argparse.ArgumentTypeError(f"no tool {name!r}; there are {', '.join(known)}")
    return text.split(",")


def find_tools(names: Sequence[str], *, install: bool) -> tuple[list[Tool], list[str]]:
    """The tools that are here, and why others are not."""
    found, missing = [], []
    for kind in TOOLS:
        if kind.name in names:
            try:
                found.append(find(kind, install=install))
            except Missing as error:
                missing.append(f"{kind.name}: {error}")
    return found, missing


@contextmanager
def _scratch() -> Iterator[Path]:
    """A temporary folder next to the disk cache, on a real filesystem."""
    parent = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bk-bench-", dir=parent) as folder:
        yield Path(folder)


@contextmanager
def cgroup() -> Iterator[str]:
    """A cgroup in which the kernel counts the time of a command and all that it starts; what still runs at the end is killed."""
    group = f"{host.probe().cgroup}/bk-bench-{os.getpid()}"
    os.mkdir(group)
    try:
        yield group
    finally:
        cgroups.remove(group)


def report(races: Races, tools: Sequence[str], rounds: int) -> str:
    """The tables."""
    parts = [
        f"wall seconds, median (least) of {rounds} rounds",
        table(_rows(races, tools, lambda runs: f"{median(_wall(runs)):.3f} ({min(_wall(runs)):.3f})", ratios=True)),
        "\nprocessor seconds of the command and all that it started, median",
        table(_rows(races, tools, lambda runs: f"{median(run.cpu for run in runs):.3f}")),
        "\npeak memory of the command's largest process, MiB",
        table(_rows(races, tools, lambda runs: f"{max(run.memory for run in runs) / _MIB:.0f}")),
    ]
    if servers := {what: memory for what, memory in races.memory.items() if memory}:
        parts.append(
            "Bazel's server: " + ", ".join(f"{memory / _MIB:.0f} MiB ({what})" for what, memory in servers.items())
        )
    if starts := races.runs.get("start"):
        parts.append("\n" + _start(starts, races.runs))
    return "\n".join(parts)


def _wall(runs: Sequence[Run]) -> list[float]:
    return [run.seconds for run in runs]


def _rows(
    races: Races, tools: Sequence[str], cell: Callable[[Sequence[Run]], str], *, ratios: bool = False
) -> list[list[str]]:
    rows = [["", *tools, *(["bk / ninja", "bk / best other"] if ratios else [])]]
    for what, runs in races.runs.items():
        if what != "start":
            row = [what, *(cell(runs[name]) if name in runs else "-" for name in tools)]
            rows.append([*row, *(_ratios(runs) if ratios else [])])
    return rows


def _ratios(runs: Mapping[str, Sequence[Run]]) -> list[str]:
    """bk's median to ninja's, and to that of the quickest of the tools that look at content, as bk does."""
    medians = {name: median(_wall(found)) for name, found in runs.items()}
    others = [seconds for name, seconds in medians.items() if name not in ("bk", "ninja")]
    own = medians.get("bk")
    best = min(others, default=None)
    return [f"{own / other:.2f}" if own and other else "-" for other in (medians.get("ninja"), best)]


def _start(starts: Mapping[str, Sequence[Run]], races: Mapping[str, Mapping[str, Sequence[Run]]]) -> str:
    floor = median(_wall(starts["python -c pass"]))
    rows = [["", "milliseconds", "to python"]]
    named = dict(starts)
    named |= {f"bk, {what}": runs["bk"] for what, runs in races.items() if what == "null build, 10" and "bk" in runs}
    for what, runs in named.items():
        middle = median(_wall(runs))
        rows.append([what, f"{middle * 1000:.1f}", f"{middle / floor:.2f}"])
    return table(rows)


if __name__ == "__main__":
    sys.exit(main())

"""Actions and cells on a BuildGrid against a local build: `.venv/bin/python tests/bench/remote_execution.py`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))

import buildgrid
import clusters
from bazel_remotes import clean_clone
from bench.kinds import Failed
from bench.remote import REPOSITORY, SERVER
from bench.shared import disk_cache, machine, positive, ran, say, table
from clusters import Begin, Cluster
from spaces import Space, copy_of_cache, matrix

ACTION = """
genrule(
    name = "n{number}", outs = ["out"], tools = ["//:sh"],
    cmd = ["$(location //:sh)", "-c", "echo {round} {number} > $@"],
)
"""
CELL = """
import pytest

@pytest.mark.parametrize("number", range({count}))
def test_hello(sandbox, number):
    assert sandbox.run("debug workers") is not {round}
"""
TOOLS = ("@bk_tools//:all", "//targets:busybox_esgz", "//targets:bulk_esgz")
HEADER = ["", "here", "BuildGrid", "more", "here", "BuildGrid"]


def prepare(space: Space) -> None:
    """Give a workspace with bk's tools what actions and cells need."""
    with (space.root / "WORKSPACE.py").open("a") as file:
        file.write('\nfrom bkrules import host_binary\nhost_binary(name = "sh")\n')
    matrix(space, CELL.format(count=1, round=0), "oci")


def actions(space: Space, count: int, number: int) -> str:
    """Give a workspace new actions that do nothing. Return their label."""
    rules = "".join(ACTION.format(number=each, round=number) for each in range(count))
    space.write("none/BUILD.py", f"from bkrules import genrule\n{rules}")
    return "//none:all"


def cells(space: Space, count: int, number: int) -> str:
    """Give a workspace new cells that say hello to a buildkitd. Return their label."""
    space.write("t/test_small.py", CELL.format(count=count, round=number))
    return "//targets:small"


WORKS: dict[str, Callable[[Space, int, int], str]] = {"no-op action": actions, "hello cell": cells}


def seconds(space: Space, *words: str) -> float:
    """The wall seconds of a build. Raises Failed."""
    began = time.monotonic()
    done = space.bk("build", *words)
    if done.returncode:
        raise Failed(done.stdout + done.stderr)
    return time.monotonic() - began


def rows(space: Space, found: Cluster, begin: Begin, rounds: int, count: int, loads: list[float]) -> list[list[str]]:
    """The table of a prepared workspace: medians of builds that take turns. Raises Failed.

    The first round of each kind fetches tools, and does not count.
    """
    remote = (f"--remote_executor={found.grid.url}", f"--remote_cache={found.cache.url}")
    table_rows, fresh = [HEADER], 0
    for slots in (1, 2):
        begin(f"worker{slots}")
        for what, write in WORKS.items():
            sides: list[tuple[float, float]] = []
            for number in range(rounds + 1):
                say(f"{what}, {slots} at once, round {number}")
                pair = []
                for words in ((f"--jobs={slots}",), remote):
                    fresh += 1
                    pair.append(seconds(space, write(space, count, fresh), *words) / count)
                sides.append((pair[0], pair[1]))
                loads.append(os.getloadavg()[0])
            here, there = (median(side) for side in zip(*sides[1:], strict=True))
            row = [f"{what}, {slots} at once", *(f"{each:.3f} s" for each in (here, there, there - here))]
            table_rows.append([*row, f"{1 / here:.2f}/s", f"{1 / there:.2f}/s"])
    return table_rows


def bench(folder: Path, rounds: int, count: int) -> None:
    """Print a table. Raises Failed."""
    if reason := buildgrid.why_not():
        raise Failed(reason)
    seconds(Space(REPOSITORY, disk_cache()), SERVER, *TOOLS)
    binary = REPOSITORY / "bk-out" / SERVER.removeprefix("//").replace(":", "/") / "bazel-remote"
    space = clean_clone(REPOSITORY, disk_cache(), folder / "client")
    space = replace(space, cache=copy_of_cache(disk_cache(), folder / "cache"))
    prepare(space)
    loads = [os.getloadavg()[0]]
    with ExitStack() as stack:
        found = stack.enter_context(clusters.cluster(buildgrid.install(folder), binary, folder, {}))
        begin = stack.enter_context(clusters.starting(folder, found))
        found_rows = rows(space, found, begin, rounds, count, loads)
    print(table(found_rows))
    print("\n".join(["", *machine(loads)]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=positive, default=3, metavar="N", help="rounds; the table has their medians")
    parser.add_argument("--count", type=positive, default=10, metavar="N", help="actions, or cells, of a build")
    arguments = parser.parse_args()
    sys.exit(ran(lambda folder: bench(folder, arguments.rounds, arguments.count)))

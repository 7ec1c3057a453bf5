"""Cells of bk against BuildKit's integration harness: `.venv/bin/python tests/bench/cells.py`. See docs/performance.md."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import floor, go_side, peers
from bench.bk_side import FRESH, PHASES, SHARED, BkSide
from bench.floor import Floor
from bench.kinds import CELLS, COPIES, KINDS, Failed, Run
from bench.shared import disk_cache, machine, numbers, positive, ran, say, table
from spaces import Space, place_tools

from bkrules.images.storage import write_tree
from bkrules.model.action import DirectoryNode, FileNode
from bkrules.model.digest import of_file
from bkrules.model.reference import Reference
from bkrules.plugin import host, manager

REPOSITORY = Path(__file__).resolve().parents[2]
_BUSYBOX = Reference("docker.io", "library/busybox", "latest")
TUNED, OWN, OWN_SHARED = "go tuned", "bk", "bk, shared"
_MATRICES = {OWN: FRESH, OWN_SHARED: SHARED}
_SIDES = ("go", TUNED, *_MATRICES)


def main() -> int:
    """Measure and print; the exit code: 0, 1 when a side failed, 2 for wrong usage or when this machine lacks something."""
    options = _options()
    missing = lacks()
    if missing:
        print("\n".join(f"error: {lack}" for lack in missing), file=sys.stderr)
        return 2
    return ran(lambda folder: _bench(folder, options.rounds, options.parallel))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare cells of bk with BuildKit's own integration harness.")
    parser.add_argument("--rounds", type=positive, default=5, help="how often each is timed")
    parser.add_argument(
        "--parallel", type=numbers, default=[1, 2, 4], metavar="N,...", help="how many cells run at a time"
    )
    return parser.parse_args()


def lacks() -> list[str]:
    """What this machine lacks, with the remedy."""
    here = host.probe()
    workers = manager.load().workers
    stargz, rootless = workers["oci"].from_settings({"snapshotter": "stargz"}), workers["rootless"].from_settings({})
    found = [str(lack) for lack in (*here.lacks(), *stargz.preflight(here), *rootless.preflight(here))]
    if shutil.which("newuidmap") is None:
        found.append("no newuidmap: rootlesskit maps ids by it; apt-get install uidmap")
    if shutil.which("sudo") is None:
        try:
            peers.sudo()
        except peers.Missing as error:
            found.append(f"the Go harness starts its rootless worker by sudo: {error}; apt-get install sudo")
    return found


def _bench(folder: Path, rounds: int, parallel: Sequence[int]) -> None:
    assets = folder / "assets"
    loads = [os.getloadavg()[0]]
    runs, floors = measure(
        folder, rounds, [(number, side) for number in parallel for side in _SIDES], loads, floors=True
    )
    alone = min(parallel)
    print(f"\n{CELLS} cells, {COPIES} of each worker; wall seconds of {rounds} rounds\n")
    print(table(_wall(runs)))
    print(f"\nOne cell, median milliseconds; {alone} at a time\n")
    print(table(_by_kind({side: runs[alone, side] for side in _SIDES}, floors)))
    print("\n".join(["", *machine(loads), *_versions(assets)]))


def measure(
    folder: Path, rounds: int, races: Sequence[tuple[int, str]], loads: list[float], *, floors: bool = False
) -> tuple[dict[tuple[int, str], list[Run]], dict[str, list[Floor]]]:
    """Return the runs of each race, which is a number of cells at a time and a side, and the floors by worker. Raises Failed.

    The races take turns, in the other order each time. The load after each round is added to `loads`.
    """
    _build_tools()
    assets = folder / "assets"
    _lay_out(assets)
    plugins = manager.load()
    bk = BkSide(REPOSITORY, disk_cache(), folder)
    cells = bk.cells() if floors else []
    say("warm-up")
    for side in 2 * list(
        dict.fromkeys(side for _, side in races)
    ):  # bk remembers a digest of a file that is 2 seconds old
        _run(side, bk, assets, max(number for number, _ in races))
    runs: dict[tuple[int, str], list[Run]] = {race: [] for race in races}
    lowest: dict[str, list[Floor]] = {kind.bk: [] for kind in KINDS}
    for turn in range(1, rounds + 1):
        for (number, side), found in list(runs.items())[:: 1 if turn % 2 else -1]:
            found.append(_run(side, bk, assets, number))
            say(f"round {turn} of {rounds}: {side}, {number} at a time: {found[-1].seconds:.2f} s")
        for cell in cells:
            lowest[cell["worker"]].append(floor.measure(assets, plugins, cell))
        loads.append(os.getloadavg()[0])
    return runs, lowest


def _run(side: str, bk: BkSide, assets: Path, parallel: int) -> Run:
    if side in _MATRICES:
        return bk.run(parallel, _MATRICES[side])
    return go_side.run(assets, parallel, tuned=side == TUNED)


def _build_tools() -> None:
    """Have bk build its tools, the image and the Go harness. Raises Failed."""
    say("building the tools and the Go harness")
    space = Space(REPOSITORY, disk_cache())
    done = space.bk("build", "@bk_tools//:all", "//targets:busybox", "//tests/bench:go_harness")
    if done.returncode:
        raise Failed(f"bk build ended with status {done.returncode}:\n{done.stdout}{done.stderr}")


def _lay_out(assets: Path) -> None:
    """What programs in an enclosure find: the tools in one folder, and the mirror's storage."""
    place_tools(REPOSITORY, assets / "bin", "tests/bench/go_harness/go_harness")
    if shutil.which("sudo") is None:
        shutil.copytree(peers.sudo(), assets / "sudo", symlinks=True)
    layout = REPOSITORY / "bk-out/targets/busybox/layout"
    files = {
        str(path.relative_to(layout)): FileNode(of_file(path), str(path))
        for path in layout.rglob("*")
        if path.is_file()
    }
    write_tree(assets / "mirror", {_BUSYBOX: DirectoryNode(files)})


def _wall(runs: Mapping[tuple[int, str], Sequence[Run]]) -> list[list[str]]:
    rows = [["at a time", "side", "median", "min", "max", "cells/s", *(f"{side} / side" for side in _MATRICES)]]
    for (number, side), found in runs.items():
        seconds = [run.seconds for run in found]
        middle = median(seconds)
        ratios = [median(run.seconds for run in runs[number, own]) / middle for own in _MATRICES]
        columns = [f"{value:.2f}" for value in (middle, min(seconds), max(seconds), CELLS / middle, *ratios)]
        rows.append([str(number), side, *columns])
    return rows


def _by_kind(runs: Mapping[str, Sequence[Run]], floors: Mapping[str, Sequence[Floor]]) -> list[list[str]]:
    phases = [f"bk {phase}" for phase in PHASES]
    rows = [["worker", *(f"{side} cell" for side in _SIDES), *phases, "floor boot", "floor build"]]
    for kind in KINDS:
        cells = {side: [cell for run in runs[side] for cell in run.cells[kind]] for side in _SIDES}
        columns = [[cell.seconds for cell in cells[side]] for side in _SIDES]
        columns += [[cell.phases[phase] for cell in cells["bk"] if phase in cell.phases] for phase in PHASES]
        columns += [[one.boot for one in floors[kind.bk]], [one.build for one in floors[kind.bk]]]
        rows.append([kind.bk, *(f"{1000 * median(values):.0f}" if values else "-" for values in columns)])
    return rows


def _versions(assets: Path) -> list[str]:
    return [_version(assets / "bin" / tool) for tool in ("buildkitd", "containerd", "runc", "rootlesskit", "registry")]


def _version(binary: Path) -> str:
    done = subprocess.run([binary.name, "--version"], executable=binary, capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).splitlines()[0]


if __name__ == "__main__":
    sys.exit(main())

"""One build on many slots of a simulated engine: `.venv/bin/python tests/bench/slots.py`. See README.md next to it."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import growth
from bench.growth import MODULE
from bench.kinds import Failed
from bench.shared import machine, positive, ran, table
from simulated_engine import Cluster, Story

PACKAGE = 1000
"""The targets of a package."""
_ENGINE = Path(__file__).parents[1] / "simulated_engine.py"
_WORKSPACE = """from bkrules import host_binary, workspace
workspace(name = "slots")
host_binary(name = "sh")
"""
_BUILD = """from bkrules import genrule
[
    genrule(
        name = f"t{{n}}",
        srcs = ["shared.txt"],
        outs = ["o"],
        tools = ["//:sh"],
        cmd = ["$(location //:sh)", "-c", f"echo {{n}} > $@"],
    )
    for n in range({})
]
"""


@dataclass(frozen=True)
class Client:
    """What the client took: seconds of the build and of its processors, its largest memory in bytes, and its most threads."""

    seconds: float
    processor: float
    memory: int
    threads: int
    started: float


def write(root: Path, actions: int, *, cells: bool = False) -> None:
    """Write a workspace of so many genrules, or of so many cells, each with all inputs of a cell."""
    if cells:
        most = min(actions, MODULE)
        growth.write(root, "sets", most, modules=actions // most)
        return
    root.mkdir()
    (root / "WORKSPACE.py").write_text(_WORKSPACE)
    for number in range(-(-actions // PACKAGE)):
        package = root / f"p{number:03}"
        package.mkdir()
        (package / "shared.txt").write_text(f"package {number}\n")
        (package / "BUILD.py").write_text(_BUILD.format(min(PACKAGE, actions - number * PACKAGE)))


@contextmanager
def engine(cluster: Cluster) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Start a simulated engine. Yield its URL and its process."""
    command = [sys.executable, str(_ENGINE), json.dumps(asdict(cluster))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"grpc://127.0.0.1:{process.stdout.readline().strip()}", process
        finally:
            process.kill()


def run(
    folder: Path, actions: int, cluster: Cluster, jobs: int, *, cells: bool = False, profile: str = ""
) -> tuple[Client, Story]:
    """Build so many actions on a new simulated engine. Raises Failed."""
    root = folder / "workspace"
    write(root, actions, cells=cells)
    with engine(cluster) as (url, process):
        client = _build(root, folder / "cache", url, jobs, profile)
        story = Story(**json.loads(process.communicate()[0]))
    if story.began < actions:
        raise Failed(f"{story.began} of {actions} actions ran")
    return client, story


def _build(root: Path, cache: Path, url: str, jobs: int, profile: str) -> Client:
    words = [
        "--nohome_rc",
        "build",
        "//...",
        f"--disk_cache={cache}",
        f"--remote_executor={url}",
        f"--remote_jobs={jobs}",
    ]
    tracer = ["-m", "cProfile", "-o", profile] if profile else []
    command = [sys.executable, "-I", *tracer, "-m", "bkrules", *words]
    with (root / "printed").open("wb") as printed:
        began = time.monotonic()
        child = subprocess.Popen(command, cwd=root, stdout=printed, stderr=subprocess.STDOUT)
        threads = [0]
        over = threading.Event()
        watch = threading.Thread(target=_count_threads, args=(child.pid, threads, over))
        watch.start()
        try:
            _, status, usage = os.wait4(child.pid, 0)
        finally:
            over.set()
            watch.join()
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise Failed(f"{' '.join(command)} ended with {child.returncode}:\n{(root / 'printed').read_text()[-3000:]}")
    seconds = time.monotonic() - began
    return Client(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss << 10, max(threads), began)


def _count_threads(pid: int, threads: list[int], over: threading.Event) -> None:
    while not over.wait(0.5):
        try:
            threads.append(len(os.listdir(f"/proc/{pid}/task")))
        except FileNotFoundError:
            return


def rows(actions: int, cluster: Cluster, client: Client, story: Story) -> list[list[str]]:
    """What the client and the slots did, as a table."""
    idle = 1 - story.busy / story.there if story.there else 0.0
    return [
        ["what", "figure"],
        ["actions", f"{actions}"],
        ["slots", f"{cluster.slots}"],
        ["seconds of the build", f"{client.seconds:.1f}"],
        ["seconds until the first action was there", f"{story.first - client.started:.1f}"],
        ["seconds from then until the last one began", f"{story.last - story.first:.1f}"],
        ["slots idle meanwhile, percent", f"{100 * idle:.1f}"],
        ["actions that lost their slot", f"{story.lost}"],
        ["requests of an action", f"{story.requests / actions:.1f}"],
        ["processor seconds of the client", f"{client.processor:.1f}"],
        ["the same in ms of an action", f"{1000 * client.processor / actions:.2f}"],
        ["the same in cores", f"{client.processor / client.seconds:.2f}"],
        ["peak memory of the client in MiB", f"{client.memory >> 20}"],
        ["most threads of the client", f"{client.threads}"],
    ]


def main(words: list[str] | None = None) -> int:
    """Build and print; the exit code: 0, or 1 when the build failed."""
    usual = Cluster()
    parser = argparse.ArgumentParser(description="Build many actions on the slots of a simulated engine.")
    parser.add_argument("--actions", type=positive, default=2_000, metavar="N")
    parser.add_argument("--cells", action="store_true", help="cells of one test in place of genrules")
    parser.add_argument("--slots", type=positive, default=usual.slots, metavar="N")
    parser.add_argument("--jobs", type=positive, metavar="N", help="--remote_jobs of the build; as many as slots")
    parser.add_argument("--mean", type=float, default=usual.mean, metavar="SECONDS", help="of the durations")
    parser.add_argument("--life", type=float, default=usual.life, metavar="SECONDS", help="of a slot, on average")
    parser.add_argument(
        "--arrival", type=float, default=usual.arrival, metavar="SECONDS", help="until all slots are there"
    )
    parser.add_argument("--trip", type=float, default=usual.trip, metavar="SECONDS", help="the round trip of a call")
    parser.add_argument("--cprofile", default="", metavar="FILE", help="profile the main thread of the client")
    told = parser.parse_args(words)
    cluster = Cluster(told.slots, told.mean, life=told.life, arrival=told.arrival, trip=told.trip)

    def bench(folder: Path) -> None:
        before = os.getloadavg()[0]
        client, story = run(
            folder, told.actions, cluster, told.jobs or told.slots, cells=told.cells, profile=told.cprofile
        )
        print(table(rows(told.actions, cluster, client, story)))
        print("\n".join(["", *machine([before, os.getloadavg()[0]])]))

    return ran(bench)


if __name__ == "__main__":
    sys.exit(main())

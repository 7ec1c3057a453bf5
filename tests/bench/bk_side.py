"""The other side of the race: bk, on a workspace with this repository's workers and the hello matrix."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.kinds import CELLS, COPIES, KINDS, Cell, Failed, Run
from spaces import Space, copy_of_cache

FRESH, SHARED = "hello_matrix", "shared_matrix"
"""The matrices: each cell has its own worker, or shares one by `isolation = "worker"`."""
PHASES = ("setup", "boot", "run", "teardown")
"""The parts of a cell's time, in their order."""


class BkSide:
    """A workspace below `folder`, and a disk cache with all results of `built`, in which no cell has ended before a run."""

    def __init__(self, repository: Path, built: Path, folder: Path) -> None:
        self._cache = copy_of_cache(built, folder / "cache")
        self._space = Space(folder / "workspace", self._cache)
        for part in ("plugins", "targets/tools"):
            link = self._space.root / part
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(repository / part)
        targets = (repository / "targets/BUILD.py").read_text()
        self._space.write("WORKSPACE.py", (repository / "WORKSPACE.py").read_text())
        self._space.write("targets/BUILD.py", targets[: targets.index("test_matrix(\n")])
        self._space.write("bench/test_hello.py", (repository / "tests/bench/matrix/test_hello.py").read_text())
        self._space.write("bench/BUILD.py", _build_file())

    def run(self, jobs: int, matrix: str = FRESH) -> Run:
        """Run all cells of a matrix, so many at a time. Raises Failed unless every one of them ran and passed."""
        results = set((self._cache / "ac").glob("*/*"))
        began = time.monotonic()
        done = self._space.bk("test", f"//bench:{matrix}", "--jobs", str(jobs))
        seconds = time.monotonic() - began
        for result in set((self._cache / "ac").glob("*/*")) - results:
            result.unlink()
        report = self._space.root / f"bk-out/bench/{matrix}/report.json"
        reported = json.loads(report.read_text())["cells"] if done.returncode == 0 else []
        if len(reported) != CELLS or any(cell["cached"] or cell["status"] != "passed" for cell in reported):
            raise Failed(f"bk ended with status {done.returncode}:\n{done.stdout}{done.stderr}")
        return Run(seconds, {kind: [self._cell(one) for one in reported if one["worker"] == kind.bk] for kind in KINDS})

    def _cell(self, reported: Mapping[str, Any]) -> Cell:
        log = self._space.root / reported["log"]
        return Cell(reported["seconds"], json.loads(log.with_name("result.json").read_text()).get("seconds", {}))

    def cells(self) -> list[dict[str, Any]]:
        """One cell of each worker, as bk declares it: its parameters, and its environment under that name."""
        done = self._space.bk("aquery", "--json", f"//bench:{FRESH}")
        if done.returncode:
            raise Failed(f"bk aquery ended with status {done.returncode}:\n{done.stdout}{done.stderr}")
        found = {}
        for action in json.loads(done.stdout):
            if action["mnemonic"] == "TestCell":
                parameters = json.loads(action["arguments"][-1])
                found[parameters["worker"]] = {**parameters, "environment": action["environment"]}
        return [found[kind.bk] for kind in KINDS]


def _build_file() -> str:
    workers = [f"//targets:{kind.target}" for kind in KINDS]
    copies = {str(number): number for number in range(COPIES)}
    return (
        "from bkrules import image_mirror, test_matrix\n"
        "image_mirror(name = 'mirror', images = {'docker.io/library/busybox:latest': '//targets:busybox'})\n"
        f"common = dict(tests = ['test_hello.py'], workers = {workers!r}, mirror = ':mirror',"
        f" axes = {{'copy': {copies!r}}})\n"
        f"test_matrix(name = {FRESH!r}, **common)\n"
        f"test_matrix(name = {SHARED!r}, isolation = 'worker', **common)\n"
    )

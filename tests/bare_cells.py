"""Real cells of a worker that starts no daemon: set-up, test and end as in every cell, in a tenth of the time."""

from __future__ import annotations

import os
import textwrap
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bkrules.analysis import host_inputs
from bkrules.analysis.runs import ENVIRONMENT
from bkrules.cell.protocol import CellSpec
from bkrules.runners.open_cell import interpreter_links, outermost
from bkrules.sandbox.cgroups import Cgroups
from bkrules.sandbox.spawner import Processes
from bkrules.sandbox.started import Started
from bkrules.testing.collection import DECLARED

WORKER = """
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bkrules.plugin import Backend, Worker


@dataclass(frozen=True)
class Bare(Worker):
    name = "bare"

    def tools(self):
        return ()

    def configuration(self, mirror):
        return {}

    @contextmanager
    def start(self, daemons):
        yield Backend("unix:///none", "none")
"""
LIMITS = {"memory": 1 << 30, "pids": 1000, "disk": 256 << 20}


@dataclass
class BareCells:
    """Cells whose results and scratch lie in `folder`. `tools` is the folder that they see as /opt/bk/bin.

    The cells of one zygote have one folder of `views`.
    """

    folder: Path
    processes: Processes = field(default_factory=Processes)
    views: Path | None = None
    worker: str = WORKER
    _number: int = 0
    _groups: list[Cgroups] = field(default_factory=list)

    def spec(self, test: str, timeout: float = 30, axes: Any = (), **more: Any) -> CellSpec:
        """What bk asks the zygote for: a cell that runs the function `test_it` of a module."""
        here = host_inputs.load(str(self._made("store")))
        self._number += 1
        sources = self._made(f"src-{self._number}")
        plugins = self._made(f"plugins-{abs(hash(self.worker))}")
        module = f"bare_worker_{abs(hash((self.worker, str(self.folder))))}"
        (plugins / f"{module}.py").write_text(self.worker)
        (sources / "test_it.py").write_text(textwrap.dedent(test))
        (sources / DECLARED).write_text('["test_it"]')
        tools = self._made("tools")
        own = f"bk-{os.getpid()}-bare{id(self)}-{self._number}"
        groups = Cgroups(
            f"{here.host.cgroup}/{own}", {one: f"{where}/{own}" for one, where in here.host.controllers.items()}
        )
        self._groups.append(groups)
        folders = [*here.binds, str(plugins)]
        files = [*here.libraries, here.interpreter]
        binds = [*((path, path) for path in (*folders, *files)), (str(tools), "/opt/bk/bin")]
        made = {
            "kind": "cell",
            "program": "test",
            "name": "bare",
            "worker": "bare",
            "test": {
                **{"name": "bare", "worker": "bare", "axes": dict(axes), "timeout": timeout},
                **{"module": "test_it.py", "test": "test_it"},
            },
            "worker_class": f"{module}:Bare",
            "settings": {},
            "unsupported": [],
            "isolation": "cell",
            "python_path": [str(plugins)],
            "modules": [module],
            "environment": ENVIRONMENT,
            "timeout": timeout,
            "limits": LIMITS,
            "root": str(self._made("root")),
            "views": str(self.views or self._made("views")),
            "out": str(self._made(f"out-{self._number}")),
            "cgroup": groups.path,
            "limited": groups.limited,
            "binds": outermost(binds),
            "copies": [(str(sources / name), f"/src/{name}", False) for name in ("test_it.py", DECLARED)],
            "links": interpreter_links(tuple(here.binds)),
        }
        return CellSpec.parse({**made, **more})

    def run(self, test: str, **more: Any) -> dict[str, Any]:
        """Run a cell to its end; what it says."""
        spec = self.spec(test, **more)
        with self.processes.cell(spec) as started:
            result = last(started)
        return {**result, "out": Path(spec.out)}

    def close(self) -> None:
        """End all cells and their zygote."""
        self.processes.close()
        self.remove_groups()

    def remove_groups(self) -> None:
        """Remove the cgroups of all cells. A killed supervisor leaves its cgroup behind."""
        for groups in self._groups:
            groups.remove()

    def _made(self, name: str) -> Path:
        (self.folder / name).mkdir(parents=True, exist_ok=True)
        return self.folder / name


def last(
    started: Started, seconds: float = 60, seen: Callable[[Mapping[str, Any]], None] = lambda _: None
) -> dict[str, Any]:
    """The result among the messages of a cell. `seen` gets each message before it."""
    deadline = time.monotonic() + seconds
    while True:
        message, descriptors = started.next(max(0.001, deadline - time.monotonic()))
        for descriptor in descriptors:
            os.close(descriptor)
        if message is None:
            return {"status": "failed", "class": "infrastructure", "reason": "no result"}
        if message["event"] == "result":
            return dict(message)
        seen(message)

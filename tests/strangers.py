"""Plugins that a test writes: each is a distribution on Python's path, as an editable install is, for this process alone."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bkrules.plugin.manager import load

WORKER = '''"""A worker that a test wrote."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass

from bkrules.plugin import Worker, buildkitd, hookimpl
IMPORTS

@dataclass(frozen=True)
class NearWorker(Worker):
    name = "near"

    def tools(self):
        return ("buildkitd", "runc")

    def configuration(self, mirror):
        return {buildkitd.CONFIGURATION: buildkitd.configuration(mirror)}

    @contextmanager
    def start(self, daemons):
        flags = [*buildkitd.OCI_FLAGS, "--oci-worker-snapshotter=native"]
START
        yield buildkitd.backend(buildkitd.start(daemons, flags), "native")
METHODS

@hookimpl
def bk_register_workers(register):
    register(NearWorker)
'''
"""The module of a plugin whose worker is called `near`."""
DISTRIBUTION = "bk-worker-near"


def worker(imports: str = "", methods: str = "", start: str = "") -> str:
    """The text of a plugin's module with more imports, methods of its worker, and lines of its `start`, all indented as there."""
    return WORKER.replace("IMPORTS", imports).replace("METHODS", methods).replace("START\n", start)


@contextmanager
def installed(folder: Path, files: Mapping[str, str], module: str = "near_worker") -> Iterator[Path]:
    """A plugin in that folder whose entry point is `module`, for as long as the context lasts."""
    information = {
        "METADATA": f"Metadata-Version: 2.1\nName: {DISTRIBUTION}\nVersion: 1.0\n",
        "entry_points.txt": f"[bk]\nnear = {module}\n",
    }
    texts = {**files, **{f"bk_worker_near-1.0.dist-info/{name}": text for name, text in information.items()}}
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    load.cache_clear()
    try:
        yield folder
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(f"{folder}/"):
                del sys.modules[name]
        load.cache_clear()

"""A `bk-out` with the report of a matrix of many cells, as bk would write it: for the size of pages alone."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

from bkrules.model.action import Cell
from bkrules.model.label import Label

WORKERS = ("oci", "oci+stargz", "containerd", "containerd+stargz", "rootless", "dockerd", "nydus", "soci", "v1", "v2")
LABEL = Label("many", "matrix")


def write_many(root: Path, count: int, *, with_files: bool = False) -> Path:
    """Write a workspace with a report of `count` cells on ten workers, with logs and keys or without. Return its root."""
    chance = random.Random(7)
    root.mkdir(parents=True, exist_ok=True)
    (root / "WORKSPACE.py").write_text("from bkrules import workspace\nworkspace(name = 'many')\n")
    matrix = root / "bk-out/many/matrix"
    matrix.mkdir(parents=True)
    combinations = list(itertools.product(("gzip", "estargz", "zstd"), ("inline", "registry"), WORKERS))
    entries = []
    for number in range(count):
        test, place = divmod(number, len(combinations))
        compression, kind, worker = combinations[place]
        axes = (("cache", kind), ("compression", compression))
        cell = Cell(LABEL, f"test_{_NAMES[test % len(_NAMES)]}_{test}", worker, axes)
        entries.append(_entry(cell, chance))
        if with_files:
            _files(matrix / cell.folder, chance)
    statuses = [entry["status"] for entry in entries]
    document = {
        "schema": 2,
        "label": str(LABEL),
        "exit_code": 3,
        "kernel_key": "series",
        "selection": {"declared": count, "selected": count, "by": [], "partition": None},
        "summary": {
            **{status: statuses.count(status) for status in sorted(set(statuses))},
            "cached": sum(entry["cached"] for entry in entries),
            "total": count,
        },
        "cells": entries,
    }
    (matrix / "report.json").write_text(json.dumps(document))
    return root


_NAMES = ("pull", "push", "export_tar", "cache_import", "secret_mount", "ssh_forward", "build_args", "lazy_pull")


def _entry(cell: Cell, chance: random.Random) -> dict[str, Any]:
    draw = chance.random()
    status = "failed" if draw < 0.02 else "flaky" if draw < 0.03 else "skipped" if draw < 0.06 else "passed"
    failure = {"failed": "test", "flaky": "test", "skipped": "skip"}.get(status)
    reason = {"failed": f"t/test_x.py:{chance.randint(9, 14)}: assert 'hello\\n' == 'helo\\n'"}.get(status)
    seconds = round(chance.uniform(0.3, 4), 3)
    attempt = {"status": status, "seconds": seconds, "log": "test.log", "class": failure, "reason": reason}
    cached = status == "passed" and chance.random() < 0.4
    return {
        "name": cell.name,
        "label": cell.label,
        "status": status,
        "cached": cached,
        "cache": "disk" if cached else None,
        "seconds": seconds,
        "run": None,
        "attempts": [] if cached else [attempt] * (2 if status == "flaky" else 1),
        "key": f"{chance.getrandbits(256):064x}",
        "worker": cell.worker,
        "axes": dict(cell.axes),
        "log": None,
        "class": failure,
        "reason": reason,
        "egress": [],
        "isolation": "full",
        "tainted": [],
        "unmet_faults": False,
    }


def _files(folder: Path, chance: random.Random) -> None:
    folder.mkdir(parents=True)
    times = (f"2026-11-30T03:22:{at // 1000:02}.{at % 1000:03}Z" for at in range(0, 3000, 30))
    lines = (f'time="{time}" level=debug msg="{chance.random()}"' for time in times)
    (folder / "buildkitd.log").write_text("\n".join(lines))
    (folder / "test.log").write_text("collected 1 item\n" * 20)
    leaves = {f"input/host/lib/{number}.so": f"sha256:{number:064x}" for number in range(160)}
    key = {
        "key": "0" * 64,
        "mnemonic": "TestCell",
        "leaves": {**leaves, "input/src": f"{chance.getrandbits(256):064x}"},
    }
    (folder / "key.json").write_text(json.dumps(key, indent=1))
    result = {"began": 1796008940.0, "seconds": {"setup": 0.01, "boot": 0.2, "run": 0.5, "teardown": 0.01}}
    (folder / "result.json").write_text(json.dumps(result))

"""The first build of bk's tools, against the same Go without bk, one binary after the other."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.kinds import Failed
from bench.shared import say
from spaces import Space

from bkrules.execution.context import network_environment
from bkrules.model.digest import of_file

REPOSITORY = Path(__file__).resolve().parents[2]
SIDES = ("bk", "go build, one by one")
_TOOLS = REPOSITORY / "targets/tools/bk_tools"


def measure(folder: Path, rounds: int, target: str, loads: list[float]) -> dict[str, list[float]]:
    """Return the wall seconds of both sides, each with empty caches of modules and of compiled packages. Raises Failed.

    bk fetches and unpacks Go as well, which the other side then uses. The load after each round is added to `loads`.
    """
    runs: dict[str, list[float]] = {side: [] for side in SIDES}
    for turn in range(1, rounds + 1):
        cache, alone = folder / "bk", folder / "go"
        space = Space(REPOSITORY, cache)
        began = time.monotonic()
        _bk(space, "build", target)
        runs[SIDES[0]].append(time.monotonic() - began)
        builds = [one for one in json.loads(_bk(space, "aquery", "--json", target)) if one["mnemonic"] == "GoBuild"]
        runs[SIDES[1]].append(_by_hand(builds, cache, alone))
        say(f"round {turn} of {rounds}: " + ", ".join(f"{side}: {runs[side][-1]:.1f} s" for side in SIDES))
        loads.append(os.getloadavg()[0])
        for used in (cache, alone):
            shutil.rmtree(used)
    return runs


def _bk(space: Space, *arguments: str) -> str:
    done = space.bk(*arguments)
    if done.returncode:
        raise Failed(f"bk {arguments[0]} ended with status {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def _by_hand(builds: Sequence[Mapping[str, Any]], cache: Path, folder: Path) -> float:
    """Build each binary with bk's Go and arguments, in the folder of its go.mod. Return the seconds of all. Raises Failed."""
    sources = {f"{of_file(path)}": path for path in _TOOLS.rglob("*") if path.is_file()}
    seconds = 0.0
    for build in builds:
        module = folder / build["outputs"][0]
        for path, digest in build["inputs"].items():
            if path.startswith("src/"):
                source = module / path.removeprefix("src/")
                source.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(sources[digest], source)
        go = cache / "toolchains" / build["inputs"]["toolchain.whl"].removeprefix("sha256:") / "go/bin"
        environment = {
            "PATH": f"{go}:{os.environ.get('PATH', os.defpath)}",
            "HOME": str(folder),
            "GOCACHE": str(folder / "build"),
            "GOMODCACHE": str(folder / "mod"),
            **network_environment(),
            **build["environment"],
        }
        began = time.monotonic()
        done = subprocess.run(
            [go / "go", *build["arguments"]], cwd=module, env=environment, capture_output=True, text=True, check=False
        )
        seconds += time.monotonic() - began
        if done.returncode or not (module / build["outputs"][0]).is_file():
            raise Failed(f"in {module}, go build ended with status {done.returncode}:\n{done.stdout}{done.stderr}")
    return seconds

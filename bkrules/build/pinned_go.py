"""The pinned Go of a workspace as a command: a target like any other, with caches next to the disk cache."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bkrules.build.analysis import analyze_targets
from bkrules.build.execute import execute
from bkrules.build.request import Options
from bkrules.cache import atomic
from bkrules.errors import ActionFailed, Interrupted, UsageError
from bkrules.execution.context import network_environment
from bkrules.loading.workspace import Workspace
from bkrules.model.action import FileNode
from bkrules.model.label import Label
from bkrules.model.status import Status
from bkrules.rules.wheels import WHEEL
from bkrules.runners.wheels import toolchain

DEFAULT = "//:go"
TOOLCHAIN = "go_toolchain"


@dataclass(frozen=True)
class PinnedGo:
    """An unpacked toolchain, and the folder of the disk cache with Go's caches."""

    root: Path
    cache: Path

    @property
    def binary(self) -> str:
        """The path of the command `go`."""
        return f"{self.root}/bin/go"

    @property
    def variables(self) -> dict[str, str]:
        """The variables that keep Go away from the caches and settings of this machine."""
        caches = self.cache / "go"
        return {
            "GOROOT": str(self.root),
            "GOPATH": str(caches / "path"),
            "GOCACHE": str(caches / "build"),
            "GOMODCACHE": str(caches / "mod"),
            "GOENV": "off",
            "GOTOOLCHAIN": "local",
            "GOWORK": "off",
        }

    def environment(self) -> dict[str, str]:
        """Return the environment of this process, with only this Go."""
        path = os.pathsep.join(filter(None, [f"{self.root}/bin", os.environ.get("PATH", "")]))
        return {**os.environ, **self.variables, "PATH": path}

    def run(self, arguments: Sequence[str], folder: Path, more: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Run Go in a folder, with only the variables that reach registries and those of `more`."""
        path = os.pathsep.join([f"{self.root}/bin", os.environ.get("PATH", os.defpath)])
        home = self.cache / "go/home"
        mode = home / ".config/go/telemetry/mode"
        if not mode.exists():  # else Go would count in the background, also in a folder that is removed
            atomic.write(str(mode), b"off")
        environment = {"PATH": path, "HOME": str(home), **network_environment(), **self.variables, **more}
        command = [self.binary, *arguments]
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def pinned_go(workspace: Workspace, label: Label, options: Options) -> PinnedGo:
    """Return the Go of a go_toolchain, fetched when it is not cached. Raises UsageError, ActionFailed and Interrupted."""
    target = workspace.target(label)
    if target is None or target.rule.name != TOOLCHAIN:
        what = f"{label} is a {target.rule.name}" if target else f"there is no {label}"
        hint = f"declare one in WORKSPACE.py:  {TOOLCHAIN}(name = 'go', version = ..., sha256 = ...)"
        raise UsageError("no-toolchain", f"{what}, but a {TOOLCHAIN} is needed", hint=hint)
    built = execute(analyze_targets(workspace, [target]), options)
    if built.interrupted:
        raise Interrupted("interrupted", "interrupted before Go was there")
    failed = next((result for result in built.results if result.status != Status.PASSED), None)
    if failed is not None:
        raise ActionFailed(
            "no-toolchain", failed.reason, hint="\n".join(filter(None, [failed.hint, failed.log.strip()]))
        )
    (wheel,) = (result.outputs[WHEEL] for result in built.results)
    assert isinstance(wheel, FileNode)
    cache = Path(options.disk_cache)
    return PinnedGo(toolchain(wheel, cache), cache)

"""What runners share: the stores and processes of one build."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bkrules.action import Action, Node
from bkrules.cache.cas import Cas
from bkrules.execution.mirror_door import MirrorDoor
from bkrules.execution.processes import Processes
from bkrules.execution.registry import Registries
from bkrules.execution.result import Outcome
from bkrules.execution.run_folder import RunFolder
from bkrules.machine import Machine
from bkrules.plugin.manager import Plugins

# A fetch is checked by digest, so how it reaches the network is no part of any key.
NETWORK = ("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_DIR", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
NETWORK_PREFIXES = ("GOPROXY", "GONOPROXY", "GOSUMDB", "GONOSUMDB", "GOINSECURE", "GOPRIVATE", "PIP_", "UV_")


@dataclass
class Workshop:
    """Everything that a runner may use. `cache` is the disk cache's folder; `out` is `bk-out`."""

    cache: Path
    out: Path
    cas: Cas
    folder: RunFolder
    processes: Processes
    registries: Registries
    door: MirrorDoor
    machine: Callable[[], Machine]
    plugins: Plugins

    def scratch(self, action: Action) -> Path:
        """A folder of this action alone, gone after the run."""
        return self.folder.new(f"action-{abs(hash(action.id))}")

    def log(self, action: Action) -> Path:
        """Where the output of an action's command is kept."""
        folder = self.out / action.label.package / action.label.name
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{action.mnemonic}.log"

    def cell_folder(self, action: Action) -> Path:
        """Where the logs of a cell are kept."""
        assert action.cell is not None
        return self.out / action.label.package / action.label.name / action.cell.name


Runner = Callable[[Action, Mapping[str, Node], Workshop], Outcome]


def network_environment() -> dict[str, str]:
    """The variables by which this machine reaches package registries."""
    found = {}
    for name, value in os.environ.items():
        if name.upper() in NETWORK or name.startswith(NETWORK_PREFIXES):
            found[name] = value
    return found

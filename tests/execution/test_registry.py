"""The start of the registry behind the mirrors of a run."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest

from bkrules.cache.links import LinkFolders
from bkrules.mirror import registry
from bkrules.mirror.registry import Registries, accepts
from bkrules.model.action import FileNode
from bkrules.model.digest import of_bytes
from bkrules.sandbox.run_folder import RunFolder
from bkrules.sandbox.spawner import Processes

SLOW = """#!{python}
import signal, socket, time
listener = socket.socket(socket.AF_UNIX)
listener.bind("registry.sock")
time.sleep(0.5)
listener.listen()
signal.pause()
"""


def test_a_registry_that_listens_long_after_it_has_made_its_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No event tells when it listens; the limit for its start is so long here that waiting for one would never end."""
    if os.geteuid() != 0:
        pytest.skip("not root")
    monkeypatch.setattr(registry, "_START_SECONDS", 3600)
    binary, configuration = tmp_path / "registry", tmp_path / "config"
    binary.write_text(SLOW.format(python=sys.executable))
    binary.chmod(0o755)
    configuration.write_text("")
    processes, folder = Processes(), RunFolder(str(tmp_path / "cache"))
    registries = Registries(processes, folder, LinkFolders(str(tmp_path / "cache")))
    nodes = [FileNode(of_bytes(path.read_bytes()), str(path)) for path in (binary, configuration)]
    start = threading.Thread(target=registries.get, args=({}, *nodes), daemon=True)

    start.start()
    start.join(120)

    assert not start.is_alive()
    assert accepts(registries.get({}, *nodes).target)
    registries.close()
    processes.close()
    folder.close()

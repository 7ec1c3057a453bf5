"""The facts of a worker that are part of keys, computed in a separate process.

They must be the same everywhere: in another folder, with another environment, on a host of another name, and with any
order of Python's sets. `differences` computes them in such surroundings, twice.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
import sys
from typing import Any

from bkrules.analysis.plugin_files import plugin_files
from bkrules.plugin import ask
from bkrules.plugin.manager import load
from bkrules.plugin.worker import MIRROR_ADDRESS, Mirror, Worker

_CLONE_NEWUTS = 0x04000000
_HOSTS = ("docker.io", "registry.example.com")
_SURROUNDINGS = (
    {"PYTHONHASHSEED": "1", "HOME": "/root", "TZ": "UTC", "LANG": "C.UTF-8", "USER": "root"},
    {"PYTHONHASHSEED": "4711", "HOME": "/nowhere", "TZ": "Asia/Tokyo", "LANG": "C", "USER": "somebody"},
)


def facts(worker: Worker) -> dict[str, Any]:
    """Return the facts of a worker that are part of keys, by name."""
    return {
        "id()": ask.id_of(worker),
        "settings()": ask.settings(worker),
        "tools()": list(ask.tools(worker)),
        "host_tools()": list(ask.host_tools(worker)),
        "features()": sorted(ask.features(worker)),
        "cache_key()": ask.cache_key(worker),
        "configuration()": dict(ask.configuration(worker, Mirror(MIRROR_ADDRESS, _HOSTS))),
        "modules()": sorted(plugin_files(worker)),
    }


def differences(worker: Worker) -> list[str]:
    """Return the names of the facts that differ. Raises CalledProcessError when they cannot be computed."""
    here = json.loads(json.dumps(facts(worker)))
    differ = set()
    for number, surroundings in enumerate(_SURROUNDINGS):
        command = [sys.executable, "-P", "-m", __name__, f"host{number}", worker.name, json.dumps(ask.settings(worker))]
        environment = {"PATH": os.environ.get("PATH", ""), **surroundings}
        folder = ("/", os.path.expanduser("~"))[number]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
        there = json.loads(done.stdout)
        differ |= {name for name in here if here[name] != there[name]}
    return sorted(differ)


def main(host: str, name: str, settings: str) -> None:
    """Print the facts of the worker of that name."""
    if ctypes.CDLL(None).unshare(_CLONE_NEWUTS) == 0:
        socket.sethostname(host)
    print(json.dumps(facts(ask.made(load().workers[name], json.loads(settings)))))


if __name__ == "__main__":
    main(*sys.argv[1:])

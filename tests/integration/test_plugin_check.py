"""`bk plugin check` on workers that break what they promise, each in one way."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from spaces import Space, failures, pip
from strangers import WORKER

PROJECT = """[build-system]
requires = ["flit_core>=3.12"]
build-backend = "flit_core.buildapi"

[project]
name = "bk-worker-wrong"
version = "1.0"
description = "Workers that break what they promise"
dependencies = ["bkrules"]

[project.entry-points.bk]
wrong = "bk_worker_wrong"

[tool.flit.module]
name = "bk_worker_wrong"
"""
IMPORTS = """import os
import socket
from contextlib import suppress
from pathlib import Path
from bk_worker_dockerd import DockerdWorker
from bkrules.plugin import FEATURES, setting
from bkrules.sandbox import syscalls
"""
WRONG = {
    "modest": ("    def features(self):\n        return FEATURES - {'oci_exporter', 'cni_network'}\n", ""),
    "reader": ("", "        Path(__file__).with_name('flags.txt').read_text()\n"),
    "mounter": ("", "        os.mkdir('/mnt')\n        syscalls.mount('leak', '/mnt', 'tmpfs')\n"),
    "raiser": ("", "        raise RuntimeError('it does not start')\n"),
    "leaver": ("", "        with suppress(OSError):\n            socket.create_connection(('203.0.113.1', 80), 1)\n"),
}
"""The methods of each worker, and the lines of its `start`, that break one promise."""
BOASTER = """

@dataclass(frozen=True)
class Boaster(DockerdWorker):
    name = "boaster"
    store: str = setting("graphdriver", "")

    def id(self):
        return self.name

    def features(self):
        return FEATURES - {"cni_network"}

    def no_jail(self):
        return "not tried"
"""
NAMES = (*WRONG, "boaster")


def module() -> str:
    """Return the module of a plugin with all of these workers."""
    head, _, rest = WORKER.partition("@dataclass(frozen=True)\n")
    body, _, _ = rest.partition("\n@hookimpl")
    classes = [
        "@dataclass(frozen=True)\n"
        + body.replace("NearWorker", name.title())
        .replace('"near"', repr(name))
        .replace("START\n", start)
        .replace("METHODS", methods)
        for name, (methods, start) in WRONG.items()
    ]
    hook = "@hookimpl\ndef bk_register_workers(register):\n" + "".join(f"    register({n.title()})\n" for n in NAMES)
    return "\n\n".join([head.replace("IMPORTS", IMPORTS), *classes, BOASTER, hook])


@pytest.mark.soak
def test_each_is_found(tools: Space, environment: str, tmp_path: Path) -> None:
    folder = tmp_path / "wrong"
    folder.mkdir()
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "bk_worker_wrong.py").write_text(module())
    (folder / "flags.txt").write_text("")
    pip(environment, "install", "--no-index", "--no-deps", "--no-build-isolation", "--editable", str(folder))
    space = dataclasses.replace(tools, python=environment)
    build = space.root / "targets/BUILD.py"
    build.write_text(build.read_text() + "".join(f"worker(name = {n!r}, plugin = {n!r})\n" for n in NAMES))

    done = space.bk("plugin", "check", *(f"//targets:{name}" for name in NAMES), "--disk_cache", str(space.cache))

    assert done.returncode == 3, done.stdout + done.stderr
    found = {name: [line for line in failures(done.stdout) if is_about(name, line)] for name in NAMES}
    for name, test, message in (
        ("boaster", "test_features_are_as_it_says/", "features() has 'oci_exporter', which fails: error: "),
        ("modest", "test_features_are_as_it_says/", "features() lacks 'oci_exporter', which works"),
        ("mounter", "test_lets_go_of_what_it_held/", "it left mounts outside of Daemons.state and Daemons.run: /mnt"),
        ("raiser", "test_", "the cell could not be started: RuntimeError: it does not start"),
        ("leaver", "test_", "/isolation=cell: cell tried to reach tcp 203.0.113.1:80"),
    ):
        assert found[name], name
        assert [line for line in found[name] if test not in line] == []
        assert any(message in line for line in found[name]), found[name]
    raised = [line for line in found["raiser"] if "isolation=worker" in line]
    assert [line for line in raised if "RuntimeError: it does not start" not in line] == [], "a shared worker says why"
    assert f"start() of reader reads {folder}/flags.txt, which is in no key" in "\n".join(found["reader"])
    assert "registry-1.docker.io" not in done.stdout
    assert "reset by peer" not in done.stdout


def is_about(name: str, line: str) -> bool:
    """Return whether a line tells of a failure of this worker."""
    return f"/worker={name}/" in line or f" of {name} " in line

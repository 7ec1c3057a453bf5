"""The files of a new plugin: a distribution with one working worker, as a starting point."""

from __future__ import annotations

import re
from pathlib import Path
from string import Template

from bkrules.errors import UsageError

FILES = {
    "pyproject.toml": """\
[build-system]
requires = ["flit_core>=3.12"]
build-backend = "flit_core.buildapi"

[project]
name = "bk-worker-$dashed"
version = "0.1.0"
description = "The worker $name for bk"
requires-python = ">=3.11"
dependencies = ["bkrules"]

[project.entry-points.bk]
$name = "bk_worker_$name"
""",
    "bk_worker_$name.py": '''\
"""The $name worker: buildkitd with its OCI worker, on a snapshotter that a BUILD.py chooses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bkrules.plugin import Backend, Daemons, Mirror, Register, Worker, buildkitd, hookimpl, one_of, setting

SNAPSHOTTERS = ("overlayfs", "native")


@dataclass(frozen=True)
class $kind(Worker):
    """buildkitd with its OCI worker."""

    name = "$name"

    snapshotter: str = setting("overlayfs", "overlayfs or native")

    def check(self) -> None:
        one_of("snapshotter", self.snapshotter, SNAPSHOTTERS)

    def id(self) -> str:
        return self.name if self.snapshotter == "overlayfs" else f"{self.name}+{self.snapshotter}"

    def tools(self) -> tuple[str, ...]:
        return ("buildkitd", "runc")

    def configuration(self, mirror: Mirror) -> Mapping[str, Mapping[str, Any]]:
        return {buildkitd.CONFIGURATION: buildkitd.configuration(mirror)}

    @contextmanager
    def start(self, daemons: Daemons) -> Iterator[Backend]:
        flags = [*buildkitd.OCI_FLAGS, "--oci-worker-snapshotter", self.snapshotter]
        environment = buildkitd.environment(daemons.run, self.snapshotter)
        yield buildkitd.backend(buildkitd.start(daemons, flags, environment=environment), self.snapshotter)


@hookimpl
def bk_register_workers(register: Register) -> None:
    """The workers of this distribution."""
    register($kind)
''',
    "BUILD.py": '''\
"""The worker $name: for `bk plugin check`, and for matrices."""

from bkrules import worker

worker(name = "$name", plugin = "$name")
''',
    "tests/test_$name.py": """\
from __future__ import annotations

import pytest
from bk_worker_$name import $kind

from bkrules.plugin import SettingsError


def test_ids_differ_where_results_may() -> None:
    assert $kind().id() == "$name"
    assert $kind(snapshotter="native").id() == "$name+native"


def test_a_bad_setting_is_named() -> None:
    with pytest.raises(SettingsError) as caught:
        $kind.from_settings({"snapshotter": "zfs"})
    assert caught.value.name == "snapshotter"
""",
    "README.md": """\
# bk-worker-$dashed

buildkitd with its OCI worker. The plugin's name is `$name`.

| setting | default | |
| --- | --- | --- |
| `snapshotter` | `"overlayfs"` | `overlayfs` or `native` |

- Tools: buildkitd, runc.
- Needs: what every cell needs.
- Names in cells: `$name`, `$name+native`.
""",
}


def write(name: str, parent: Path) -> Path:
    """Write the files of a new plugin to a folder of that name. Return the folder. Raises UsageError."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*", name):
        raise UsageError(
            "name", f"plugin new: {name!r} cannot be a worker's name", hint="use small letters, digits and _"
        )
    folder = parent / name
    if folder.exists():
        raise UsageError("exists", f"plugin new: {folder} exists already", hint="choose another name, or --folder")
    kind = "".join(part.capitalize() for part in name.split("_")) + "Worker"
    for path, text in FILES.items():
        words = {"name": name, "dashed": name.replace("_", "-"), "kind": kind}
        file = folder / Template(path).substitute(words)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(Template(text).substitute(words))
    return folder

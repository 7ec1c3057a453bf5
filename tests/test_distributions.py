"""The distributions of this repository: their wheels, licences and versions."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import bkrules

ROOT = Path(__file__).parents[1]
TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
PROJECTS = [name for name in TRACKED if name.endswith("pyproject.toml") and not name.startswith("tests/")]


def _wheels(folder: Path, age: int, mask: str) -> dict[str, bytes]:
    """Build all wheels in a copy of the tracked files, whose times and modes are other ones; return them by their names."""
    for name in TRACKED:
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            copy = folder / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy)
            os.utime(copy, (age, age))
            copy.chmod(copy.stat().st_mode & ~int(mask, 8))
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000", "PYTHON": sys.executable}
    build = f"umask {mask}; exec .ci/wheels out"
    done = subprocess.run(["sh", "-c", build], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {path.name: path.read_bytes() for path in (folder / "out").iterdir()}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """All wheels by the names of their distributions, built twice with the same bytes."""
    first = _wheels(tmp_path_factory.mktemp("one"), 1_600_000_000, "022")
    second = _wheels(tmp_path_factory.mktemp("another") / "deeper", 1_650_000_000, "077")
    assert {name: hashlib.sha256(data).hexdigest() for name, data in first.items()} == {
        name: hashlib.sha256(data).hexdigest() for name, data in second.items()
    }
    folder = tmp_path_factory.mktemp("wheels")
    for name, data in first.items():
        (folder / name).write_bytes(data)
    return {path.name.split("-")[0].replace("_", "-"): path for path in folder.iterdir()}


def test_every_project_has_a_wheel(wheels: dict[str, Path]) -> None:
    """The fixture compares two builds, in different folders, at different times and with different modes."""
    names = {tomllib.loads((ROOT / name).read_text())["project"]["name"] for name in PROJECTS}
    assert len(names) >= 6
    assert set(wheels) == names


def test_every_wheel_has_the_licence(wheels: dict[str, Path]) -> None:
    licence = (ROOT / "LICENSE").read_bytes()
    assert b"Apache License" in licence
    for path in wheels.values():
        with zipfile.ZipFile(path) as wheel:
            (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/licenses/LICENSE"))
            assert wheel.read(name) == licence, path.name
            (metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
            assert "License-Expression: Apache-2.0\n" in wheel.read(metadata).decode()


def test_the_wheel_of_bkrules_has_its_files_and_no_other(wheels: dict[str, Path]) -> None:
    """All that is tracked is there: the marker of types, and files that are no Python."""
    with zipfile.ZipFile(wheels["bkrules"]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == {name for name in TRACKED if name.startswith("bkrules/") and (ROOT / name).is_file()}
    assert {"bkrules/py.typed", "bkrules/runners/reach/main.go"} <= names


def test_all_projects_have_one_version() -> None:
    """That of `bkrules.__version__`, which the changelog has."""
    for name in PROJECTS:
        project = tomllib.loads((ROOT / name).read_text())["project"]
        assert project.get("version", bkrules.__version__) == bkrules.__version__, name
        assert project["license"] == "Apache-2.0"
        assert project["requires-python"] == ">=3.11"
    (first, *_) = re.findall(r"^## (\S+) \((.+)\)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first[0] == bkrules.__version__
    assert re.fullmatch(r"unreleased|\d{4}-\d{2}-\d{2}", first[1])

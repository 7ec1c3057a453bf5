"""Random modules: the tests that syntax proves are those that pytest collects, and so are those of each cell's own module."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import random_modules
from rounds import rounds

from bkrules.analysis.context import Context
from bkrules.analysis.slices import Slices
from bkrules.analysis.test_files import Module, _Files, _module

COLLECT = """
import gc, json, os, sys
import pytest
from bkrules.cell import pytest_run
from bkrules.model.parameters import PytestSettings
from bkrules.testing import pytest_plugin
from bkrules.testing.collection import Faults, arguments, name_of

class Items(Faults):
    found = ()
    def pytest_collection_finish(self, session):
        self.found = [name_of(item, module) for item in session.items]

pytest_run.preload()
gc.collect()
gc.freeze()
answers = {}
for path in json.load(sys.stdin):
    folder, module = path.split("/")
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.chdir(folder)
        items = Items()
        words = [*arguments(PytestSettings(), "--collect-only", "-q", module)]
        words = [word for word in words if not word.startswith("--confcutdir")]
        words = ["--rootdir=." if word.startswith("--rootdir") else word for word in words]
        os.dup2(os.open("/dev/null", os.O_WRONLY), 1)
        os.dup2(1, 2)
        pytest.main(words, plugins=[pytest_plugin, items])
        with open(writer, "w") as file:
            json.dump([items.found, bool(items.reports or items.skipped)], file)
        os._exit(0)
    os.close(writer)
    with open(reader) as file:
        text = file.read()
    answers[path] = json.loads(text) if text else [[], True]
    os.wait()
print(json.dumps(answers))
"""
"""Asks pytest for each module in a separate process, as cells do, since plugins and hooks of one would change others."""


def collected(folder: Path, modules: Iterable[str]) -> tuple[dict[str, list[str]], set[str]]:
    """What pytest collects from each module, and the modules that it cannot collect or skips."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-c", COLLECT]
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        input=json.dumps(list(modules)),
        capture_output=True,
        text=True,
        check=True,
    )
    answers = json.loads(done.stdout)
    return {path: names for path, (names, _) in answers.items()}, {path for path, (_, bad) in answers.items() if bad}


def by_syntax(root: Path, path: str) -> Module | None:
    """The module as bk reads it; None when it is no Python."""
    workspace = SimpleNamespace(
        place=lambda path: f"{root}/{path}",
        package=lambda folder: True if folder == os.path.dirname(path) else None,
    )
    context = cast(Context, SimpleNamespace(workspace=workspace, label="//p:m"))
    return _module(_Files(context), path, [])


def test_what_syntax_proves_is_what_pytest_collects(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    count = rounds(40)
    source = random.Random(seed)
    (tmp_path / "helper.py").write_text(random_modules.HELPER)
    (tmp_path / "package").mkdir()
    (tmp_path / "package/__init__.py").write_text("from helper import doubled as hidden\n")
    (tmp_path / "package/sub.py").write_text("")
    modules: dict[str, Module] = {}
    cells: dict[str, tuple[str, list[str]]] = {}
    for number in range(count):
        folder = tmp_path / f"d{number}"
        folder.mkdir()
        text = random_modules.Source(source, source.choice([0.0, 0.05, 0.3])).text()
        path = f"d{number}/test_{number}.py"
        (tmp_path / path).write_text(text, errors="surrogatepass")
        if conftest := random_modules.conftest(source):
            (folder / "conftest.py").write_text(conftest)
        module = by_syntax(tmp_path, path)
        assert module is not None
        modules[path] = module
        if not module.unproven and module.tests:
            test = source.choice(list(module.tests))
            cell = tmp_path / f"c{number}"
            shutil.copytree(folder, cell)
            shown = Slices(text).text(test.callable, test.sets)
            (cell / f"test_cell_{number}.py").write_text(shown)
            whole = shown == text  # as where something may look at the module
            seen = [one.name for one in module.tests if whole or one.callable != test.callable or one.sets == test.sets]
            cells[f"c{number}/test_cell_{number}.py"] = path, sorted(seen)

    found, broken = collected(tmp_path, [*modules, *cells])

    wrong: dict[str, Any] = {}
    for path, module in modules.items():
        read = sorted(test.name for test in module.tests)
        if not module.unproven and path not in broken and read != sorted(found.get(path, [])):
            wrong[path] = read, found.get(path), module.text
    for path, (origin, names) in cells.items():
        if origin not in broken and names != sorted(found.get(path, [])):
            wrong[path] = names, found.get(path), (tmp_path / path).read_text()
    proven = [path for path, module in modules.items() if not module.unproven]
    summary = f"seed {seed}: {count} modules, {len(proven)} proven, {len(broken)} that pytest does not collect"
    print(summary)
    detail = "\n\n".join(f"{path}: syntax {read}\npytest {own}\n{text}" for path, (read, own, text) in wrong.items())
    assert not wrong, f"{summary}\n{detail}"
    assert len(proven) > count / 10, summary

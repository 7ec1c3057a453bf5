"""The start of pytest that cells share: nothing that a test or its repository can see differs from a start by pytest alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bkrules.cell.pytest_start import KNOWN

SCRIPT = """
import json, sys
from bkrules.cell import pytest_start
from bkrules.model.parameters import PytestSettings
from bkrules.testing import collection, pytest_plugin

folder, is_prepared, options, overrides = json.loads(sys.argv[1])
if is_prepared:
    pytest_start.prepare()
collection.ROOT = folder
sys.path.insert(0, folder)
words = collection.arguments(PytestSettings(options=options, overrides=overrides), "-rA", "test_it.py")
code = pytest_start.run(words, [pytest_plugin])
print(json.dumps({"code": code, "was used": is_prepared and not pytest_start._MADE}), file=sys.stderr)
"""
CONFTEST = """
import json
from pathlib import Path

import _pytest.tmpdir
import pytest

pytest_plugins = ["extra"]
events = []

@pytest.fixture
def added():
    return "added"

_pytest.tmpdir.added_late = added
del added

def pytest_addoption(parser):
    events.append("addoption")
    parser.addoption("--mine", default="no")
    parser.addini("own", "a setting", default="none")

def pytest_configure(config):
    events.append("configure")

def pytest_sessionstart(session):
    events.append("sessionstart")

def title(plugin):
    return [type(plugin).__name__, getattr(plugin, "__name__", "")]

def pytest_sessionfinish(session):
    config = session.config
    manager, fixtures = config.pluginmanager, session._fixturemanager
    hooks = {name: getattr(manager.hook, name).get_hookimpls() for name in sorted(vars(manager.hook)) if name[0] != "_"}
    seen = {
        "events": events,
        "plugins": [title(plugin) for _, plugin in manager.list_name_plugin()],
        "hooks": {name: [[title(one.plugin), one.wrapper] for one in found] for name, found in hooks.items()},
        "options": {name: str(value) for name, value in vars(config.option).items()},
        "invocation": [list(config.invocation_params.args), str(config.invocation_params.dir)],
        "ini": [config.getini("own"), config.getini("markers"), str(config.rootpath)],
        "fixtures": {
            name: [[str(node), one.func.__module__, one.func.__qualname__, one.scope] for node, all in of.items() for one in all]
            for name, of in fixtures._arg2node2fixturedefs.items()
        },
        "autouse": {str(node): names for node, names in fixtures._node_autousenames.items()},
        "usage": config._parser.prog,
    }
    Path("seen.json").write_text(json.dumps(seen))
"""
TEST = """
import pytest

def test_fixtures(tmp_path, added_late, from_extra, sandbox_like, request):
    assert added_late == "added"
    assert request.config.getoption("mine") in ("no", "yes")

def test_of_a_test(tmp_path):
    (tmp_path / "test_inner.py").write_text("def test_a(monkeypatch): pass")
    assert pytest.main(["-q", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", str(tmp_path)]) == 0

def test_bad(capsys): assert 1 == 2
"""
EXTRA = """
import pytest

@pytest.fixture
def from_extra(): return 1

@pytest.fixture(params=[1, 2])
def sandbox_like(request): return request.param
"""


def started(folder: Path, *, is_prepared: bool, options: list[str], overrides: list[list[str]]) -> tuple[Any, Any]:
    """How pytest ended, and what a conftest.py saw of it."""
    words = json.dumps([str(folder), is_prepared, options, overrides])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, words], cwd=folder, capture_output=True, text=True, check=False, timeout=300
    )
    seen = folder / "seen.json"
    assert seen.exists(), done.stdout + done.stderr
    found = json.loads(seen.read_text())
    seen.unlink()
    return json.loads(done.stderr.splitlines()[-1]), found


@pytest.mark.parametrize(
    ("options", "overrides", "was_used"),
    [
        ([], [], True),
        (["--mine=yes", "-x"], [["own", "mine"], ["python_functions", "test_b*"]], True),
        (["-p", "no:logging"], [], False),
        (["-ppytester"], [], False),
        (["--doctest-modules"], [], False),
    ],
    ids=["plain", "settings", "without", "with", "doctest"],
)
def test_a_repository_sees_the_same_pytest(
    tmp_path: Path, options: list[str], overrides: list[list[str]], *, was_used: bool
) -> None:
    for name, text in (("conftest.py", CONFTEST), ("test_it.py", TEST), ("extra.py", EXTRA)):
        (tmp_path / name).write_text(text)
    usual, expected = started(tmp_path, is_prepared=False, options=options, overrides=overrides)
    end, seen = started(tmp_path, is_prepared=True, options=options, overrides=overrides)
    assert usual == {"code": 1, "was used": False}
    assert end == {"code": 1, "was used": was_used}
    for part, value in expected.items():
        assert seen[part] == value, part


def test_the_installed_pytest_is_known() -> None:
    """With another release, compare what bkrules/cell/pytest_start.py uses of it, and raise KNOWN."""
    assert pytest.version_tuple[:2] == KNOWN

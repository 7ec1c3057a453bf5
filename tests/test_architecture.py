"""The arrows between the parts of bkrules point one way, and the core knows no worker by its name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import bkrules
import bkrules.plugin
from bkrules.rules import RULES

PACKAGE = Path(bkrules.__file__).parent

# The rooms from the bottom up, and what each may import.
MAY_IMPORT = {
    "errors": set(),
    "system": set(),
    "web": set(),
    "plugin": {"errors", "system"},
    "model": {"errors", "plugin", "system"},
    "incremental": {"model", "system"},
    "cache": {"errors", "incremental", "model", "system", "web"},
    "images": {"cache", "errors", "model", "system", "web"},
    "loading": {"cache", "errors", "incremental", "model", "plugin", "system"},
    "query": {"errors", "loading", "model", "plugin"},
    "sandbox": {"cache", "errors", "model", "plugin", "system"},
    "mirror": {"cache", "errors", "images", "model", "sandbox", "system"},
    "testing": {"errors", "mirror", "model", "plugin", "sandbox", "system"},
    "analysis": {"cache", "errors", "images", "incremental", "loading", "mirror", "model", "plugin", "system"},
    "cell": {"model", "plugin", "sandbox", "system", "testing"},
    "execution": {"analysis", "cache", "errors", "incremental", "model", "plugin", "sandbox", "system"},
    "report": {"cache", "errors", "execution", "incremental", "model", "plugin", "sandbox", "system", "testing", "web"},
    "rules": {"analysis", "declarative", "errors", "images", "incremental", "model", "plugin", "system"},
    "runners": {
        "analysis",
        "cache",
        "cell",
        "declarative",
        "errors",
        "execution",
        "images",
        "mirror",
        "model",
        "plugin",
        "rules",
        "sandbox",
        "system",
        "testing",
        "web",
    },
    "completion": {"loading", "system"},
    "starter": {"errors"},
    "__init__": {"rules"},
    "build": {
        "analysis",
        "cache",
        "cell",
        "errors",
        "execution",
        "incremental",
        "loading",
        "mirror",
        "model",
        "plugin",
        "report",
        "rules",
        "runners",
        "sandbox",
        "system",
    },
    "declarative": {"errors", "model", "testing"},
    "repro": {
        "analysis",
        "build",
        "cache",
        "cell",
        "declarative",
        "errors",
        "execution",
        "images",
        "loading",
        "mirror",
        "model",
        "plugin",
        "report",
        "rules",
        "runners",
        "system",
        "testing",
    },
    "conformance": {"analysis", "execution", "model", "plugin", "rules", "testing"},
    "commands": {
        "analysis",
        "build",
        "cache",
        "cell",
        "completion",
        "conformance",
        "declarative",
        "errors",
        "execution",
        "images",
        "incremental",
        "loading",
        "model",
        "plugin",
        "query",
        "report",
        "repro",
        "rules",
        "sandbox",
        "starter",
        "style",
        "system",
    },
    "cli": {"build", "commands", "errors", "loading", "plugin", "report", "system"},
    "__main__": {"cli", "completion", "incremental", "system"},
    "style": {"errors", "loading", "model", "rules"},
    "in_pytest": {
        "analysis",
        "build",
        "cli",
        "commands",
        "errors",
        "execution",
        "loading",
        "model",
        "plugin",
        "report",
        "system",
        "testing",
    },
}
LOOSE = {"__init__", "__main__", "cli", "errors"}
"""The modules that are in no room."""


def module_of(name: str) -> str:
    """Return the file of a module of bkrules, or of the one in which a name is, relative to the package and without `.py`."""
    path = PACKAGE.parent.joinpath(*name.split("."))
    for found in (
        path.with_suffix(".py"),
        path / "__init__.py",
        path.parent.with_suffix(".py"),
        path.parent / "__init__.py",
    ):
        if found.is_file():
            return str(found.relative_to(PACKAGE).with_suffix(""))
    raise AssertionError(f"there is no module {name}")


def imports(path: Path) -> Iterator[str]:
    """Yield the modules of bkrules that a file imports when it runs."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "bkrules":
            yield from (module_of(f"{node.module}.{item.name}") for item in node.names)
        elif isinstance(node, ast.Import):
            yield from (module_of(item.name) for item in node.names if item.name.startswith("bkrules."))


def room_of(module: str) -> str:
    return module.partition("/")[0]


MODULES = {str(path.relative_to(PACKAGE).with_suffix("")): set(imports(path)) for path in sorted(PACKAGE.rglob("*.py"))}


@pytest.mark.parametrize("module", MODULES)
def test_arrows(module: str) -> None:
    own = room_of(module)
    assert {room_of(other) for other in MODULES[module]} - {own, "__init__"} - MAY_IMPORT[own] == set()


def test_no_modules_import_each_other() -> None:
    """Not in a longer circle either, and not in a function: what is read first would depend on what is run first."""
    list(TopologicalSorter(MODULES).static_order())


def test_no_rooms_import_each_other() -> None:
    rooms = {room: others - {room} for room, others in MAY_IMPORT.items()}
    assert list(TopologicalSorter(rooms).static_order())


def test_every_room_has_its_arrows_and_needs_each() -> None:
    used: dict[str, set[str]] = {}
    for module, others in MODULES.items():
        used.setdefault(room_of(module), set()).update(map(room_of, others))
    assert {room: others - {room, "__init__"} for room, others in used.items()} == MAY_IMPORT


def test_few_modules_are_in_no_room() -> None:
    assert {module for module in MODULES if "/" not in module} == LOOSE


def test_the_language_of_queries_knows_nothing_of_loading() -> None:
    language = {"query/functions", "query/lexer", "query/nodes", "query/parser"}
    for module in language:
        assert MODULES[module] <= {"errors", *language}
    assert MODULES["query/evaluate"] - language == {"model/label"}


def test_the_core_names_no_worker() -> None:
    """A default is the one exception: estargz_image takes the worker that a BUILD.py calls `:oci`."""
    pattern = re.compile(r"""["'](containerd|containerd\+stargz|rootless|oci)["']""")
    found = {str(path): pattern.findall(path.read_text()) for path in PACKAGE.rglob("*.py")}
    assert {path: names for path, names in found.items() if names} == {
        str(PACKAGE / "plugin/buildkitd.py"): ["oci", "containerd"]  # sections of buildkitd's own configuration
    }


def test_the_names_for_build_files_are_the_rules() -> None:
    assert sorted(bkrules.RULE_NAMES) == sorted(RULES)
    assert {name: getattr(bkrules, name) for name in bkrules.RULE_NAMES} == RULES


def test_a_plugin_finds_all_that_it_needs_in_one_place() -> None:
    for name in bkrules.plugin.__all__:
        assert hasattr(bkrules.plugin, name)
    plugins = PACKAGE.parent / "plugins"
    for path in plugins.glob("*/bk_worker_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("bkrules"):
                assert node.module == "bkrules.plugin", path

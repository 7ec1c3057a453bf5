"""The arrows between the parts of bkrules point one way, and the core knows no worker by its name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import bkrules
import bkrules.plugin
from bkrules.rules import RULES

PACKAGE = Path(bkrules.__file__).parent

# A part, and what it may import besides the values at the bottom. `analysis.context` and `rules` are one layer: a rule is a
# schema and a function of a context.
VALUES = {
    "files",
    "kernel",
    "stamps",
    "mirror_faults",
    "resources",
    "observed",
    "errors",
    "digest",
    "label",
    "reapi",
    "action",
    "rule",
}
MAY_IMPORT = {
    "errors": set(),
    "files": set(),
    "streams": set(),
    "stamps": set(),
    "observed": {"stamps"},
    "kernel": set(),
    "unchanged": {"files", "kernel", "stamps"},
    "settled": {"digest", "label", "observed", "stamps", "unchanged"},
    "digest": {"files"},
    "label": {"errors"},
    "reapi": set(),
    "resources": set(),
    "options": {"cache"},
    "mirror_faults": {"errors"},
    "action": {"resources", "digest", "label", "reapi"},
    "rule": {"errors", "label"},
    "web": set(),
    "cache": {*VALUES, "web"},
    "images": {*VALUES, "cache", "web"},
    "plugin": {"errors", "files", "kernel"},
    "machine": {"digest", "observed", "stamps", "errors", "cache", "kernel", "plugin"},
    "providers": {*VALUES, "images", "plugin"},
    "loading": {*VALUES, "cache", "plugin"},
    "analysis": {*VALUES, "images", "loading", "machine", "plugin", "providers"},
    "rules": {*VALUES, "analysis", "images", "plugin", "providers"},
    "execution": {"why", *VALUES, "cache", "images", "machine", "plugin", "rules", "testing", "web"},
    "testing": {"execution", "plugin"},
    "why": {"errors", "files", "web"},
    "selection": {"action", "errors", "label"},
    "wishes": {"errors", "label", "loading", "observed", "plugin", "rule", "rules"},
    "report": {"selection", "why", *VALUES, "cache", "execution"},
    "early_actions": {"action", "cache", "errors", "execution", "machine", "options", "plugin"},
    "analyzed": {
        "early_actions",
        *VALUES,
        "analysis",
        "cache",
        "loading",
        "machine",
        "plugin",
        "rules",
        "selection",
        "settled",
        "wishes",
    },
    "build": {*VALUES, "analysis", "analyzed", "cache", "execution", "loading", "options", "plugin", "report"},
    "session": {*VALUES, "analyzed", "build", "cache", "execution", "options", "report"},
    "query": {*VALUES, "loading", "plugin"},
    "conformance": {*VALUES, "analysis", "execution", "plugin", "providers", "rules", "testing"},
    "commands": {
        "settled",
        "unchanged",
        "why",
        *VALUES,
        "analysis",
        "analyzed",
        "build",
        "cache",
        "conformance",
        "session",
        "execution",
        "loading",
        "machine",
        "options",
        "plugin",
        "providers",
        "query",
        "report",
        "selection",
        "wishes",
        "images",
    },
    "cli": {"commands", "early_actions", "errors", "loading"},
    "__main__": {"cli", "streams", "unchanged"},
    "__init__": {"rules"},
}


def imports(path: Path) -> Iterator[str]:
    """The parts of bkrules that a file imports when it runs."""
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
            parts = node.module.split(".")[1:2] or [item.name for item in node.names if item.name != "__version__"]
            yield from parts
        elif isinstance(node, ast.Import):
            yield from (item.name.split(".")[1] for item in node.names if item.name.startswith("bkrules."))


def part_of(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arrows(path: Path) -> None:
    own = part_of(path)
    assert set(imports(path)) - {own} - MAY_IMPORT[own] == set()


def test_every_part_has_its_arrows() -> None:
    assert {part_of(path) for path in PACKAGE.rglob("*.py")} == set(MAY_IMPORT)


def test_the_language_of_queries_knows_nothing_of_loading() -> None:
    own = {name: set(imports(PACKAGE / f"query/{name}.py")) for name in ("language", "evaluate")}
    assert own == {"language": {"errors"}, "evaluate": {"label", "query"}}
    assert "bkrules.query.language" in (PACKAGE / "query/evaluate.py").read_text()
    assert "bkrules.query.targets" not in (PACKAGE / "query/evaluate.py").read_text()


def test_the_core_names_no_worker() -> None:
    """A default is the one exception: estargz_image takes the worker that a BUILD.py calls `:oci`."""
    pattern = re.compile(r"""["'](containerd|containerd\+stargz|rootless|oci)["']""")
    found = {str(path): pattern.findall(path.read_text()) for path in PACKAGE.rglob("*.py")}
    assert {path: names for path, names in found.items() if names} == {
        str(PACKAGE / "plugin/buildkitd.py"): ["oci", "containerd"]  # sections of buildkitd's own configuration
    }


def test_the_names_for_build_files_are_the_rules() -> None:
    assert sorted(bkrules.RULE_NAMES) == sorted(RULES)
    assert bkrules.image is RULES["image"]


def test_a_plugin_finds_all_that_it_needs_in_one_place() -> None:
    for name in bkrules.plugin.__all__:
        assert hasattr(bkrules.plugin, name)
    plugins = PACKAGE.parent / "plugins"
    for path in plugins.glob("*/bk_worker_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("bkrules"):
                assert node.module == "bkrules.plugin", path

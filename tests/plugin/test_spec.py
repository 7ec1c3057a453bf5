"""Every hook is described, documented, and implemented by a part of bk itself."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

from bkrules.model.status import FailureClass, Status
from bkrules.plugin import cell, spec


@pytest.mark.parametrize("hook", spec.HOOKS)
def test_a_hook_says_when_it_is_called_and_what_a_fault_does(hook: str) -> None:
    text = " ".join((inspect.getdoc(getattr(spec, hook)) or "").split())
    assert "Called " in text
    assert any(word in text for word in ("An exception", "A plugin that raises")), "what an exception does"
    assert re.search(r"\d+ s\b|as `bk_", text), "how long it may take"


@pytest.mark.parametrize("hook", spec.HOOKS)
def test_a_hook_is_in_the_documents(hook: str, repository: Path) -> None:
    arguments = ", ".join(inspect.signature(getattr(spec, hook)).parameters)
    assert f"\n| `{hook}({arguments})` | " in (repository / "docs/hooks.md").read_text()


@pytest.mark.parametrize("hook", spec.HOOKS)
def test_a_hook_is_implemented_by_bk(hook: str, repository: Path) -> None:
    files = [*repository.glob("bkrules/**/*.py"), *repository.glob("plugins/*/*.py")]
    found = [
        f"{path.relative_to(repository)}:{node.lineno}"
        for path in files
        if path != repository / "bkrules/plugin/spec.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name == hook and _is_marked(node)
    ]
    assert found != []


def test_only_hooks_of_cells_run_in_cells() -> None:
    for hook in spec.HOOKS:
        arguments = inspect.signature(getattr(spec, hook)).parameters
        if hook in spec.CELL_HOOKS:
            assert next(iter(arguments)) == "cell"


def _is_marked(function: ast.FunctionDef) -> bool:
    decorators = (one.func if isinstance(one, ast.Call) else one for one in function.decorator_list)
    return any("hookimpl" in (getattr(one, "id", ""), getattr(one, "attr", "")) for one in decorators)


def test_a_cell_gives_itself_known_statuses_and_classes() -> None:
    assert {Status(one) for one in cell.STATUSES} < set(Status)
    assert {FailureClass(one) for one in cell.CLASSES} < set(FailureClass)

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from bkrules.loading.workspace import Workspace
from bkrules.model.label import Label
from bkrules.model.rule import Attr, Rule, Target


def nothing(_context: object) -> tuple[object, ...]:
    return ()


@pytest.fixture
def rules() -> dict[str, Rule]:
    thing = Rule(
        "thing",
        "A rule with an attribute of every kind.",
        {
            "title": Attr("string", "A title."),
            "words": Attr("strings", "Some words.", default=()),
            "ready": Attr("bool", "Whether it is ready.", default=False),
            "size": Attr("count", "A size.", default=1),
            "table": Attr("dict", "A table.", default={}),
            "dep": Attr("label", "A dependency."),
            "deps": Attr("labels", "Dependencies.", default=()),
            "by_name": Attr("label_dict", "Dependencies by name.", default={}),
        },
        nothing,
    )
    strict = Rule("strict", "A rule that insists.", {"title": Attr("string", "A title.", required=True)}, nothing)
    loose = Rule("loose", "A rule that takes anything.", {}, nothing, open_ended=True)

    def helper(target: Target, _plugins: object) -> list[Label]:
        return [Label(target.label.package, "helper"), Label("", "not-there")]

    assisted = Rule("assisted", "A rule that depends on what no attribute says.", {}, nothing, implicit=helper)
    return {rule.name: rule for rule in (thing, strict, loose, assisted)}


@pytest.fixture
def make_workspace(tmp_path: Path, rules: dict[str, Rule]) -> Callable[[Mapping[str, str]], Workspace]:
    """A workspace with these files; build files import every rule, on their first line."""

    def make(files: Mapping[str, str]) -> Workspace:
        for path, text in {"WORKSPACE.py": "", **files}.items():
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            is_build_file = file.name in ("WORKSPACE.py", "BUILD.py")
            file.write_text(f"from bkrules import {', '.join(rules)}\n{text}" if is_build_file else text)
        return Workspace(str(tmp_path), rules)

    return make

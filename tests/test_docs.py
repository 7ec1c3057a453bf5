"""What the documents say, compared with the code."""

from __future__ import annotations

import argparse
import inspect
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

import bkrules
from bkrules import cli, errors
from bkrules.commands import arguments
from bkrules.model.rule import COMMON, Attr
from bkrules.plugin import Backend, spec
from bkrules.plugin.worker import Worker
from bkrules.query.language import FILTERS, FUNCTIONS
from bkrules.query.output import FORMATS
from bkrules.rules import RULES
from bkrules.testing.sandbox import Sandbox


@pytest.fixture
def readme(repository: Path) -> str:
    return (repository / "README.md").read_text()


@pytest.fixture
def guide(repository: Path) -> str:
    return (repository / "plugins/README.md").read_text()


def test_every_command_is_in_the_readme(readme: str) -> None:
    usage = cli._parser(cli.MODULES)[0].format_help()
    commands = re.findall(r"^    (\w+) +\S", usage, re.MULTILINE)
    assert len(commands) >= 6
    assert [name for name in commands if f"`bk {name}" not in readme] == []


def test_every_option_of_a_remote_cache_is_in_the_readme(readme: str) -> None:
    parser = argparse.ArgumentParser()
    arguments.add_remote(parser)
    options = [action.option_strings[0] for action in parser._actions if action.dest != "help"]
    assert len(options) == 6
    assert [name for name in options if f"| `{name}" not in readme] == []
    assert f"`{arguments.HEADERS}`" in readme


def test_every_option_of_tests_is_in_the_readme(readme: str) -> None:
    parser = argparse.ArgumentParser()
    arguments.add_tests(parser)
    arguments.add_cells(parser)
    options = {action.option_strings[0] for action in parser._actions if action.dest != "help"}
    assert len(options) == 8
    assert [name for name in options if not re.search(rf"[| ]`{name}[=`]", readme)] == []


def test_every_option_of_scheduling_is_in_the_readme(readme: str) -> None:
    parser = argparse.ArgumentParser()
    arguments.add_scheduling(parser)
    options = [action.option_strings[0] for action in parser._actions if action.dest != "help"]
    assert len(options) == 5
    assert [name for name in options if name != "--test_keep_going" and f"| `{name}" not in readme] == []


def test_every_exit_code_is_in_the_readme(readme: str) -> None:
    codes = [value for name, value in vars(errors).items() if name.isupper() and isinstance(value, int)]
    assert len(codes) == 8
    assert [code for code in codes if not re.search(rf"\| {code} \| \w", readme)] == []


def test_the_sandbox_is_in_the_readme(readme: str) -> None:
    public = [name for name in vars(Sandbox) if not name.startswith("_")]
    fields = ["name", "worker", "backend", "axes"]
    assert [name for name in {*public, *fields} - {"log_folder", "backend", "axes"} if f"`{name}" not in readme] == []


def test_every_hook_and_method_is_in_the_guide(guide: str) -> None:
    hooks = [name for name in vars(spec) if name.startswith("bk_")]
    for name in hooks:
        for argument in inspect.signature(getattr(spec, name)).parameters:
            assert re.search(rf"def {name}\(.*\b{argument}\b", guide)
    methods = [name for name in vars(Worker) if not name.startswith("_")]
    assert [name for name in methods if f"`{name}" not in guide] == []
    assert [name for name in Backend.__dataclass_fields__ if f"`{name}`" not in guide] == []


def test_the_two_commands_are_what_ci_runs(repository: Path, readme: str) -> None:
    ci = re.findall(r"^part \w+ (.*)$", (repository / ".ci/run").read_text(), re.MULTILINE)
    assert ci == [
        "./bk build //targets:stargz_matrix",
        ".venv/bin/python -m pytest",
        ".venv/bin/python -m pytest -m soak",
    ]
    assert "\n" + "\n".join(ci[:2]) + "\n" in readme
    assert f"`{ci[2]}`" in readme


def test_the_reference_of_the_rules_is_true(repository: Path) -> None:
    """`bkrules/rules/README.md` is made from the schemas; on a difference, this test's message is what it should be."""
    text = reference()
    assert (repository / "bkrules/rules/README.md").read_text() == text


def reference() -> str:
    """The reference of all rules and their attributes."""
    parts = ["# Rules\n\nWhat a WORKSPACE.py or BUILD.py may declare: `from bkrules import ...`. Every rule has\n"]
    parts += [_table(COMMON)]
    parts += [f"## {rule.name}\n\n{rule.doc}\n\n{_table(rule.attributes)}" for _, rule in sorted(RULES.items())]
    parts += ["# Functions\n", *(_function(getattr(bkrules, name)) for name in bkrules.FUNCTION_NAMES)]
    return "\n".join(parts)


def _function(function: Callable[..., object]) -> str:
    signature = inspect.signature(function)
    shown = signature.replace(
        parameters=[one.replace(annotation=one.empty) for one in signature.parameters.values()],
        return_annotation=signature.empty,
    )
    return f"## {function.__name__}\n\n`{function.__name__}{shown}`\n\n{inspect.getdoc(function)}\n"


def _table(attributes: Mapping[str, Attr]) -> str:
    rows = [_row(name, attribute) for name, attribute in attributes.items()]
    return "\n".join(["| attribute | kind | default | meaning |", "| --- | --- | --- | --- |", *rows, ""])


def _row(name: str, attribute: Attr) -> str:
    default = (
        "required" if attribute.required else "" if attribute.default in (None, (), {}) else f"`{attribute.default!r}`"
    )
    return f"| `{name}` | {attribute.kind} | {default} | {attribute.doc} |"


def test_the_queries_of_the_readme_have_these_answers(
    repository: Path, readme: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(repository)
    examples = re.findall(r"^\$ bk (query .*)\n((?:.+\n)+?)(?=\n|```)", readme, re.MULTILINE)
    assert len(examples) == 3
    for command, answer in examples:
        assert cli.main(shlex.split(command)) == 0
        assert capsys.readouterr().out == answer


def test_every_function_and_format_of_queries_is_in_the_readme(readme: str) -> None:
    assert [name for name in (*FUNCTIONS, *FILTERS) if f"`{name}(" not in readme] == []
    assert [name for name in FORMATS if f"`{name}`" not in readme] == []


@pytest.mark.parametrize("name", ["README.md", "bkrules/README.md", "plugins/README.md", "CHANGELOG.md"])
def test_links_lead_somewhere(repository: Path, name: str) -> None:
    file = repository / name
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", file.read_text())
    assert [link for link in links if not (file.parent / link).exists()] == []

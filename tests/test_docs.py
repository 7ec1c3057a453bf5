"""What the documents say, compared with the code."""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import re
import shlex
import subprocess
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

import examples
import pytest

import bkrules
from bkrules import cli, errors
from bkrules.cell import confine, jail
from bkrules.commands.build_arguments import add_cells, add_scheduling, add_tests
from bkrules.commands.parser import spelled_out
from bkrules.commands.remote_arguments import HEADERS, add_downloads, add_executor, add_remote
from bkrules.model.rule import COMMON, Attr
from bkrules.plugin import Backend
from bkrules.plugin.manager import load
from bkrules.plugin.worker import Worker
from bkrules.query.functions import FILTERS, FUNCTIONS
from bkrules.query.output import FORMATS
from bkrules.rules import RULES
from bkrules.testing.sandbox import Sandbox

ROOT = Path(__file__).parents[1]
USERS = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
"""The pages for users."""
FOLDERS = ("docs/design", "bkrules", "plugins", "tests/bench")
MORE = [str(path.relative_to(ROOT)) for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.md"))]
PAGES = [*USERS, *MORE, "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"]
"""Every Markdown page of the repository."""


@pytest.fixture
def readme() -> str:
    """All pages for users, one after the other."""
    return "\n".join((ROOT / name).read_text() for name in USERS)


@pytest.fixture
def guide(repository: Path) -> str:
    return (repository / "plugins/README.md").read_text()


def test_every_command_is_in_the_documents(readme: str) -> None:
    usage = cli._parser(cli.MODULES)[0].format_help()
    commands = re.findall(r"^    (\w+) +\S", usage, re.MULTILINE)
    assert len(commands) >= 6
    assert [name for name in commands if f"`bk {name}" not in readme] == []


def test_every_option_of_a_remote_cache_is_in_the_documents(readme: str) -> None:
    parser = argparse.ArgumentParser()
    add_remote(parser)
    options = [action.option_strings[0] for action in parser._actions if action.dest != "help"]
    assert len(options) == 9
    assert [name for name in options if not re.search(rf"(\| |and )`{name}", readme)] == []
    assert f"`{HEADERS}`" in readme


def test_every_option_of_an_engine_is_in_the_documents(repository: Path) -> None:
    parser = argparse.ArgumentParser()
    add_executor(parser)
    add_downloads(parser)
    options = [action.option_strings[0] for action in parser._actions if action.dest != "help"]
    assert len(options) == 6
    text = (repository / "docs/remote-execution.md").read_text()
    assert [name for name in options if not re.search(rf"^\| `{name}[=`]", text, re.MULTILINE)] == []


def test_every_option_of_tests_is_in_the_documents(readme: str) -> None:
    parser = argparse.ArgumentParser()
    add_tests(parser)
    add_cells(parser)
    options = {action.option_strings[0] for action in parser._actions if action.dest != "help"}
    assert len(options) == 9
    assert [name for name in options if not re.search(rf"[| ]`{name}[=`]", readme)] == []


def test_every_option_of_scheduling_is_in_the_documents(readme: str) -> None:
    parser = argparse.ArgumentParser()
    add_scheduling(parser)
    options = [action.option_strings[0] for action in parser._actions if action.dest != "help"]
    assert len(options) == 5
    assert [name for name in options if name != "--test_keep_going" and f"| `{name}" not in readme] == []


def test_every_exit_code_is_in_the_documents(readme: str) -> None:
    found = {name: value for name, value in vars(errors).items() if name.isupper() and isinstance(value, int)}
    codes = [value for name, value in found.items() if not name.startswith("_")]
    assert len(codes) == 10
    assert [code for code in codes if not re.search(rf"\| {code} \| \w", readme)] == []


def test_every_field_of_a_report_is_in_the_documents(repository: Path) -> None:
    page = (repository / "docs/caching.md").read_text()
    schema = json.loads((repository / "bkrules/report/report.schema.json").read_text())
    cell = schema["$defs"]["cell"]["properties"]
    words = [*schema["properties"], *cell, *filter(None, cell["class"]["enum"]), *cell["status"]["enum"]]
    assert len(words) > 30
    assert [word for word in words if not re.search(rf"`{word}(\[\])?`", page)] == []


def test_the_sandbox_is_in_the_documents(readme: str) -> None:
    public = [name for name in vars(Sandbox) if not name.startswith("_")]
    fields = ["name", "worker", "backend", "axes"]
    assert [name for name in {*public, *fields} - {"log_folder", "backend", "axes"} if f"`{name}" not in readme] == []


def test_every_hook_and_method_is_in_the_guide(guide: str) -> None:
    methods = [name for name in vars(Worker) if not name.startswith("_")]
    assert [name for name in methods if f"`{name}" not in guide] == []
    assert [name for name in Backend.__dataclass_fields__ if f"`{name}`" not in guide] == []


def test_the_two_commands_are_what_ci_runs(repository: Path) -> None:
    readme = (repository / "README.md").read_text()
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
    parts = [
        "# Rules\n\nWhat a WORKSPACE.py or BUILD.py may declare: `from bkrules import ...`. Every rule has these:\n"
    ]
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


def test_the_queries_of_the_documents_have_these_answers(
    repository: Path, readme: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(repository)
    examples = re.findall(r"^\$ bk (query .*)\n((?!error: )(?:.+\n)+?)(?=\n|```)", readme, re.MULTILINE)
    assert len(examples) == 3
    for command, answer in examples:
        assert cli.main(shlex.split(command)) == 0
        assert capsys.readouterr().out == answer


def test_every_function_and_format_of_queries_is_in_the_documents(readme: str) -> None:
    assert [name for name in (*FUNCTIONS, *FILTERS) if f"`{name}(" not in readme] == []
    assert [name for name in FORMATS if f"`{name}`" not in readme] == []


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    """To files that are there, and to headings that they have."""
    text = (ROOT / name).read_text()
    for link, heading in re.findall(r"\]\s?\(([^)#:\s]*)(?:#([^)\s]*))?\)", text):
        target = (ROOT / name).parent / link if link else ROOT / name
        assert target.exists(), link
        headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE) if heading else []
        assert not heading or heading in [re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings], (
            heading
        )


def test_the_index_names_every_page(repository: Path) -> None:
    index = (repository / "docs/README.md").read_text()
    assert [name for name in USERS[1:] if name != "docs/README.md" and f"({Path(name).name})" not in index] == []


def test_the_readme_is_short(repository: Path) -> None:
    """A newcomer reads it whole; what takes longer has a page."""
    assert len((repository / "README.md").read_text().splitlines()) <= 120


def blocks(language: str) -> list[tuple[str, str]]:
    """Return the code blocks of a language in all pages, each with its page."""
    return [(one.page, one.text) for one in examples.blocks() if one.language == language]


@pytest.mark.parametrize(("name", "block"), blocks("python"))
def test_python_in_the_documents_is_python(name: str, block: str) -> None:
    ast.parse(block)


@pytest.mark.parametrize(("name", "block"), blocks("toml"))
def test_toml_in_the_documents_is_toml(name: str, block: str) -> None:
    tomllib.loads(block)


@pytest.mark.parametrize(("name", "block"), blocks("sh"))
def test_shell_in_the_documents_is_shell(name: str, block: str) -> None:
    subprocess.run(["sh", "-n"], input=block, text=True, check=True)
    paths = re.findall(r"(?<![\w/.-])(?:tests|\.ci|docs)/[\w/.]+", block)
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("name", PAGES)
def test_commands_are_in_fences(name: str) -> None:
    """`examples.py` finds no others."""
    text = re.sub(r"^ *```.*?^ *```$", "", (ROOT / name).read_text(), flags=re.MULTILINE | re.DOTALL)
    assert re.findall(r"^ {4}(?:\$ |\./|bk |pip ).*$", text, re.MULTILINE) == []


def calls() -> list[tuple[str, str, ast.Call]]:
    """Return each call of a rule in the Python of the pages, with its page and the rule's name."""
    trees = [(name, ast.parse(block)) for name, block in blocks("python")]
    found = [(name, node) for name, tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    named = [(name, call.func.id, call) for name, call in found if isinstance(call.func, ast.Name)]
    return [(name, rule, call) for name, rule, call in named if rule in RULES]


@pytest.mark.parametrize(("name", "rule", "call"), [pytest.param(*one, id=f"{one[0]}:{one[1]}") for one in calls()])
def test_the_rules_in_the_documents_have_these_attributes(name: str, rule: str, call: ast.Call) -> None:
    """In parts of build files too, which no test can run. The other attributes of a worker are the settings of its plugin."""
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords if keyword.arg is not None}
    known = {*COMMON, *RULES[rule].attributes}
    plugin = load().workers.get(given.get("plugin", "").strip("'"))
    if plugin is not None:
        known |= plugin.describe_settings().keys()
    is_readers = given.get("plugin") == "'narrow'"  # the tutorial's plugin, whose settings the reader writes
    assert [attribute for attribute in given if attribute not in known and not is_readers] == []


def test_there_are_rules_in_the_documents() -> None:
    assert len(calls()) >= 50


def bk_commands() -> list[tuple[str, str]]:
    """Return each `bk ...` of the shell blocks and sessions, with its page. Those of the gallery are mistakes."""
    found = [(name, line) for name, block in blocks("sh") for line in block.replace("\\\n", " ").splitlines()]
    found += [
        (name, line[2:])
        for name, block in blocks("console")
        for line in block.splitlines()
        if line.startswith("$ ") and name != "docs/mistakes.md"
    ]
    return [(name, one) for name, line in found for one in re.findall(r"(?:^|\s)(?:\./)?bk ([^|>]*)", line)]


@pytest.mark.parametrize(("name", "line"), bk_commands())
def test_every_bk_command_in_the_documents_parses(name: str, line: str) -> None:
    words = [spelled_out(word) for word in shlex.split(line, comments=True)]
    if words[0] in cli.HANDS_ON:
        words = words[:1]  # the others are for another program
    elif words[0] in cli.RUN_ANOTHER and "--" in words:
        words = words[: words.index("--")]
    parser = cli._parser(cli.MODULES)[0]
    parser.parse_args([re.sub(r"=\.\./\S+", "=bk" if "override_tool" in word else "=.", word) for word in words])


def commands_in_sentences() -> list[tuple[str, str]]:
    """Return each `bk ...` in the sentences of the pages, with its page."""
    pages = [name for name in PAGES if name not in ("docs/mistakes.md", "CHANGELOG.md")]
    return [
        (name, line)
        for name in pages
        for line in re.findall(r"(?<!`)`(?:\./)?bk ([a-z][^`]*)`", (ROOT / name).read_text())
    ]


@pytest.mark.parametrize(("name", "line"), sorted(set(commands_in_sentences())))
def test_the_commands_in_sentences_have_these_options(name: str, line: str) -> None:
    """They may lack arguments, so they need not parse."""
    commands = cli._parser(cli.MODULES)[1]
    command, *words = line.split()
    if command not in commands:  # a command of a plugin, or one that a design only plans
        assert command == "hooks" or name.startswith("docs/design/")
        return
    known = {
        option for parser in (commands[command], *inner(commands[command])) for option in parser._option_string_actions
    }
    options = re.findall(r"(?<![\w-])--?[a-z]\w*", " ".join(words).partition(" -- ")[0])
    assert [one for one in map(spelled_out, options) if one not in known] == []


def inner(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """Return the parsers of the words that may follow a command, as in `bk plugin new`."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return [one for action in groups for one in action.choices.values()]


def test_there_are_commands_in_the_documents() -> None:
    assert len(bk_commands()) >= 10


def test_what_cells_cannot_do_is_in_the_page_on_security(repository: Path) -> None:
    """Each capability that is dropped and each setting that is covered, no other capability, and the ids of jails."""
    page = (repository / "SECURITY.md").read_text()
    (listed,) = re.findall(r"alone: ([A-Z_,\s]+)\. kexec", page)
    assert {f"CAP_{name}" for name in re.findall("[A-Z_]+", listed)} == set(confine.DROPPED)
    assert [path for path in (*confine.READ_ONLY, *confine.WRITABLE) if f"`/{path}`" not in page] == []
    assert f"from {jail.FIRST} on" in page


def test_the_tree_names_every_module(repository: Path) -> None:
    text = (repository / "bkrules/README.md").read_text()
    tree = text[text.index("## The tree") :].split("```")[1]
    room, listed = "", set()
    for line in tree.splitlines():
        if found := re.match(r"(\w+/) ", line):
            room = found[1]
        elif found := re.match(r"(  )?(\w+\.py) ", line):
            listed.add((room if found[1] else "") + found[2])
    modules = {str(path.relative_to(repository / "bkrules")) for path in (repository / "bkrules").rglob("*.py")}
    assert listed == {name for name in modules if "/" not in name or not name.endswith("__init__.py")}

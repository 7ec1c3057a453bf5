"""The pages of the reference that are made from the code: options, exit codes, sandbox, hooks, report and events."""

from __future__ import annotations

import argparse
import inspect
import json
import re
from collections.abc import Callable, Iterator
from importlib import resources
from typing import Any

from bkrules import cli
from bkrules.build.request import default_cache
from bkrules.commands.help import TOPICS
from bkrules.plugin import spec
from bkrules.testing.sandbox import Sandbox


def options() -> str:
    """Return the page of all commands with their arguments."""
    parser, commands = cli._parser(cli.MODULES, plugins=True)
    parts = [
        "# Options\n\nEach command of `bk`, with its arguments. Options have the names and the meaning that Bazel gives them.\n"
    ]
    parts += [_command(name, command) for name, command in sorted(commands.items())]
    parts += ["## Before the command\n", *_arguments(parser)]
    return "\n".join(parts)


def _command(name: str, parser: argparse.ArgumentParser, level: int = 2) -> str:
    inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    parts = [f"{'#' * level} `bk {name}`\n", f"{_sentence(parser.description or '')}\n", *_arguments(parser)]
    parts += [_command(f"{name} {word}", one, 3) for action in inner for word, one in action.choices.items()]
    return "\n".join(parts)


def _arguments(parser: argparse.ArgumentParser) -> Iterator[str]:
    shown = [one for one in parser._actions if one.help not in (None, argparse.SUPPRESS) and one.dest != "help"]
    shown = [one for one in shown if not isinstance(one, argparse._SubParsersAction)]
    if shown:
        yield "| argument | meaning |\n| --- | --- |"
        yield from (f"| {_spelled(one)} | {_cell(_help(parser, one))} |" for one in shown)
        yield ""


def _spelled(action: argparse.Action) -> str:
    shown = action.metavar or (action.choices and "|".join(map(str, action.choices))) or action.dest.upper()
    value = "" if action.nargs == 0 else str(shown).replace("|", "\\|")  # a bar ends the cell of a table
    if not action.option_strings:
        return f"`{value}`"
    names = {name.replace("-", "_").replace("__", "--", 1): name for name in reversed(action.option_strings)}.values()
    return ", ".join(f"`{name}{f'={value}' if value else ''}`" for name in reversed(names))


def _help(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    return parser._get_formatter()._expand_help(action).replace(default_cache(), "~/.cache/bk")


def exit_codes() -> str:
    """Return the page of the exit codes, and of the other topics of `bk help`."""
    parts = ["# Exit codes, labels, filters, variables\n\nThe topics of `bk help`.\n"]
    parts += [f"## {_sentence(about)[:-1]}\n\n```text\n{text}\n```\n" for about, text in TOPICS.values()]
    return "\n".join(parts)


def sandbox() -> str:
    """Return the page of the sandbox: what a test can ask of it, and do with it."""
    parts = [
        f"# The sandbox\n\n{_prose(inspect.getdoc(Sandbox))}\n\n[Write a test](../docs/tests.md) shows it in use.\n"
    ]
    members = {name: one for name, one in vars(Sandbox).items() if not name.startswith("_")}
    properties = {name: one for name, one in members.items() if isinstance(one, property)}
    parts.append("## Values\n\n| name | type | meaning |\n| --- | --- | --- |")
    parts += [f"| `{name}` | `{_type(one.fget)}` | {_cell(_prose(one.__doc__))} |" for name, one in properties.items()]
    parts.append("\n## Methods\n")
    for name, one in members.items():
        if inspect.isfunction(inspect.unwrap(one)):
            parts.append(f"### `{name}`\n\n```python\n{name}{_signature(one)}\n```\n\n{_prose(inspect.getdoc(one))}\n")
    return "\n".join(parts)


def _type(function: Callable[..., Any] | None) -> str:
    return str(inspect.signature(function).return_annotation) if function else ""


def _signature(function: Callable[..., Any]) -> str:
    signature = inspect.signature(function)
    return str(
        signature.replace(parameters=[one for name, one in signature.parameters.items() if name != "self"])
    ).replace("'", "")


def hooks() -> str:
    """Return the page of all hooks, by their docstrings."""
    parts = [f"# Hooks, one by one\n\n{_prose(spec.__doc__)}\n\n[Hooks](../docs/hooks.md) has examples.\n"]
    for name, function in vars(spec).items():
        if hasattr(function, f"{spec.GROUP}_spec"):
            parts.append(
                f"## `{name}`\n\n```python\n{name}{_signature(function)}\n```\n\n{_prose(inspect.getdoc(function))}\n"
            )
    return "\n".join(parts)


def report() -> str:
    """Return the page of `report.json`."""
    return _schema(
        "report.schema.json",
        "Its place is `bk-out/<package>/<matrix>/`. [Caching](../docs/caching.md) tells more of the files of a build.",
    )


def events() -> str:
    """Return the page of the event stream."""
    return _schema(
        "events.schema.json",
        "`--build_event_json_file=FILE` writes the stream.",
    )


def _schema(name: str, about: str) -> str:
    document = json.loads((resources.files("bkrules.report") / name).read_text())
    parts = [
        f"# {document['title']}\n\n{document['description']} {about}\n",
        f"The schema is the file `bkrules/report/{name}` of the package.\n",
        _table(document),
        *(f"## `{part}`\n\n{one['description']}\n\n{_table(one)}" for part, one in document["$defs"].items()),
    ]
    return "\n".join(parts)


def _table(schema: dict[str, Any]) -> str:
    rows = [f"| `{path}` | {_kind(one)} | {_cell(_meaning(one))} |" for path, one in _fields(schema)]
    return "\n".join(["| field | type | meaning |", "| --- | --- | --- |", *rows, ""])


def _fields(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for name, one in schema.get("properties", {}).items():
        yield path + name, one
        yield from _fields(one, f"{path}{name}.")
        yield from _fields(one.get("items", {}), f"{path}{name}[].")


def _kind(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name})"
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "items" in schema and "$ref" in schema["items"]:
        return f"array of {_kind(schema['items'])}"
    kinds = schema.get("type", [])
    return " or ".join([kinds] if isinstance(kinds, str) else kinds) or "number"


def _meaning(schema: dict[str, Any]) -> str:
    values = ", ".join(f"`{json.dumps(one)}`" for one in schema.get("enum", []) if one is not None)
    return " ".join([schema.get("description", ""), f"One of {values}." if values else ""])


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def _prose(text: str | None) -> str:
    return (text or "").strip()


def _cell(text: str) -> str:
    """Return a text as the cell of a table: on one line, with its bars and its markup escaped outside of code."""
    words = " ".join(text.split()).replace("|", "\\|")
    return re.sub(r"`[^`]*`|([<*_])", lambda match: f"\\{match[1]}" if match[1] else match[0], words)


PAGES: dict[str, Callable[[], str]] = {
    "options": options,
    "exit-codes": exit_codes,
    "sandbox": sandbox,
    "hooks": hooks,
    "report": report,
    "events": events,
}
"""The pages by their names, in their order."""

"""`bk query` and `bk aquery`."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from bkrules import errors
from bkrules.analysis.host_inputs import REGISTRY, find
from bkrules.build.analysis import Analysis, analyze_targets, open_workspace, package_of
from bkrules.build.execute import Execution
from bkrules.build.request import Options
from bkrules.commands.build_arguments import add_cells, runs_of
from bkrules.commands.harness import add_overrides, overrides_of
from bkrules.commands.own_files import add_modules
from bkrules.commands.parser import add_cache, command
from bkrules.commands.remote_arguments import add_remote, remote_of
from bkrules.errors import MachineLacks
from bkrules.model.action import Action, HostFile, HostFolder
from bkrules.report.indented import indented

if TYPE_CHECKING:
    from bkrules.commands.parser import Commands


def add(commands: Commands) -> None:
    """Add the commands of this module to the parser."""
    query = command(commands, "query", _query, "print the targets that an expression names")
    _add_query(query)
    add_modules(query)
    aquery = command(commands, "aquery", _aquery, "print actions: arguments, environment, inputs, outputs, key")
    aquery.add_argument(
        "expressions",
        nargs="+",
        metavar="EXPRESSION",
        help="a pattern or a query, -PATTERN; mnemonic(REGEX, x), inputs(REGEX, x), outputs(REGEX, x)",
    )
    aquery.add_argument("--json", action="store_true", help="print JSON")
    add_cells(aquery)
    add_overrides(aquery)
    add_cache(aquery)
    add_remote(aquery)


def _add_query(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "expression",
        nargs="+",
        metavar="EXPRESSION",
        help="target patterns; deps(x), rdeps(universe, x), somepath(a, b), allpaths(a, b), kind(REGEX, x), "
        "attr(NAME, REGEX, x), tag(REGEX, x), filter(REGEX, x), labels(NAME, x), set(a b), let v = a in b, + - ^",
    )
    parser.add_argument(
        "--output",
        choices=("label", "label_kind", "location", "json", "graph", "build", "minrank"),
        default="label",
        help="the format (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_const", const="json", dest="output", help="the same as --output=json")
    parser.add_argument(
        "--noimplicit_deps",
        dest="implicit_deps",
        action="store_false",
        help="leave out the tools that a worker needs by name",
    )


def _query(arguments: argparse.Namespace) -> int:
    from bkrules.query.evaluate import evaluate
    from bkrules.query.output import show
    from bkrules.query.parser import parse
    from bkrules.query.targets import WorkspaceGraph

    expression = parse(" ".join(arguments.expression).strip())
    workspace = open_workspace(".")
    graph = WorkspaceGraph(workspace, package_of(workspace, "."), implicit=arguments.implicit_deps)
    sys.stdout.write(show(evaluate(expression, graph), graph, arguments.output))
    workspace.save()
    return errors.SUCCESS


def _aquery(arguments: argparse.Namespace) -> int:
    from bkrules.query.action_filters import chosen, parse_actions
    from bkrules.query.evaluate import evaluate
    from bkrules.query.targets import WorkspaceGraph

    options = Options(1, os.path.abspath(arguments.disk_cache), remote=remote_of(arguments))
    filters, expression = parse_actions([text.strip() for text in arguments.expressions])
    workspace = open_workspace(".")
    graph = WorkspaceGraph(workspace, package_of(workspace, "."), files=False)
    analysis = analyze_targets(
        workspace, graph.targets(evaluate(expression, graph)), runs_of(arguments), overrides_of(arguments)
    )
    execution = Execution(analysis, options, lambda line: print(line, file=sys.stderr), show=False)
    documents = (_describe(action, execution) for action in analysis.wanted().values())
    wanted = (document for document in documents if chosen(document, filters))
    # One document at a time: those of all cells of a large workspace do not fit into memory.
    if arguments.json:
        any_before = False
        for document in wanted:
            print("," if any_before else "[", f" {indented(document, 1)}", sep="\n", end="")
            any_before = True
        print("\n]" if any_before else "[]")
    else:
        for document in wanted:
            print(_text(document))
    execution.digests.save()
    return errors.SUCCESS


def _describe(action: Action, execution: Execution) -> dict[str, object]:
    """Return an action as aquery shows it. Its key is known only when the results of its dependencies are in the cache."""
    known = execution.look_up(action)
    return {
        "label": str(action.label),
        "mnemonic": action.mnemonic,
        "cell": action.cell.name if action.cell else None,
        "arguments": list(action.arguments),
        "parameters": _parameters(action),
        "environment": dict(action.environment),
        "platform": dict(action.platform),
        "timeout": action.timeout,
        "inputs": {path: known.leaves.get(f"input/{path}") for path, _ in action.inputs},
        "outputs": list(action.outputs),
        "host": _host(action, execution.analysis),
        "key": known.key,
    }


def _host(action: Action, analysis: Analysis) -> dict[str, str]:
    """Return the inputs of an action from this machine, by their places in the key: files, and the folders that a cell sees.

    Of these folders, the key has the names and versions of the packages, and bk's own files one by one.
    """
    paths = {path: _found(item.path) for path, item in action.inputs if isinstance(item, HostFile)}
    paths |= {path: item.path for path, item in action.inputs if isinstance(item, HostFolder)}
    if any(path == REGISTRY for path, _ in action.inputs):  # the action runs in a cell
        paths |= {f"folder/{number}": path for number, path in enumerate(analysis.machine().binds)}
    return paths


def _found(command: str) -> str:
    try:
        return find(command)
    except MachineLacks:
        return f"{command}, which this machine lacks"


def _parameters(action: Action) -> object:
    """Return the action's parameters; None for a command, which has none."""
    try:
        return action.parameters
    except (ValueError, IndexError):
        return None


def _text(document: dict[str, object]) -> str:
    lines = [f"action {document['mnemonic']} {document['cell'] or document['label']}"]
    for name, value in document.items():
        if name in ("mnemonic", "cell", "parameters") or value in (None, {}, [], 0):
            continue
        if isinstance(value, dict):
            lines.append(f"  {name}:")
            lines += [f"    {key}: {item or 'not known until it is built'}" for key, item in value.items()]
        else:
            lines.append(f"  {name}: {' '.join(value) if isinstance(value, list) else value}")
    return "\n".join([*lines, ""])

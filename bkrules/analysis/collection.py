"""The tests of a module as pytest collects them: the action that runs pytest, and the parser of its answer.

A rule is a pure function, and bk must know the cells of a matrix before it executes anything. So this action runs while
its matrix is analysed (`Context.run`), as an ordinary action with a key and a sandbox: its answer is a function of the
files it reads.
"""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from bkrules.analysis.cell_inputs import python_inputs
from bkrules.analysis.context import Context
from bkrules.analysis.pytest_settings import Settings
from bkrules.analysis.runs import ENVIRONMENT
from bkrules.analysis.test_marks import Mark, Test
from bkrules.errors import LoadError
from bkrules.model.action import Action, FileNode, HostFile, Node, Source
from bkrules.model.collected import Collected, CollectedTest
from bkrules.model.parameters import CollectTests, parameters_of
from bkrules.model.resources import SIZES

MNEMONIC = "CollectTests"
_FOLDER = "collected"
ABOVE = ("bkrules/cell/", "bkrules/execution/", "bkrules/runners/")
"""The packages above `bkrules/testing`, which no code that collects tests can import."""


def declare(context: Context, module: str, files: Iterable[str], settings: Settings) -> Action:
    """Declare the action that asks pytest for the tests of a module; `files` are all files that its import may read."""
    inputs = {f"src/{path}": Source(path) for path in (*files, module)}
    runtime = {name: HostFile(path) for name, path in context.machine.runtime if not name.startswith(ABOVE)}
    return context.declare(
        MNEMONIC,
        CollectTests(**vars(settings.parameters), module=module),
        {**inputs, **runtime, **python_inputs(context.machine)},
        (f"{_FOLDER}/{module}.json",),
        environment=ENVIRONMENT,
        platform=context.machine.host.features,
        memory=SIZES["small"].memory,
        name=module,
    )


def tests_of(action: Action, outputs: Mapping[str, Node]) -> list[Test]:
    """Return the tests in the answer to such an action.

    A module that skips itself is one test with the module's name: its cell reports the reason. Raises LoadError for a
    malformed answer.
    """
    [node] = [outputs[name] for name in action.outputs]
    assert isinstance(node, FileNode)
    module = parameters_of(action, CollectTests).module
    try:
        answer = Collected.parse(json.loads(Path(node.path).read_bytes()))
        if answer.skipped and not answer.tests:
            name = os.path.basename(module)
            return [Test(name, 1, callable=name, item="")]
        return [_test(test) for test in answer.tests]
    except (
        ValueError,
        TypeError,
        SyntaxError,
        RecursionError,
        MemoryError,
    ) as error:  # the module could write to that file too
        raise LoadError(
            "collection-failed", f"the list of tests of {module} is damaged: {error!r}", where=module
        ) from error


def _test(collected: CollectedTest) -> Test:
    name = _printable(collected.item)
    marks = tuple(_mark(mark, arguments, keywords, collected.line) for mark, arguments, keywords in collected.marks)
    item = None if name == collected.item else collected.item
    return Test(name, collected.line, marks, callable=_printable(collected.callable), item=item)


def _mark(name: str, arguments: str | None, keywords: str | None, line: int) -> Mark:
    if arguments is None or keywords is None:
        return Mark(name, line, None, None)
    values, named = ast.literal_eval(arguments), ast.literal_eval(keywords)
    if not isinstance(values, list) or not isinstance(named, dict) or not all(isinstance(key, str) for key in named):
        raise ValueError(f"the mark {name!r} has arguments that are not arguments")
    return Mark(name, line, tuple(values), named)


def _printable(text: str) -> str:
    """Return a name with every character printable: plugins may give ids with line breaks and worse."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)

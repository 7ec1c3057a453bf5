"""What crosses a process has a type: no function that sends or receives takes or gives a dictionary of anything."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import bkrules
from bkrules.cell import protocol
from bkrules.model import collected, parameters, wire
from bkrules.model.status import FailureClass, Status
from bkrules.model.wire import Wire
from bkrules.runners.table import RUNNERS
from bkrules.sandbox import messages
from bkrules.testing import control

PACKAGE = Path(bkrules.__file__).parent
ROOMS = ("cell", "runners", "sandbox")
"""The rooms whose functions run on both sides of a wire."""
ENDS = (
    "analysis/collection.py",
    "build/session.py",
    "commands/sessions.py",
    "testing/collect.py",
    "testing/control.py",
)
"""Other files that speak to another process, or read its answer."""
IPC = "bkrules.sandbox.ipc"
UNTYPED = re.compile(r"\b(?:dict|Dict|Mapping|MutableMapping)\[str, Any\]")
COMMANDS = {"Genrule", "GoBuild", "ImageArchive", "ImportImage"}
"""The mnemonics whose arguments are the words of a command, or none."""


def untyped(source: str) -> Iterator[str]:
    """Yield the functions whose signature has a dictionary of anything."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = [
                *node.args.posonlyargs,
                *node.args.args,
                *node.args.kwonlyargs,
                node.args.vararg,
                node.args.kwarg,
            ]
            hints = [node.returns, *(one.annotation for one in arguments if one is not None)]
            if any(UNTYPED.search(ast.unparse(hint)) for hint in hints if hint is not None):
                yield node.name


def bare(source: str) -> Iterator[int]:
    """Yield the lines that compare a status or a failure class with a text."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            named = any(isinstance(one, ast.Attribute) and one.attr in ("status", "failure") for one in sides)
            inner = [leaf for side in sides for leaf in ast.walk(side)]
            texts = {one.value for one in inner if isinstance(one, ast.Constant) and isinstance(one.value, str)}
            if named and texts & {*Status, *FailureClass}:
                yield node.lineno


def _ends() -> list[Path]:
    rooms = [path for room in ROOMS for path in PACKAGE.joinpath(room).glob("*.py")]
    speakers = [path for path in PACKAGE.rglob("*.py") if IPC in path.read_text()]
    return sorted({*rooms, *speakers, *(PACKAGE / name for name in ENDS)})


@pytest.mark.parametrize("path", _ends(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_dictionary_of_anything_crosses_a_process(path: Path) -> None:
    assert list(untyped(path.read_text())) == []


def test_statuses_and_classes_are_never_compared_as_texts() -> None:
    found = {str(path.relative_to(PACKAGE)): list(bare(path.read_text())) for path in PACKAGE.rglob("*.py")}
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "source",
    [
        "def send(message: dict[str, Any]) -> None: ...",
        "def next(self) -> tuple[dict[str, Any] | None, list[int]]: ...",
        "def run(self, *more: Mapping[str, Any]) -> None: ...",
        "async def ask(self, *, question: Mapping[str, Any]) -> None: ...",
        "def play(run: Callable[[], dict[str, Any]]) -> None: ...",
    ],
)
def test_a_dictionary_of_anything_is_found(source: str) -> None:
    assert list(untyped(source))


@pytest.mark.parametrize("source", ["x.status == 'passed'", "x.failure in ('test', 'leak')", "'skip' != one.failure"])
def test_a_text_for_a_status_is_found(source: str) -> None:
    assert list(bare(source))


def _kinds() -> list[type[Wire]]:
    places = (protocol, messages, parameters, collected, control)
    found = {one for place in places for one in vars(place).values() if isinstance(one, type) and issubclass(one, Wire)}
    return sorted(found - {Wire}, key=lambda kind: (kind.__module__, kind.__qualname__))


@pytest.mark.parametrize("kind", _kinds(), ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_every_message_says_how_it_is_written_and_read(kind: type[Wire]) -> None:
    """A field of a type that nobody can read would be met when the message is first sent."""
    names = [field.name for field in wire._schema(kind)]
    assert len(names) == len(set(names))
    assert kind.TAG is None or kind.TAG[0] not in names


def test_every_mnemonic_has_parameters_or_is_a_command() -> None:
    assert {*parameters.KINDS} - {"Session"} | COMMANDS == {*RUNNERS}

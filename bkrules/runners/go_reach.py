"""The program in Go that says what each test of a Go test binary reaches, as a command."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from bkrules.model.action import Action, FileNode, Node
from bkrules.rules.go import REACH, REACH_FILES
from bkrules.rules.wheels import WHEEL

ALONE = {"CGO_ENABLED": "0", "GO111MODULE": "off", "GOFLAGS": ""}
"""The environment in which Go builds files that are in no module."""
_PINS = ("go.mod", "go.work", "modules.txt")
"""The files that name versions, of which a binary has a list."""
_WITHOUT_VALUE = ("-c", "-vet=off")


def prepared(folder: Path, inputs: Mapping[str, Node]) -> list[str]:
    """Put the program's sources into a folder. Return the arguments of Go that build it there."""
    folder.mkdir(parents=True)
    for name in REACH_FILES:
        node = inputs[f"{REACH}/{name}"]
        assert isinstance(node, FileNode)
        shutil.copyfile(node.path, folder / name)
    return ["build", "-o", str(folder / "reach"), *(str(folder / name) for name in REACH_FILES)]


def command(folder: Path, go: str, out: Path, action: Action, inputs: Mapping[str, Node]) -> list[str]:
    """Return the command of the program, which writes to the folder `out`."""
    out.mkdir()
    words = list(action.arguments[1:])
    place = words.index("-o")
    options = [word for word in (*words[:place], *words[place + 2 :]) if word not in _WITHOUT_VALUE]
    return [str(folder / "reach"), str(out), _salt(options, action, inputs), go, *options]


def _salt(options: Sequence[str], action: Action, inputs: Mapping[str, Node]) -> str:
    """Return a digest of what else a binary depends on: the words and the environment of its build, Go, and this program."""
    names = [WHEEL, *(f"{REACH}/{file}" for file in REACH_FILES)]
    names += [name for name in inputs if name.rpartition("/")[2] in _PINS]
    files = {name: str(inputs[name].digest) for name in names}
    document = json.dumps([options, sorted(action.environment), files], sort_keys=True)
    return hashlib.sha256(document.encode()).hexdigest()

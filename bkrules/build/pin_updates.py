"""Newer releases: the versions in build files move, before their pins do."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bkrules.build.pinned_go import PinnedGo
from bkrules.build.pins import Pins, versions
from bkrules.cache import atomic
from bkrules.errors import LoadError, MachineLacks
from bkrules.loading.workspace import Workspace
from bkrules.model.label import Label
from bkrules.model.rule import Target
from bkrules.model.semver import Version, version_of
from bkrules.rules.go import sum_of
from bkrules.system.files import read_text


@dataclass(frozen=True)
class Move:
    """A target, its version, and the newer one to which it moves."""

    target: Target
    old: str
    new: str

    @property
    def names(self) -> tuple[str, str]:
        """The name of the target before and after; a release of several has its version there."""
        name = self.target.label.name
        return name, f"{name.removesuffix(self.old)}{self.new}" if _is_of_several(self.target) else name

    @property
    def label(self) -> Label:
        """The label of the target after the move."""
        return Label(self.target.label.package, self.names[1])

    @property
    def pins(self) -> tuple[Label, Label]:
        """The go.mod before and after; that of a release of several has the version as its folder."""
        mod = self.target.attributes["mod"]
        is_moved = self.names[0] != self.names[1]
        return mod, Label(mod.package, mod.name.replace(f"/{self.old}/", f"/{self.new}/") if is_moved else mod.name)


def newer(workspace: Workspace, chosen: Iterable[Pins], go_of: Callable[[Label], PinnedGo]) -> list[Move]:
    """Return the targets with a newer release. Raises MachineLacks when the module proxy has no answer."""
    known: dict[str, list[str]] = {}
    moves = []
    for pins in chosen:
        for target in pins.targets:
            module = target.attributes["module"]
            found = known[module] = known.get(module) or versions(go_of(pins.toolchain), module)
            if not found:
                what = f"{target.label}: the module proxy names no release of {module}"
                raise MachineLacks("no-network", what, hint="the variable GOPROXY names another proxy")
            move = Move(target, target.attributes["version"], newest(target, found))
            if move.new != move.old and workspace.target(move.label) in (None, target):
                moves.append(move)
    return moves


def newest(target: Target, known: Iterable[str]) -> str:
    """Return the version to which a target moves, or its own.

    A release moves to a release. One of several stays in its series, since the others are there too.
    """
    own = target.attributes["version"]
    now = version_of(own)
    if now is None:
        return str(own)
    found = [version for version in map(version_of, known) if version is not None and _may_follow(target, now, version)]
    return max([now, *found]).text


def _may_follow(target: Target, now: Version, other: Version) -> bool:
    return (other.is_release or not now.is_release) and (not _is_of_several(target) or other.series == now.series)


def _is_of_several(target: Target) -> bool:
    return str(target.label.name).endswith(f"_{target.attributes['version']}")


def write(workspace: Workspace, moves: Sequence[Move]) -> None:
    """Write the new versions to the build files, and the new names wherever they stand. Pins in folders of versions move there.

    Raises LoadError, and writes nothing, when a version is not written out in the call of its target.
    """
    texts = {path: read_text(f"{workspace.root}/{path}") for path in workspace.reads}
    before = dict(texts)
    for move in moves:
        where = move.target.location
        texts[where.file] = _in_call(texts[where.file], move)
        for path, text in texts.items() if move.names[0] != move.names[1] else ():
            texts[path] = re.sub(rf"(?<![\w.]){re.escape(move.names[0])}(?![\w.+-])", move.names[1], text)
    for path, text in texts.items():
        if text != before[path]:
            file = f"{workspace.root}/{path}"
            atomic.write(file, text.encode(), os.stat(file).st_mode & 0o777)
    for old, new in {move.pins for move in moves}:
        for one, other in ((old, new), (sum_of(old), sum_of(new))):
            if old != new and os.path.exists(f"{workspace.root}/{one.path}"):
                os.renames(f"{workspace.root}/{one.path}", f"{workspace.root}/{other.path}")


def _in_call(text: str, move: Move) -> str:
    """Return the text of a build file with the version moved in the call of a target; also without its `v`, as in linker flags."""
    where = move.target.location
    lines = text.splitlines(keepends=True)
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call) and node.lineno == where.line]
    end = max((node.end_lineno or node.lineno for node in calls), default=where.line)
    call = "".join(lines[where.line - 1 : end])
    number = re.escape(move.old.removeprefix("v"))
    edited = re.sub(rf"(?<![\w.])(v?){number}(?![\w.+-])", rf"\g<1>{move.new.removeprefix('v')}", call)
    if move.new not in edited:
        what = f"{move.target.label}: {move.old} is not written out in its call, so bk cannot move it to {move.new}"
        raise LoadError("computed-version", what, where=where.of("version"), hint="edit it, and run `bk pin`")
    return "".join([*lines[: where.line - 1], edited, *lines[end:]])

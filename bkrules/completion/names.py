"""Candidates for labels, target patterns, cells and filters."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from bkrules.completion.kept import OUTPUT, Kept, KeptTarget

_WORKER = "worker"
_KEY = "key.json"
_SHARED = "key.leaves"
"""The folder of a matrix that is no test: with the leaves that keys share."""


@dataclass(frozen=True)
class Matrix:
    """A target with cells: its package and what is known of it."""

    package: str
    target: KeptTarget


class Names:
    """The names of a workspace. `here` is the package of the current folder; `tests` are the rules whose targets have cells."""

    def __init__(self, kept: Kept, here: str, tests: Collection[str]) -> None:
        self._kept, self._here, self._tests = kept, here, tests

    def labels(self, text: str, rules: Collection[str] = ()) -> Iterator[str]:
        """Yield labels that begin with a text, folder by folder; of these rules, when there are some."""
        start, top, rest = self._divided(text)
        if ":" in rest:
            folder = rest.partition(":")[0]
            for target in self._kept.targets("/".join(filter(None, [top, folder]))):
                if not rules or target.rule in rules:
                    yield f"{start}{folder}:{target.name}"
            return
        parent = rest.rpartition("/")[0]
        if not rest and self._kept.is_package(top):
            yield f"{start}:"
        for name in self._folders("/".join(filter(None, [top, parent]))):
            folder = "/".join(filter(None, [parent, name]))
            package = "/".join(filter(None, [top, folder]))
            if self._kept.is_package(package):
                yield f"{start}{folder}:"
            if self._has_packages(package):
                yield f"{start}{folder}/"

    def patterns(self, text: str, rules: Collection[str] = ()) -> Iterator[str]:
        """Yield target patterns that begin with a text."""
        minus = "-" if text.startswith("-") else ""
        text = text.removeprefix("-")
        for label in self.labels(text, rules):
            yield minus + label
        start, _, rest = self._divided(text)
        if ":" in rest:
            yield f"{minus}{start}{rest.partition(':')[0]}:all"
        else:
            parent = rest.rpartition("/")[0]
            yield f"{minus}{start}{parent}{'/' if parent else ''}..."

    def workers(self) -> Iterator[str]:
        """Yield the workers of the workspace, each by its name."""
        for package in self._kept.packages():
            for target in self._kept.targets(package):
                if target.rule == "worker":
                    yield target.name

    def cells(self, text: str) -> Iterator[str]:
        """Yield cells that begin with a text, part by part: in brackets after the label of a matrix, or alone."""
        if text.startswith(("/", ":")):
            pattern, bracket, name = text.partition("[")
            if not bracket:
                found = [label for label in self.labels(text, self._tests) if label.startswith(text)]
                if len(found) != 1 or found[0].endswith((":", "/")):
                    yield from (label if label.endswith((":", "/")) else f"{label}[" for label in found)
                    return
                pattern = found[0]  # the only one: its cells follow at once
            yield from (f"{pattern}[{cell}{'' if cell.endswith('/') else ']'}" for cell in self._of(pattern, name))
            return
        for matrix in self._matrices(self._kept.packages()):
            yield from self._continued(matrix, text)

    def _of(self, pattern: str, text: str) -> Iterator[str]:
        """Yield the cells of the matrix with a label."""
        _, top, rest = self._divided(pattern)
        folder, _, name = rest.partition(":")
        for matrix in self._matrices(["/".join(filter(None, [top, folder]))]):
            if matrix.target.name == name:
                yield from self._continued(matrix, text)

    def filters(self, text: str) -> Iterator[str]:
        """Yield filters that begin with a text: parts of the names of cells, and cells."""
        minus = "-" if text.startswith("-") else ""
        for cell in self.cells(text.removeprefix("-")):
            yield minus + cell
        if "/" not in text:
            for matrix in self._matrices(self._kept.packages()):
                for axis, values in [(_WORKER, self._workers_of(matrix)), *_axes(matrix)]:
                    yield from (f"{minus}{axis}={value}" for value in values)

    def _divided(self, text: str) -> tuple[str, str, str]:
        """Return the beginning of a label that stays as it is, the package from which the rest counts, and the rest."""
        if text.startswith("//"):
            return "//", "", text[2:]
        if text in ("", "/"):
            return "//", "", ""
        return ("./", self._here, text[2:]) if text.startswith("./") else ("", self._here, text)

    def _folders(self, folder: str) -> Iterator[str]:
        try:
            with os.scandir(f"{self._kept.root}/{folder}") as entries:
                for entry in entries:
                    if entry.name != OUTPUT and not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                        yield entry.name
        except OSError:
            return

    def _has_packages(self, folder: str) -> bool:
        """Return whether there are packages below a folder, known ones or in its folders."""
        if any(name.startswith(f"{folder}/") for name in self._kept.packages()):
            return True
        return any(self._kept.is_package(f"{folder}/{name}") for name in self._folders(folder))

    def _matrices(self, packages: Sequence[str]) -> Iterator[Matrix]:
        for package in packages:
            for target in self._kept.targets(package):
                if target.rule in self._tests:
                    yield Matrix(package, target)

    def _continued(self, matrix: Matrix, text: str) -> Iterator[str]:
        """Yield the names of cells up to the part that is typed; a slash at the end: more parts follow."""
        done, slash, _ = text.rpartition("/")
        seen = list(self._in_outputs(matrix, done)) or list(self._declared(matrix, done))
        if not done:
            seen += [f"{test}/" for test in self._tests_of(matrix)]
        yield from (f"{done}{slash}{part}" for part in dict.fromkeys(seen))

    def _in_outputs(self, matrix: Matrix, done: str) -> Iterator[str]:
        """Yield the next part of cells that have run, by the folders of their logs."""
        top = f"{self._kept.root}/{OUTPUT}/{matrix.package}/{matrix.target.name}"
        below = done.replace("::", ".")
        folder = f"{top}/{below}" if below else top
        tests = {name.replace("::", "."): name for name in self._tests_of(matrix)} if not done else {}
        for name in self._folders(folder[len(self._kept.root) + 1 :]):
            if (
                "#" in name
                or name == _SHARED
                or name.startswith("run_")
                or (f"/{_WORKER}=" in f"/{done}" and "=" not in name)
            ):
                continue
            is_cell = os.path.isfile(f"{folder}/{name}/{_KEY}")
            yield tests.get(name, name) + ("" if is_cell else "/")

    def _declared(self, matrix: Matrix, done: str) -> Iterator[str]:
        """Yield the next part of cells that never ran: their workers, and then each axis in the order of the name."""
        _, worker, rest = f"/{done}".partition(f"/{_WORKER}=")
        axes = [(_WORKER, self._workers_of(matrix)), *_axes(matrix)]
        place = 1 + rest.count("/") if worker else 0
        if done and place < len(axes):
            axis, values = axes[place]
            yield from (f"{axis}={value}{'/' if place + 1 < len(axes) else ''}" for value in values)

    def _tests_of(self, matrix: Matrix) -> list[str]:
        tests: list[str] = []
        for label in matrix.target.attributes.get("tests") or ():
            package, name = label
            tests += self._kept.tests("/".join(filter(None, [package, name])))
        return tests

    def _workers_of(self, matrix: Matrix) -> list[str]:
        labels = matrix.target.attributes.get("workers") or ()
        known = {
            (package, target.name): _id(target) for package, _ in set(labels) for target in self._kept.targets(package)
        }
        return [name for label in labels if (name := known.get(label, ""))]


def _id(worker: KeptTarget) -> str:
    """Return a worker's name in cells; empty when only its plugin knows how its settings change that."""
    if worker.attributes.get("id") or not worker.settings:
        return worker.attributes.get("id") or worker.attributes.get("plugin") or ""
    snapshotter = worker.settings.get("snapshotter")
    return f"{worker.attributes['plugin']}+{snapshotter}" if len(worker.settings) == 1 and snapshotter else ""


def _axes(matrix: Matrix) -> list[tuple[str, list[str]]]:
    axes = matrix.target.attributes.get("axes") or {}
    return sorted((axis, list(values)) for axis, values in axes.items())

"""The packages that need not be looked at again, when something has changed elsewhere.

`unchanged.py` knows what `stat` said of every file when this command line was last answered, and which of them differ now. A
package is settled when all its actions were cached, and each file of the workspace that was looked at for it was older than the
build. As long as all that was looked at and its outputs in `bk-out` are as they were, and what it uses is settled too, its targets
are neither loaded nor analysed nor looked up: their results are those of before. What a changed package uses is analysed with it.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from bkrules import digest, observed, unchanged
from bkrules.label import Label
from bkrules.unchanged import Stamp

UNSETTLED = -1


class Package(NamedTuple):
    """What is kept of a package: the packages that it uses, how many actions it has, the seconds that they took when they ran, a
    digest of its targets and actions, and the numbers of its files. `actions` is `UNSETTLED` when it must be looked at in any case.
    """

    uses: tuple[str, ...]
    actions: int
    seconds: float
    members: str
    files: bytes


class Settled:
    """What was kept of the last build, and what of it still holds."""

    def __init__(
        self, folders: list[unchanged.Folder], changed: set[int], for_all: bytes, packages: Mapping[str, unchanged.Kept]
    ) -> None:
        self._folders = folders
        self._changed = changed
        self.for_all = _numbers(for_all)
        self.packages = {name: Package(*fields) for name, fields in packages.items()}
        self.same = self._same()
        self.skipped = frozenset(self.same - self._below(self.packages.keys() - self.same))

    def _same(self) -> set[str]:
        """The packages that are as they were, with all that they use."""
        users: dict[str, list[str]] = {}
        others = []
        for name, kept in self.packages.items():
            for use in kept.uses:
                users.setdefault(use, []).append(name)
            if kept.actions == UNSETTLED or not self._changed.isdisjoint(_numbers(kept.files)):
                others.append(name)
        others += users.keys() - self.packages.keys()
        seen = set(others)
        while others:
            for name in users.get(others.pop(), ()):
                if name not in seen:
                    seen.add(name)
                    others.append(name)
        return self.packages.keys() - seen

    def _below(self, names: Iterable[str]) -> set[str]:
        """All packages that these use, whoever uses them."""
        found: set[str] = set()
        todo = list(names)
        while todo:
            kept = self.packages.get(todo.pop())
            for use in kept.uses if kept else ():
                if use not in found:
                    found.add(use)
                    todo.append(use)
        return found

    def without(self, names: Collection[str]) -> None:
        """Look at these packages after all, and at what they use."""
        self.skipped -= {*names, *self._below(names)}

    def is_short_of(self, members: Mapping[str, str]) -> bool:
        """Whether a package that is as it was has other targets or actions in this build than it had in the last one."""
        return any(members.get(name, "") != self.packages[name].members for name in self.same - self.skipped)

    def left_out(self) -> tuple[int, float]:
        """How many actions the skipped packages have, and the seconds that they took when they ran."""
        kept = [self.packages[name] for name in self.skipped]
        return sum(one.actions for one in kept), sum(one.seconds for one in kept)

    def carried(self) -> Iterator[tuple[str, Stamp | None]]:
        """The files of packages that are as they were, and those that all rest on, with the stamps they had before this build."""
        groups = (self.for_all, *(_numbers(self.packages[name].files) for name in self.same))
        for number in {number for numbers in groups for number in numbers}:
            yield self._files[number]

    def paths(self, numbers: Iterable[int]) -> list[str]:
        """The paths of files by their numbers."""
        return [self._files[number][0] for number in numbers]

    @cached_property
    def _files(self) -> list[tuple[str, Stamp | None]]:
        return [file for folder in self._folders for file in _unpacked(folder)]

    @cached_property
    def vouched(self) -> dict[str, Stamp]:
        """The stamps of folders of the cache that vouched for what is in them."""
        return {folder: own for folder, own, _, _ in self._folders if own is not None}


@dataclass
class Seen:
    """What a build has seen of a package: see `Package`. `outputs` are the files in `bk-out` that show what it made."""

    members: str = ""
    count: int = 0
    seconds: float = 0.0
    settled: bool = True
    outputs: list[str] = field(default_factory=list)


def before() -> Settled | None:
    """What was kept of the last build with this command line, unless something has changed on which all of it depends."""
    if unchanged.last is None:
        return None
    folders, changed, for_all, packages = unchanged.last
    if not changed.isdisjoint(_numbers(for_all)):
        return None
    return Settled(folders, changed, for_all, packages)


def members(targets: Iterable[Label], actions: Iterable[tuple[str, str]]) -> dict[str, str]:
    """A digest of the targets and the actions of each package; actions are pairs of package and id."""
    found: dict[str, list[str]] = {}
    for label in targets:
        found.setdefault(label.package, []).append(label.name)
    for package, name in actions:
        found.setdefault(package, []).append(name)
    return {package: digest.of_bytes("\n".join(names).encode()).hash for package, names in found.items()}


def keep(
    argv: list[str], root: str, cache: str, text: str | None, seen: Mapping[str, Seen], old: Settled | None
) -> None:
    """Keep what the next build with this command line need not look at again.

    `text` is the answer when every result was cached, `cache` the folder of the disk cache, and `old` what this build itself
    has not looked at again.
    """
    same = old.same if old else set()
    book = _Book(root, cache, old)
    for_all = [*(old.paths(old.for_all) if old else ()), *observed.noted()]
    noted = observed.noted_of()
    fresh = {name: [*noted.get(name, ()), *seen.get(name, Seen()).outputs] for name in (noted.keys() | seen) - same}
    if text is None and not any(seen.get(name, Seen()).settled for name in fresh if name != observed.WALK):
        return  # what was kept before says as much
    book.stamp([for_all, *fresh.values()])
    if book.is_torn or book.is_young(for_all):
        return
    young = {name for name, paths in fresh.items() if book.is_young(paths)}
    text = None if young else text
    packages = {}
    for name, paths in fresh.items():
        if name != observed.WALK:
            one = seen.get(name, Seen())
            settled = one.settled and name not in young
            count, files = (one.count, book.numbers(paths)) if settled else (UNSETTLED, b"")
            packages[name] = Package(tuple(sorted(observed.used_by(name))), count, one.seconds, one.members, files)
    if text is None and all(one.actions == UNSETTLED for one in packages.values()):
        return
    if old is not None:
        for name in same:
            kept = old.packages[name]
            packages[name] = kept._replace(files=book.numbers(old.paths(_numbers(kept.files))))
    plain = {name: (*one,) for name, one in packages.items()}
    unchanged.keep(argv, root, book.folders(), text, book.numbers(for_all), plain)


class _Book:
    """Files with what `stat` says of them, numbered."""

    def __init__(self, root: str, cache: str, old: Settled | None) -> None:
        self._root = f"{root}/"
        self._outputs = f"{root}/bk-out/"
        self._stores = (f"{cache}/ac/", f"{cache}/cas/")
        self._old = dict(old.carried()) if old else {}
        self._vouched = old.vouched if old else {}
        self._stamps: dict[str, Stamp | None] = {}
        self._kept: list[unchanged.Folder] = []
        self.is_torn = False

    def stamp(self, groups: Iterable[Iterable[str]]) -> None:
        """Look at all these files, and at those that are carried over as far as their folder does not vouch for them.

        When one of the latter is other than it was, the book `is_torn`.
        """
        folders: dict[str, dict[str, None]] = {}
        for paths in (*groups, self._old):
            for path in paths:
                folder = path[: path.rindex("/") + 1] if path.startswith(self._stores) else ""
                folders.setdefault(folder, {})[path] = None
        now = time.time_ns()
        for folder, paths in folders.items():
            own = unchanged.stamp(folder) if folder else None  # looked at before what is in it
            trusted = not folder or (own is not None and own == self._vouched.get(folder))
            for path in paths:
                if trusted and path in self._old:
                    self._stamps[path] = self._old[path]
                else:
                    self._stamps[path] = unchanged.stamp(path)
                    self.is_torn |= path in self._old and self._old[path] != self._stamps[path]
            packed = array("q", [number for path in paths for number in self._stamps[path] or unchanged.MISSING])
            names = unchanged.BETWEEN.join(path[len(folder) :] for path in paths)
            vouched = own if own and now - own[0] > unchanged.RACY_NS else None
            self._kept.append((folder, vouched, names, packed.tobytes()))
        self._number = {path: number for number, path in enumerate(self._stamps)}

    def is_young(self, paths: Iterable[str]) -> bool:
        """Whether one of these is a file of the workspace that may have changed since this process began."""
        youngest = unchanged.BEGAN - unchanged.RACY_NS
        stamps = self._stamps
        return any(
            (stamp := stamps[path]) is not None
            and stamp[0] > youngest
            and path.startswith(self._root)
            and not path.startswith(self._outputs)
            for path in paths
        )

    def numbers(self, paths: Iterable[str]) -> bytes:
        """The numbers of files."""
        return array("I", map(self._number.__getitem__, paths)).tobytes()

    def folders(self) -> list[unchanged.Folder]:
        """All of it, as it is kept."""
        return self._kept


def _numbers(packed: bytes) -> array[int]:
    return array("I", packed)


def _unpacked(folder: unchanged.Folder) -> Iterator[tuple[str, Stamp | None]]:
    name, _, names, stamps = folder
    numbers = iter(memoryview(stamps).cast("q"))
    for one, *found in zip(names.split(unchanged.BETWEEN), numbers, numbers, numbers, strict=True):
        stamp = (found[0], found[1], found[2])
        yield name + one, None if stamp == unchanged.MISSING else stamp

"""The packages that are up to date, when something else has changed.

`null_build.py` knows the stamp of every file when this command line was last answered, and which stamps differ now. A
package was clean when all its actions were cached, and each of its dependencies was older than the build. It is up to
date as long as its dependencies and its outputs in `bk-out` are unchanged, and all packages that it uses are up to date
too. bk then neither loads nor analyses its targets, nor looks up their results: they are those of the last build. bk
analyses the packages that a changed package uses together with it.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from bkrules.incremental import null_build, stamps
from bkrules.incremental.dependencies import WALK, Dependencies
from bkrules.incremental.stamps import FIELDS, MISSING, Stamp
from bkrules.model import digest
from bkrules.model.label import Label

DIRTY = -1


class Package(NamedTuple):
    """The kept state of a package.

    `uses` are the packages that it depends on, `actions` the number of its actions, or `DIRTY` when bk must look at it
    in any case. `seconds` is how long its actions took when they ran, `members` a digest of its targets and actions,
    and `files` the numbers of its files.
    """

    uses: tuple[str, ...]
    actions: int
    seconds: float
    members: str
    files: bytes


class UpToDate:
    """The kept state of the last build, and which of its packages are up to date."""

    def __init__(
        self,
        folders: list[null_build.Folder],
        changed: set[int],
        for_all: bytes,
        packages: Mapping[str, null_build.Kept],
    ) -> None:
        self._folders = folders
        self._renewed: dict[Stamp | None, Stamp | None] = {}
        self._changed = changed - self._relinked(changed)
        self.for_all = _numbers(for_all)
        self.packages = {name: _package(fields) for name, fields in packages.items()}
        self.same = self._same()
        self.skipped = frozenset(self.same - self._below(self.packages.keys() - self.same))

    def _same(self) -> set[str]:
        """Return the packages that are unchanged, with all that they use."""
        users: dict[str, list[str]] = {}
        others = []
        for name, kept in self.packages.items():
            for use in kept.uses:
                users.setdefault(use, []).append(name)
            if kept.actions == DIRTY or not self._changed.isdisjoint(_numbers(kept.files)):
                others.append(name)
        others += users.keys() - self.packages.keys()
        states = set(others)
        while others:
            for name in users.get(others.pop(), ()):
                if name not in states:
                    states.add(name)
                    others.append(name)
        return self.packages.keys() - states

    def _below(self, names: Iterable[str]) -> set[str]:
        """Return all packages that these use, directly or not."""
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
        """Look at these packages after all, and at those that they use."""
        self.skipped -= {*names, *self._below(names)}

    def is_short_of(self, members: Mapping[str, str]) -> bool:
        """Return whether an unchanged package has other targets or actions in this build than in the last one."""
        return any(members.get(name, "") != self.packages[name].members for name in self.same - self.skipped)

    def left_out(self) -> tuple[int, float]:
        """Return the number of actions of the skipped packages, and the seconds that they took when they ran."""
        kept = [self.packages[name] for name in self.skipped]
        return sum(state.actions for state in kept), sum(state.seconds for state in kept)

    def carried(self) -> Iterator[tuple[str, Stamp | None]]:
        """Yield the files of unchanged packages, and the dependencies of the whole answer, with their stamps before
        this build.
        """
        groups = (self.for_all, *(_numbers(self.packages[name].files) for name in self.same))
        for number in {number for numbers in groups for number in numbers}:
            path, stamp = self._files[number]
            yield path, self._renewed.get(stamp, stamp)

    def paths(self, numbers: Iterable[int]) -> list[str]:
        """Return the paths of files by their numbers."""
        return [self._files[number][0] for number in numbers]

    def _relinked(self, changed: set[int]) -> set[int]:
        """Return the changed files that are blobs with unchanged bytes, which have gained or lost hard links.

        Only reading a blob again tells that from a write.
        """
        touched = {number: now for number in changed if (now := self._touched(number)) is not None}
        if not touched:
            return set()
        names = {stamp: path.rpartition("/")[2] for path, stamp in self._files if stamp is not None and "/cas/" in path}
        for number, now in touched.items():
            before = self._files[number][1]
            if before in names and before not in self._renewed and _hash(self._files[number][0]) == names[before]:
                self._renewed[before] = before if stamps.is_young(now) else now
        return {number for number in touched if self._files[number][1] in self._renewed}

    def _touched(self, number: int) -> Stamp | None:
        """Return the current stamp of a file when only the ctime has changed."""
        path, before = self._files[number]
        now = stamps.of(path) if before is not None else None
        return now if now is not None and before is not None and now[1:] == before[1:] else None

    def check(self) -> None:
        """Raise ValueError for a number that no file has, which only a damaged state has."""
        count = len(self._files)
        numbers = (self.for_all, *(_numbers(kept.files) for kept in self.packages.values()))
        if any(max(each, default=-1) >= count for each in numbers):
            raise ValueError("a file has no name")

    def holds(self, numbers: Iterable[int]) -> bool:
        """Return whether none of these files has changed."""
        return self._changed.isdisjoint(numbers)

    @cached_property
    def _files(self) -> list[tuple[str, Stamp | None]]:
        return [file for folder in self._folders for file in _unpacked(folder)]

    @cached_property
    def vouched(self) -> dict[str, Stamp]:
        """The stamps of the cache folders that vouch for their entries."""
        return {folder: own for folder, own, _, _ in self._folders if own is not None}


def _package(fields: null_build.Kept) -> Package:
    """Return the kept state of a package. Raises TypeError or ValueError for a damaged one."""
    kept = Package(*fields)
    kinds: tuple[type | tuple[type, ...], ...] = (tuple, int, (int, float), str, bytes)
    are_right = all(isinstance(value, kind) for value, kind in zip(kept, kinds, strict=True))
    if not are_right or not all(isinstance(use, str) for use in kept.uses):
        raise ValueError("a field has another type")
    return kept


@dataclass
class PackageState:
    """The state of a package in this build; see `Package`. `outputs` are the files in `bk-out` with its results."""

    members: str = ""
    count: int = 0
    seconds: float = 0.0
    is_clean: bool = True
    outputs: list[str] = field(default_factory=list)


def before() -> UpToDate | None:
    """Return the kept state of the last build with this command line, unless a dependency of the whole answer has changed."""
    if null_build.last is None:
        return None
    try:
        folders, changed, for_all, packages = null_build.last
        known = UpToDate(folders, changed, for_all, packages)
        known.check()
        return known if known.holds(known.for_all) else None
    except (TypeError, ValueError, LookupError, AttributeError):  # the file is damaged
        return None


def members(targets: Iterable[Label], actions: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return a digest of the targets and actions of each package; `actions` are pairs of package and id."""
    found: dict[str, list[str]] = {}
    for label in targets:
        found.setdefault(label.package, []).append(label.name)
    for package, name in actions:
        found.setdefault(package, []).append(name)
    return {package: digest.of_bytes("\n".join(names).encode()).hash for package, names in found.items()}


def keep(
    argv: list[str],
    root: str,
    cache: str,
    text: str | None,
    states: Mapping[str, PackageState],
    old: UpToDate | None,
    dependencies: Dependencies,
) -> None:
    """Keep the state of this build for the next build with this command line.

    `text` is the answer when every result was cached, `cache` the folder of the disk cache, and `old` the kept state
    that this build has reused.
    """
    same = old.same if old else set()
    book = _Book(root, cache, old, dependencies)
    for_all = [*(old.paths(old.for_all) if old else ()), *dependencies.for_all]
    noted = dependencies.packages
    fresh = {
        name: [*noted.get(name, ()), *states.get(name, PackageState()).outputs]
        for name in (noted.keys() | states) - same
    }
    if text is None and not any(states.get(name, PackageState()).is_clean for name in fresh if name != WALK):
        return  # the state kept before says as much
    book.enter([for_all, *fresh.values()])
    if book.is_young(for_all):
        return
    young = {name for name, paths in fresh.items() if book.is_young(paths)}
    text = None if young else text
    packages = {}
    for name, paths in fresh.items():
        if name != WALK:
            state = states.get(name, PackageState())
            is_clean = state.is_clean and name not in young
            count, files = (state.count, book.numbers(paths)) if is_clean else (DIRTY, b"")
            packages[name] = Package(
                tuple(sorted(dependencies.used_by(name))), count, state.seconds, state.members, files
            )
    if text is None and all(state.actions == DIRTY for state in packages.values()):
        return
    if old is not None:
        for name in same:
            kept = old.packages[name]
            packages[name] = kept._replace(files=book.numbers(old.paths(_numbers(kept.files))))
    plain = {name: (*state,) for name, state in packages.items()}
    null_build.keep(argv, root, book.folders(), text, book.numbers(for_all), plain)


class _Book:
    """Files with their stamps, numbered: those that this build has looked at, and those carried over from the last one."""

    def __init__(self, root: str, cache: str, old: UpToDate | None, dependencies: Dependencies) -> None:
        self._dependencies = dependencies
        self._outputs = f"{root}/bk-out/"
        self._results, self._blobs = f"{cache}/ac/", f"{cache}/cas/"
        self._old = dict(old.carried()) if old else {}
        self._vouched = old.vouched if old else {}
        self._stamps: dict[str, Stamp | None] = {}
        self._number: dict[str, int] = {}
        self._kept: list[null_build.Folder] = []

    def enter(self, groups: Iterable[Iterable[str]]) -> None:
        """Enter all these files, and those that are carried over."""
        self._stamps = dict(self._old)
        for paths in groups:
            for path in paths:
                if path not in self._stamps:
                    self._stamps[path] = self._dependencies.first(path)
        shown = {stamp for path, stamp in self._stamps.items() if path.startswith(self._outputs)}
        folders: dict[str, list[str]] = {"": []}
        for path, stamp in self._stamps.items():
            # A blob may be written to in place, which its folder does not show. The check of a hard link to it does.
            may_vouch = path.startswith(self._results) or (path.startswith(self._blobs) and stamp in shown)
            folders.setdefault(path[: path.rindex("/") + 1] if may_vouch else "", []).append(path)
        for folder, paths in folders.items():
            packed = array("q", [number for path in paths for number in self._stamps[path] or MISSING])
            names = null_build.BETWEEN.join(path[len(folder) :] for path in paths)
            self._kept.append((folder, self._own(folder, paths) if folder else None, names, packed.tobytes()))
            for path in paths:
                self._number[path] = len(self._number)

    def _own(self, folder: str, paths: Iterable[str]) -> Stamp | None:
        """Return the stamp of a cache folder from before the first look at these entries, when no entry has come or
        gone since then.
        """
        own = self._dependencies.first_of_store(folder)
        if stamps.is_young(own):
            return None
        if own != self._vouched.get(folder):
            for path in paths:
                if path in self._old and stamps.of(path) != self._old[path]:
                    return None
        return own

    def is_young(self, paths: Iterable[str]) -> bool:
        """Return whether one of these files may have changed since this process began. Results in the cache are never
        written to.
        """
        return any(stamps.is_young(self._stamps[path]) and not path.startswith(self._results) for path in paths)

    def numbers(self, paths: Iterable[str]) -> bytes:
        """Return the numbers of files."""
        return array("I", map(self._number.__getitem__, paths)).tobytes()

    def folders(self) -> list[null_build.Folder]:
        """Return all folders, in their kept form."""
        return self._kept


def _hash(path: str) -> str:
    try:
        return digest.of_file(path).hash
    except OSError:
        return ""


def _numbers(packed: bytes) -> array[int]:
    return array("I", packed)


def _unpacked(folder: null_build.Folder) -> Iterator[tuple[str, Stamp | None]]:
    folder_name, _, names, packed = folder
    each = zip(*[iter(memoryview(packed).cast("q"))] * FIELDS, strict=True)
    for name, stamp in zip(names.split(null_build.BETWEEN), each, strict=True):
        yield folder_name + name, None if stamp == MISSING else stamp

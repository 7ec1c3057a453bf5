"""The workspace: the folder with WORKSPACE.py, and the packages below it."""

from __future__ import annotations

import difflib
import functools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import replace
from typing import TYPE_CHECKING

from bkrules.errors import LoadError, UsageError, did_you_mean
from bkrules.incremental.dependencies import WALK, current
from bkrules.loading.cache import PackageCache
from bkrules.loading.glob import BUILD_FILE, OUTPUT, Glob, listing
from bkrules.loading.meter import raise_recursion_limit
from bkrules.loading.modules import Modules, Named
from bkrules.loading.package import Package
from bkrules.loading.root import MARKER
from bkrules.loading.sources import Record, Sources, build_file
from bkrules.model.digest import Digest
from bkrules.model.label import Label, Pattern, module_of, root_of, shown_package
from bkrules.model.resources import MANUAL
from bkrules.model.rule import Rule, Target

if TYPE_CHECKING:
    from bkrules.loading.loader import Loader

STATE = ".state"
_OF_BAZEL = ("BUILD", "BUILD.bazel")


class Workspace:
    """The packages of the workspace at `root`, each loaded once, at its first use.

    With `state`, a folder, packages are kept there from one build to the next; `save()` writes them. There are no packages
    in `cache`, the disk cache, which may lie in the workspace.
    """

    def __init__(
        self,
        root: str,
        rules: Mapping[str, Rule],
        state: str = "",
        rules_of: Callable[[str], Mapping[str, Rule] | None] = lambda _module: None,
        workers: Callable[[], Iterable[str]] = tuple,
        cache: str = "",
    ) -> None:
        self.root = root
        self._disk_cache = os.path.relpath(os.path.realpath(cache), os.path.realpath(root)) if cache else ""
        raise_recursion_limit()  # here too: what analysis can parse must not depend on what loading took from its cache
        self._read = Record()
        self._modules = Modules(root, self._named_by, self._name)
        self._sources = Sources(root, self._read.add, self._modules)
        self._rules = rules
        self._rules_of = rules_of
        self._workers = workers
        self._cache = PackageCache(self._modules, state, rules) if state else None
        self._packages: dict[str, Package | None] = {}
        self._open: dict[str, Package] = {}
        self._listed: dict[str, tuple[str, ...]] = {}

    @property
    def reads(self) -> Mapping[str, Digest]:
        """Every file that loading has read so far, by its path in the workspace."""
        return self._read.files

    @property
    def globs(self) -> Mapping[Glob, tuple[str, ...]]:
        """Every glob so far, with the names that it found."""
        return self._read.globs

    @property
    def checks(self) -> Mapping[str, bool]:
        """Every path at which loading looked for a build file so far, and whether there was one."""
        return self._read.exists

    @property
    def listings(self) -> Mapping[str, tuple[str, ...]]:
        """Every folder that was searched for packages so far, and the packages in it."""
        return self._listed

    @functools.cached_property
    def _loader(self) -> Loader:
        from bkrules.loading.loader import Loader

        return Loader(self._rules, self._sources, self._rules_of, self._workers)

    def package(self, name: str) -> Package | None:
        """Return the package in the folder `name`, or None when it has no build file. Raises LoadError."""
        if module_of(name) and module_of(name) == self._name():
            name = name[len(root_of(name)) :].removeprefix("/")
        current().use(name)
        if name not in self._packages:
            if module_of(name) and name != root_of(name):
                self.package(root_of(name))  # a module that is not what it should be has no packages
            with current().of_package(name):
                self._packages[name] = self._load(name)
        return self._packages[name]

    def place(self, path: str) -> str:
        """Return the absolute path of a file by its path in the workspace. Raises LoadError for a module that is not here."""
        return self._modules.place(path)

    def check_overrides(self) -> None:
        """Raise UsageError for a folder on the command line in place of a module that nothing uses."""
        self._modules.check_overrides()

    def _root_of(self, module: str) -> Package | None:
        root = f"@{module}" if module else ""
        return self._open.get(root) or self.package(root)

    def _named_by(self, module: str) -> Mapping[str, Named]:
        """Return the modules that a module names, or the workspace for an empty name."""
        package = self._root_of(module)
        return package.modules if package is not None else {}

    def _name(self) -> str:
        """Return the name of the workspace, under which its own labels are valid too: `@name//pkg:target` in a macro for others."""
        package = self._root_of("")
        return package.workspace if package is not None else ""

    def save(self) -> None:
        """Keep the evaluated packages for the next build."""
        if self._cache is not None:
            self._cache.save()

    def _load(self, name: str) -> Package | None:
        known = self._cache.get(name) if self._cache is not None else None
        if known is not None:
            self._read.add(known.record)
            self._note(known.record)
            return known
        package = Package(name, build_file(name))
        text = self._sources.read(package.file, package.record)
        if text is None:
            self._read.exists[package.file] = False
            if self._cache is not None:
                self._cache.drop(name)
            return None
        is_root = name == root_of(name)
        self._open[name] = package
        try:
            self._loader.package(text, package, top=is_root)
        finally:
            del self._open[name]
        if name and is_root and package.workspace != module_of(name):
            raise self._misnamed(package)
        self._note(package.record)
        if self._cache is not None:
            self._cache.put(package)
        return package

    def _misnamed(self, package: Package) -> LoadError:
        called = f"calls itself {package.workspace!r}" if package.workspace else "does not say its name"
        module = module_of(package.name)
        what = f"the module {module!r} {called}, in {self.place(package.file)}"
        return LoadError(
            "misnamed-module", what, where=f"{package.file}:1", hint=f"it needs workspace(name = {module!r})"
        )

    def _note(self, record: Record) -> None:
        """Note the files that a package was read from, also macro files that an earlier package had loaded."""
        for path in (*record.files, *record.exists):
            current().note(self.place(path))

    def target(self, label: Label) -> Target | None:
        """Return the target of that label, or None. Raises LoadError.

        `//:name` that a WORKSPACE.py does not declare is the target of the first module named there that has it: the
        tools of a module are those of the workspaces that use it.
        """
        package = self.package(label.package)
        found = package.targets.get(label.name) if package else None
        if found is None and package is not None and package.modules:
            return self._of_modules(label, {label.package})
        return found

    def actual(self, label: Label) -> Label:
        """Return the label under which the target of a label is declared; the label itself when there is none. Raises LoadError."""
        target = self.target(label)
        return target.label if target is not None else label

    def _of_modules(self, label: Label, seen: set[str]) -> Target | None:
        """Return the target of a name in the roots of the modules that a root names, and of those that these name."""
        package = self.package(label.package)
        for module in package.modules if package else ():
            root = f"@{module}"
            if root not in seen:
                seen.add(root)
                other = self.package(root)
                found = other.targets.get(label.name) if other else None
                found = found or self._of_modules(Label(root, label.name), seen)
                if found is not None:
                    return found
        return None

    def check(self, label: Label, by: str) -> None:
        """Raise LoadError for a label of a module that the package `by` cannot use."""
        self._modules.check(label.package, by)

    def put(self, target: Target) -> None:
        """Add a target to its package, or replace the target of that label, for this build alone."""
        package = self.package(target.label.package)
        assert package is not None
        package.targets[target.label.name] = target

    def is_file(self, label: Label) -> bool:
        """Return whether the label names a source file of the workspace, or of a module. Raises LoadError."""
        return self._modules.is_file(label.path)

    def unknown(self, label: Label) -> str:
        """Return a hint for a label that names nothing."""
        elsewhere = [] if module_of(label.package) else self._like_in_modules(label.name)
        if elsewhere:
            return f"did you mean {' or '.join(map(repr, elsewhere))}?"
        package = self.package(label.package)
        if package is None:
            has = f"{shown_package(label.package)} has no {BUILD_FILE} and no such file"
            return f"{has}; {self._near(label.package)}{self._of_bazel(label.package)}"
        files, what = self._near_files(label), f"targets of {shown_package(label.package)}"
        if files and not difflib.get_close_matches(label.name, package.targets, n=1):
            return f"did you mean the file {files[0]!r}? {did_you_mean('', package.targets, what)}"
        return did_you_mean(label.name, package.targets, what)

    def _like_in_modules(self, name: str) -> list[str]:
        """Return the labels of that name in the modules of the workspace, where a worker such as `oci+stargz` is `oci_stargz`."""
        top, known = self.package(""), {name, re.sub(r"\W", "_", name)}
        roots = [f"@{module}" for module in (top.modules if top else ())]
        packages = [self.package(package) for root in roots for package in self.packages(root)]
        return [
            str(one.label)
            for package in packages
            if package
            for one in package.targets.values()
            if one.label.name in known
        ]

    def _near(self, package: str) -> str:
        known = [shown_package(name) for name in self.packages(root_of(package))]
        return did_you_mean(shown_package(package), known, "packages")

    def _near_files(self, label: Label) -> list[str]:
        """Return the name of the file that is called nearly as a label, in the same folder, if there is one."""
        folder, _, name = label.name.rpartition("/")
        path = self.place("/".join(filter(None, [label.package, folder])))
        names = (
            [entry.name for entry in listing(current().note(path)) if entry.is_file()] if os.path.isdir(path) else []
        )
        return [f"{folder}/{near}" if folder else near for near in difflib.get_close_matches(name, names, n=1)]

    def _of_bazel(self, package: str) -> str:
        """Return a line about a build file of Bazel in a folder; empty when there is none."""
        found = [
            f"{package}/{name}" for name in _OF_BAZEL if os.path.isfile(current().note(self.place(f"{package}/{name}")))
        ]
        return f"\nbk does not read {found[0]}: its build files are called {BUILD_FILE}" if found else ""

    def packages(self, below: str = "") -> Iterator[str]:
        """Return the names of all packages at or below a folder, sorted. A folder with a WORKSPACE.py is another workspace."""
        names = []
        todo = [below]
        while todo:
            folder = todo.pop()
            is_root = folder == root_of(folder)
            entries = listing(current().note(self.place(folder) if folder else self.root))
            if not is_root and any(entry.name == MARKER for entry in entries):
                continue
            marker = MARKER if is_root else BUILD_FILE
            for entry in entries:
                if entry.name == marker and not entry.is_dir():
                    names.append(folder)
                elif entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".") and entry.name != OUTPUT:
                    name = f"{folder}/{entry.name}" if folder else entry.name
                    if name != self._disk_cache:
                        todo.append(name)
        self._listed[below] = tuple(sorted(names))
        return iter(self._listed[below])

    def match(
        self,
        patterns: list[Pattern],
        *,
        manual: bool = True,
        skip: Set[str] = frozenset(),
        faults: list[LoadError] | None = None,
    ) -> list[Target]:
        """Return the targets that the patterns name, sorted by label; a later pattern wins. Raises UsageError.

        Without `manual`, a target with that tag is included only when a pattern names it alone. Targets of the packages
        `skip` are left out. With `faults`, the error of a package that cannot be loaded is added to them, and the package is
        left out.
        """
        chosen: dict[Label, Target] = {}
        for pattern in map(self._resolved, patterns):
            names = self._named(pattern)
            before = len(faults or ())
            targets = list(self._matches(pattern, [name for name in names if name not in skip], faults))
            for target in targets:
                if pattern.negative:
                    chosen.pop(target.label, None)
                elif manual or pattern.name is not None or MANUAL not in target.attributes["tags"]:
                    chosen[target.label] = target
            if not targets and skip.isdisjoint(names) and len(faults or ()) == before:
                raise self._nothing(pattern)
        return [chosen[label] for label in sorted(chosen)]

    def _resolved(self, pattern: Pattern) -> Pattern:
        """Return a pattern that is a path as one of the package that the path begins with, as Bazel does: the longest one.

        `hello` is `//hello:hello` when that folder is a package. A target of the current package takes precedence.
        """
        if not pattern.is_path or pattern.name is None:
            return pattern
        own = self.package(pattern.package)
        if own is not None and pattern.name in own.targets:
            return pattern
        parts = pattern.name.split("/")
        with current().of_package(WALK):
            for count in range(len(parts), 0, -1):
                folder = "/".join(filter(None, [pattern.package, *parts[:count]]))
                if os.path.isfile(current().note(f"{self.root}/{build_file(folder)}")):
                    return replace(pattern, package=folder, name="/".join(parts[count:]) or parts[-1])
        return pattern

    def every(self) -> list[Target]:
        """Return all targets of the workspace, sorted by label."""
        packages = (self.package(name) for name in self.packages())
        targets = {target.label: target for package in packages if package for target in package.targets.values()}
        return [targets[label] for label in sorted(targets)]

    def of_modules(self) -> list[Target]:
        """Return the targets in the roots of the modules that the workspace names, such as its tools. Raises LoadError."""
        top = self.package("")
        roots = [self.package(f"@{module}") for module in (top.modules if top else ())]
        return [target for root in roots if root for target in root.targets.values()]

    def _named(self, pattern: Pattern) -> list[str]:
        try:
            self._modules.check(pattern.package, "")
        except LoadError as error:
            raise UsageError(error.reason, f"{pattern.text}: {error.message}", hint=error.hint) from error
        with current().of_package(WALK):
            return list(self.packages(pattern.package)) if pattern.recursive else [pattern.package]

    def _matches(
        self, pattern: Pattern, names: Iterable[str], faults: list[LoadError] | None = None
    ) -> Iterator[Target]:
        for name in names:
            try:
                package = self.package(name)
            except LoadError as error:
                if faults is None:
                    raise
                faults.append(error)
                continue
            if package is not None and pattern.name is not None:
                target = self.target(Label(name, pattern.name))
                yield from [target] if target is not None else []
                continue
            for target in package.targets.values() if package else ():
                if pattern.matches(target.label):
                    yield target

    def _nothing(self, pattern: Pattern) -> UsageError:
        if pattern.name is None:
            if pattern.recursive and not pattern.package:
                hint = f"write one: a {BUILD_FILE}, in any folder, with targets"
                return UsageError("no-targets", f"{pattern.text}: the workspace has no target", hint=hint)
            hint = self._near(pattern.package) + self._of_bazel(pattern.package)
            return UsageError("no-targets", f"{pattern.text}: no targets there", hint=hint)
        label = Label(pattern.package, pattern.name)
        all_of_it = f"\nall targets of the package: //{label.package}:all"
        more = all_of_it if pattern.is_path and label.package.split("/")[-1] == label.name else ""
        return UsageError("unknown-target", f"{label}: no such target", hint=self.unknown(label) + more)


def check_labels(workspace: Workspace, target: Target) -> list[Target]:
    """Return the targets that a target depends on, without source files. Raises LoadError for an unknown label."""
    targets = []
    for attribute, label in target.labels():
        try:
            workspace.check(label, target.label.package)
            other = workspace.target(label)
        except LoadError as error:
            if not error.where:
                error.message = f"{target.label}: {error.message}"
                error.where = target.location.of(attribute)
            raise
        if other is not None:
            targets.append(other)
        elif not workspace.is_file(label):
            hint = target.rule.attributes[attribute].missing.format(target=target.label)
            raise LoadError(
                "unknown-label",
                f"{target.label}: {label} is neither a target nor a file",
                where=target.location.of(attribute),
                hint="\n".join(filter(None, [hint, workspace.unknown(label)])),
            )
    return targets

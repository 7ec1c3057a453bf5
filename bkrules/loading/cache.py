"""The cache of loaded packages: targets as plain data, with all that they were read from.

An entry holds as long as each file has the same digest, each glob finds the same names, and each build file exists or
not as before. The stamps of files and folders avoid reading them again. bk treats an entry that it cannot parse as
missing, and evaluates the package again.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import sys
import time
import zlib
from collections.abc import Mapping
from typing import Any

from bkrules.cache import atomic
from bkrules.cache.file_digests import FileDigests
from bkrules.incremental import stamps
from bkrules.incremental.dependencies import current
from bkrules.incremental.stamps import Stamp
from bkrules.loading.glob import Found, Glob
from bkrules.loading.modules import Modules, Named
from bkrules.loading.package import Package
from bkrules.loading.sources import Record, build_file
from bkrules.model.digest import Digest
from bkrules.model.label import Label, module_of
from bkrules.model.rule import Location, Rule, Target
from bkrules.system.files import open_regular

FORMAT = 4
_Entry = tuple[Any, ...]


class PackageCache:
    """The packages kept in `folder`, of a workspace and its `modules`. `save()` writes new ones."""

    def __init__(self, modules: Modules, folder: str, rules: Mapping[str, Rule]) -> None:
        self._modules = modules
        self._store = f"{folder}/packages"
        self._rules = rules
        self._digests = FileDigests(f"{folder}/sources")
        self._made_by = (FORMAT, sys.version, _code())
        self._entries: dict[str, _Entry] = _read(self._store, self._made_by)
        self._changed = False

    def get(self, name: str) -> Package | None:
        """Return the package, when nothing that it was read from has changed."""
        entry = self._entries.get(name)
        if entry is None:
            return None
        try:
            files, globs, exists, schemas, blob = entry
            if any(_schema(self._rules[rule]) != schema for rule, schema in schemas):
                return None
            record = self._unchanged(name, files, globs, exists)
            return None if record is None else _unpack(name, record, marshal.loads(blob), self._rules)
        except (OSError, ValueError, TypeError, EOFError, KeyError, AttributeError):
            return None

    def put(self, package: Package) -> None:
        """Keep a package that has just been evaluated, unless a file changed meanwhile or the package cannot be stored."""
        record = package.record
        if package.uses_plugins or any(
            self._rules.get(target.rule.name) is not target.rule for target in package.targets.values()
        ):
            self.drop(package.name)
            return  # the plugins, and the schemas of their rules, may be others in the next build
        try:
            blob = marshal.dumps(_pack(package))
            if any(self._digest(path) != digest for path, digest in record.files.items()):
                return
            globs = [self._glob(glob, names) for glob, names in record.globs.items()]
        except (OSError, ValueError):
            return
        if None not in globs:
            files = [(path, digest.hash, digest.size) for path, digest in record.files.items()]
            used = {target.rule.name: target.rule for target in package.targets.values()}
            schemas = [(name, _schema(rule)) for name, rule in used.items()]
            self._entries[package.name] = (files, globs, list(record.exists.items()), schemas, blob)
            self._changed = True

    def drop(self, name: str) -> None:
        """Forget a package."""
        self._changed = self._entries.pop(name, None) is not None or self._changed

    def save(self) -> None:
        """Write new entries. On an error nothing is kept, and nothing else changes."""
        with contextlib.suppress(OSError):
            if self._changed:
                kept = {
                    name: entry
                    for name, entry in self._entries.items()
                    if module_of(name) or os.path.isfile(self._modules.place(build_file(name)))
                }
                data = marshal.dumps((self._made_by, kept))
                atomic.write(self._store, zlib.crc32(data).to_bytes(4, "big") + data)
                self._changed = False
            self._digests.save()

    def _digest(self, path: str) -> Digest:
        return self._digests.of(self._modules.place(path))

    def _is_file(self, path: str) -> bool:
        return os.path.isfile(current().note(self._modules.place(path)))

    def _unchanged(self, name: str, files: Any, globs: Any, exists: Any) -> Record | None:
        record = Record()
        for path, known, size in files:
            digest = self._digest(path)
            if digest.hash != known or digest.size != size:
                return None
            record.files[path] = digest
        for path, known in exists:
            if self._is_file(path) != known:
                return None
            record.exists[path] = known
        for index, (include, exclude, names, folders) in enumerate(globs):
            glob = Glob(name, include, exclude)
            if not folders or any(self._stamp(folder) != stamp for folder, stamp in folders):
                again = self._glob(glob, names)
                if again is None:
                    return None
                self._changed = self._changed or again != globs[index]
                globs[index] = again
            record.globs[glob] = names
        return record

    def _glob(self, glob: Glob, names: tuple[str, ...]) -> _Entry | None:
        """Return the entry of a glob that found `names`, or None when it finds others now."""
        now = time.time_ns()
        files = self._modules.find(glob)
        if files.names != names:
            return None
        return (glob.include, glob.exclude, names, self._stamps(files, now))

    def _stamps(self, files: Found, now: int) -> list[tuple[str, Stamp | None]]:
        """Return the stamps of the folders, or nothing when they do not show each change, as with a young folder or a link."""
        pairs = [
            (folder, current().first(self._modules.place(folder))) for folder in files.folders
        ]  # from before the search
        if files.links or any(stamp is None or stamps.is_racy(stamp, now) for _, stamp in pairs):
            return []
        return pairs

    def _stamp(self, folder: str) -> Stamp | None:
        return current().look(self._modules.place(folder))


def _read(store: str, made_by: object) -> dict[str, _Entry]:
    try:
        with open_regular(store) as file:
            data = file.read()
        if zlib.crc32(memoryview(data)[4:]).to_bytes(4, "big") != data[:4]:
            return {}
        made, entries = marshal.loads(memoryview(data)[4:])
    except (OSError, ValueError, TypeError, EOFError):
        return {}
    return entries if made == made_by and isinstance(entries, dict) else {}


def _code() -> tuple[tuple[str, Stamp | None], ...]:
    """Return the code that makes targets, by its stamps, and note it: with a kept package, much of it is not imported."""
    here = os.path.dirname(__file__)
    own = os.path.dirname(here)
    names = [
        entry.path for folder in (here, f"{own}/rules") for entry in os.scandir(folder) if entry.name.endswith(".py")
    ]
    names += [f"{own}/model/rule.py", f"{own}/model/label.py"]
    return tuple((name, stamps.of(current().note_for_all(name))) for name in sorted(names))


def _schema(rule: Rule) -> str:
    attributes = rule.attributes.items()
    fields = [(name, attribute.kind, attribute.required, attribute.default) for name, attribute in attributes]
    return repr((rule.name, rule.open_ended, fields))


def _pack(package: Package) -> _Entry:
    targets = [
        (
            target.label.name,
            target.rule.name,
            _packed(target.rule, target.attributes),
            target.extra,
            target.location.line,
            dict(target.location.attributes),
        )
        for target in package.targets.values()
    ]
    modules = {module: (*named,) for module, named in package.modules.items()}
    return (package.workspace, modules, targets)


def _packed(rule: Rule, attributes: Mapping[str, Any]) -> dict[str, Any]:
    values = dict(attributes)
    for name, attribute in rule.attributes.items():
        value = values[name]
        if attribute.kind == "label" and value is not None:
            values[name] = _pair(value)
        elif attribute.kind == "labels":
            values[name] = tuple(map(_pair, value))
        elif attribute.kind == "label_dict":
            values[name] = {key: _pair(label) for key, label in value.items()}
    return values


def _pair(label: Label) -> tuple[str, str]:
    return label.package, label.name


def _unpack(name: str, record: Record, packed: _Entry, rules: Mapping[str, Rule]) -> Package:
    workspace, named, targets = packed
    modules = {module: Named(*fields) for module, fields in named.items()}
    package = Package(name, build_file(name), workspace=workspace, modules=modules, record=record)
    used = {rule_name: rules[rule_name] for _, rule_name, *_ in targets}
    kinds = {
        name: [
            (key, attribute.kind) for key, attribute in rule.attributes.items() if attribute.kind.startswith("label")
        ]
        for name, rule in used.items()
    }
    for target, rule_name, values, extra, line, lines in targets:
        for key, kind in kinds[rule_name]:
            value = values[key]
            if kind == "labels":
                values[key] = tuple([Label(*pair) for pair in value])
            elif kind == "label_dict":
                values[key] = {word: Label(*pair) for word, pair in value.items()}
            elif value is not None:
                values[key] = Label(*value)
        where = Location(package.file, line, lines)
        package.targets[target] = Target(Label(name, target), used[rule_name], values, extra, where)
    return package

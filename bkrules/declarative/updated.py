"""New values for expectations: what a build made, in the place of what was expected of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bkrules.declarative import expectations
from bkrules.declarative.expectations import CACHED, DIGEST, FAILS, FILES, LISTS, TEXTS, Expectations
from bkrules.declarative.seen import Seen

FIRST: Mapping[str, Any] = {"env": {}, "labels": {}, **dict.fromkeys((*LISTS, *TEXTS))}
"""The expectations that are recorded when there are none: the settings that a container gets."""


class NothingToRecord(ValueError):
    """A build from which an expectation cannot be recorded."""


def updated(expect: Expectations, seen: Seen) -> dict[str, Any]:
    """Return the same expectations with the values that a build has. Raises NothingToRecord.

    A section that names some paths, variables or labels keeps exactly these; one that has none gets all. A text stays a text where
    it can, and True and False follow what exists. `fails_with` stays as it is, when the build still fails.
    """
    if expect.get(FAILS) is not None:
        if not seen.failure:
            raise NothingToRecord(f"the build passed, but {FAILS!r} expects that it fails")
        return dict(expect)
    if seen.failure:
        raise NothingToRecord(f"the build failed: {seen.failure}")
    if FAILS in expect:
        raise NothingToRecord(f"the build passed, so {FAILS!r} has no value")
    whole = expect or FIRST
    needs_image = [section for section in whole if section not in (FILES, "modes", "owners", CACHED)]
    if needs_image and seen.unknown:
        raise NothingToRecord(f"{needs_image[0]} is {seen.unknown}")
    return {section: _SECTIONS[section](value, seen) for section, value in whole.items()}


def _files(files: Any, seen: Seen) -> dict[str, Any]:
    return {path: _content(path, value, seen) for path, value in (files or {}).items()}


def _content(path: str, value: object, seen: Seen) -> object:
    entry = seen.rootfs.get(path)
    if entry is None:
        return False
    if isinstance(value, bool) or entry.kind != "file":
        return True
    if not isinstance(value, Mapping) and path in seen.contents:
        return seen.contents[path]
    return {"sha256": entry.sha256}


def _of_entries(field: str) -> Callable[[Any, Seen], dict[str, Any]]:
    def update(values: Any, seen: Seen) -> dict[str, Any]:
        return {path: getattr(seen.rootfs[path], field) for path in values or {} if path in seen.rootfs}

    return update


def _in_table(read: Callable[[Seen], Mapping[str, str]]) -> Callable[[Any, Seen], dict[str, Any]]:
    def update(values: Any, seen: Seen) -> dict[str, Any]:
        found = read(seen)
        return {name: found.get(name, False) for name in values} if values else dict(found)

    return update


def _setting(section: str) -> Callable[[Any, Seen], object]:
    return lambda _, seen: expectations.setting(section, seen)


def _steps(value: Any, seen: Seen) -> object:
    cached = [step.name for step in seen.steps if step.cached]
    if len(cached) == len(seen.steps):
        return value or True
    if not cached:
        raise NothingToRecord("no step of the second build came from BuildKit's cache")
    kept = [part for part in value if any(part in name for name in cached)] if isinstance(value, list) else []
    return kept or cached


_SECTIONS: Mapping[str, Callable[[Any, Seen], object]] = {
    FILES: _files,
    "modes": _of_entries("mode"),
    "owners": _of_entries("owner"),
    "env": _in_table(expectations.variables),
    "labels": _in_table(expectations.labels),
    **{section: _setting(section) for section in (*LISTS, *TEXTS)},
    DIGEST: lambda _, seen: seen.digest,
    CACHED: _steps,
}

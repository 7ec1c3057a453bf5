"""The expectations of a build test: a dictionary of a build file or of a JSON file, checked against what a build made."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from bkrules.declarative.seen import Seen, Step
from bkrules.errors import did_you_mean

_PATH = re.compile(r"/(?:[^/]+(?:/[^/]+)*)?").fullmatch
_MODE = re.compile(r"0?[0-7]{3,4}").fullmatch
_OWNER = re.compile(r"\d+:\d+").fullmatch
_SHA256 = re.compile(r"[0-9a-f]{64}").fullmatch
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}").fullmatch
_SHOWN = 200
_FEW = 12
_COMPARED = 2_000

Expectations = Mapping[str, Any]
Check = Callable[[Any, Seen], Iterator[str]]

LISTS = {"entrypoint": "Entrypoint", "cmd": "Cmd"}
TEXTS = {"user": "User", "workdir": "WorkingDir"}
"""Sections for single settings of an image's configuration, and their names there."""
FAILS, CACHED, FILES, DIGEST = "fails_with", "cached", "files", "digest"


class BadExpectation(ValueError):
    """An expectation that is invalid. `hint` is what to write instead."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def parse(document: object, *, records: bool = False) -> dict[str, Any]:
    """Return expectations in their one form. Raises BadExpectation.

    With `records`, a value may be None, which stands for the value that the build will have.
    """
    if not isinstance(document, Mapping):
        raise BadExpectation(f"must be a dictionary, but was {document!r}")
    found: dict[str, Any] = {}
    for section, value in document.items():
        if section not in _PARSERS:
            hint = did_you_mean(str(section), _PARSERS, "expectations")
            raise BadExpectation(f"there is no expectation {section!r}", hint)
        if not records and (unrecorded := _unrecorded(section, value)):
            hint = "`bk test --update_expectations` records it, when 'expect' is a JSON file"
            raise BadExpectation(f"{unrecorded} has no value yet", hint)
        found[section] = None if value is None else _PARSERS[section](section, value)
    others = [section for section in found if section != FAILS]
    if found.get(FAILS) is not None and others:
        raise BadExpectation(f"a build that fails has no {others[0]!r}: {FAILS!r} is an expectation alone")
    return found


def _unrecorded(section: str, value: object) -> str:
    """Return the first expectation without a value; empty when each has one."""
    if value is None:
        return repr(section)
    if isinstance(value, Mapping):
        empty = (None, {"sha256": None})
        return next((f"{name!r} in {section!r}" for name, one in value.items() if one in empty), "")
    return ""


def _table(section: str, value: object, check: Callable[[str, str, object], object]) -> dict[str, object]:
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise BadExpectation(f"{section!r} must be a dictionary with strings as keys, but was {value!r}")
    return {name: None if one is None else check(section, name, one) for name, one in value.items()}


def _paths(check: Callable[[str, str, object], object]) -> Callable[[str, object], object]:
    def of_section(section: str, value: object) -> object:
        found = _table(section, value, check)
        for path in found:
            if not _PATH(path) or {".", ".."} & set(path.split("/")):
                hint = "write it from the root, without . and .., as in '/etc/hosts'"
                raise BadExpectation(f"{path!r} in {section!r} is no path of an image", hint)
        return found

    return of_section


def _content(section: str, path: str, value: object) -> object:
    if isinstance(value, bool | str):
        return value
    if isinstance(value, Mapping) and set(value) == {"sha256"}:
        digest = value["sha256"]
        if digest is None or (isinstance(digest, str) and _SHA256(digest)):
            return {"sha256": digest}
        raise BadExpectation(f"the sha256 of {path!r} must have 64 hexadecimal digits, but was {digest!r}")
    what = f"{path!r} in {section!r} must be its text, {{'sha256': ...}}, True or False (absent), but was {value!r}"
    raise BadExpectation(what)


def _mode(section: str, path: str, value: object) -> object:
    if not isinstance(value, str) or not _MODE(value):
        hint = "write it in quotes: '0755'" if isinstance(value, int) else ""
        raise BadExpectation(f"the mode of {path!r} must have octal digits as in '0755', but was {value!r}", hint)
    return f"{int(value, 8):04o}"


def _owner(section: str, path: str, value: object) -> object:
    if not isinstance(value, str) or not _OWNER(value):
        raise BadExpectation(f"the owner of {path!r} must be 'UID:GID' in numbers, but was {value!r}")
    return value


def _text_or_absent(section: str, name: str, value: object) -> object:
    if not isinstance(value, str) and value is not False:
        raise BadExpectation(f"{name!r} in {section!r} must be a string, or False (absent), but was {value!r}")
    return value


def _strings(section: str, value: object) -> object:
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
        raise BadExpectation(f"{section!r} must be a list of strings, but was {value!r}")
    return list(value)


def _string(section: str, value: object) -> object:
    if not isinstance(value, str):
        raise BadExpectation(f"{section!r} must be a string, but was {value!r}")
    return value


def _digest(section: str, value: object) -> object:
    if not isinstance(value, str) or not _DIGEST(value):
        raise BadExpectation(f"{section!r} must be 'sha256:' and 64 hexadecimal digits, but was {value!r}")
    return value


def _regex(section: str, value: object) -> object:
    text = str(_string(section, value))
    try:
        re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise BadExpectation(f"{section!r} is no regular expression: {text!r}: {error}") from error
    return text


def _cached(section: str, value: object) -> object:
    if value is True:
        return value
    if not isinstance(value, list | tuple) or not value or not all(isinstance(one, str) and one for one in value):
        what = f"{section!r} must be True (all steps), or a list with parts of the steps' texts, but was {value!r}"
        raise BadExpectation(what)
    return list(value)


_PARSERS: Mapping[str, Callable[[str, object], object]] = {
    FILES: _paths(_content),
    "modes": _paths(_mode),
    "owners": _paths(_owner),
    "env": lambda section, value: _table(section, value, _text_or_absent),
    "labels": lambda section, value: _table(section, value, _text_or_absent),
    **dict.fromkeys(LISTS, _strings),
    **dict.fromkeys(TEXTS, _string),
    DIGEST: _digest,
    FAILS: _regex,
    CACHED: _cached,
}
SECTIONS = tuple(_PARSERS)


def contents(expect: Expectations) -> list[str]:
    """Return the paths of files whose text is expected, or may become an expectation."""
    return sorted(path for path, value in (expect.get(FILES) or {}).items() if value is None or isinstance(value, str))


def problems(expect: Expectations, seen: Seen, output: str = "") -> list[str]:
    """Return the expectations that a build does not meet, each with its value; `output` is what the build printed."""
    if FAILS in expect:
        return list(_failure(expect[FAILS], seen, output))
    if seen.failure:
        return [f"the build failed: {seen.failure}"]
    checks = ((check, expect[section]) for section, check in _CHECKS.items() if section in expect)
    return [problem for check, value in checks for problem in check(value, seen)]


def _failure(pattern: str, seen: Seen, output: str) -> Iterator[str]:
    if not seen.failure:
        yield f"the build passed, but must fail with {pattern!r}"
    elif not re.search(pattern, output):
        yield f"the build failed, but its output does not match {pattern!r}: {seen.failure}"


def _files(files: Mapping[str, Any], seen: Seen) -> Iterator[str]:
    for path, value in files.items():
        entry = seen.rootfs.get(path)
        if value is False:
            if entry is not None:
                yield f"{path}: exists ({entry.kind}), but must not"
        elif entry is None:
            yield absent(path, seen)
        elif value is not True:
            digest = value["sha256"] if isinstance(value, Mapping) else hashlib.sha256(value.encode()).hexdigest()
            if entry.kind != "file":
                yield f"{path}: is a {entry.kind}, but must be a file"
            elif entry.sha256 != digest:
                yield f"{path}: {_has(path, seen)}, but must have {_short(value)}"


def absent(path: str, seen: Seen) -> str:
    """Return the problem of a path that an image lacks."""
    near = difflib.get_close_matches(path, list(seen.rootfs)[:_COMPARED], n=1)
    return f"{path}: does not exist{f', but {near[0]} does' if near else ''}"


def _has(path: str, seen: Seen) -> str:
    if path in seen.contents:
        return f"has {_short(seen.contents[path])}"
    entry = seen.rootfs[path]
    return f"has {entry.size} bytes with sha256 {entry.sha256}"


def _short(value: object) -> str:
    text = repr(dict(value) if isinstance(value, Mapping) else value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _of_entry(field: str) -> Check:
    def check(values: Mapping[str, str], seen: Seen) -> Iterator[str]:
        for path, value in values.items():
            entry = seen.rootfs.get(path)
            if entry is None:
                yield absent(path, seen)
            elif getattr(entry, field) != value:
                yield f"{path}: has the {field} {getattr(entry, field)}, but must have {value}"

    return check


def variables(seen: Seen) -> dict[str, str]:
    """Return the variables of an image."""
    found = seen.settings.get("Env")
    pairs = [str(one).partition("=") for one in found] if isinstance(found, list) else []
    return {name: value for name, _, value in pairs}


def labels(seen: Seen) -> dict[str, str]:
    """Return the labels of an image."""
    found = seen.settings.get("Labels")
    return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) else {}


def setting(section: str, seen: Seen) -> object:
    """Return the value of a section for a single setting. BuildKit leaves empty ones out, and `/` is the default of `workdir`."""
    if section in LISTS:
        found = seen.settings.get(LISTS[section])
        return [str(one) for one in found] if isinstance(found, list) else []
    return str(seen.settings.get(TEXTS[section]) or ("/" if section == "workdir" else ""))


def _in_table(what: str, read: Callable[[Seen], Mapping[str, str]]) -> Check:
    def check(values: Mapping[str, Any], seen: Seen) -> Iterator[str]:
        if seen.unknown:
            yield f"{what}s: {seen.unknown}"
            return
        found = read(seen)
        for name, value in values.items():
            if value is False:
                if name in found:
                    yield f"{what} {name}: is {found[name]!r}, but must not be set"
            elif name not in found:
                yield f"{what} {name}: is not set, but must be {value!r}; {did_you_mean(name, found, f'{what}s')}"
            elif found[name] != value:
                yield f"{what} {name}: is {found[name]!r}, but must be {value!r}"

    return check


def _setting(section: str) -> Check:
    def check(value: object, seen: Seen) -> Iterator[str]:
        if seen.unknown:
            yield f"{section}: {seen.unknown}"
        elif setting(section, seen) != value:
            yield f"{section}: is {setting(section, seen)!r}, but must be {value!r}"

    return check


def _of_digest(value: str, seen: Seen) -> Iterator[str]:
    if seen.unknown:
        yield f"digest: {seen.unknown}"
    elif seen.digest != value:
        yield f"digest: is {seen.digest}, but must be {value}"


def _steps(value: object, seen: Seen) -> Iterator[str]:
    names = [step.name for step in seen.steps]
    if not names:
        yield "cached: the Dockerfile has no step but FROM"
        return
    for part in value if isinstance(value, list) else [""]:
        matching = [step for step in seen.steps if part in step.name]
        if not matching:
            yield f"cached: no step has {part!r}; the steps: {'; '.join(names[:_FEW])}"
        yield from _not_cached(matching)


def _not_cached(steps: Sequence[Step]) -> Iterator[str]:
    for step in steps:
        if not step.cached:
            yield f"cached: the second build ran {step.name!r} again"


_CHECKS: Mapping[str, Check] = {
    FILES: _files,
    "modes": _of_entry("mode"),
    "owners": _of_entry("owner"),
    "env": _in_table("variable", variables),
    "labels": _in_table("label", labels),
    **{section: _setting(section) for section in (*LISTS, *TEXTS)},
    DIGEST: _of_digest,
    CACHED: _steps,
}

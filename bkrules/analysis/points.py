"""The points of a matrix that are cells: `exclude` removes points, `include` restores some of them, as in GitHub's matrices.

An entry such as `{"worker": "slow", "compression": "estargz"}` matches the points with all of its values. An axis may be one
that some tests have by themselves.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Mapping, Sequence

from bkrules.analysis.test_marks import Test
from bkrules.errors import LoadError, did_you_mean

TEST, WORKER = "test", "worker"
Entry = Mapping[str, str]
Error = Callable[[str, str, str, str], LoadError]


def is_named(test: Test, text: str) -> bool:
    """Return whether an entry's text matches a test: by its name, without its parameters, by its class, or by a pattern."""
    names = [test.name, test.callable]
    while "::" in names[-1]:
        names.append(names[-1].rpartition("::")[0])
    return text in names or ("*" in text and any(fnmatch.fnmatchcase(name, text) for name in names))


class Points:
    """The points that are cells. Raises LoadError, made by `error`, for an entry that matches nothing."""

    def __init__(
        self,
        exclude: Sequence[Entry],
        include: Sequence[Entry],
        *,
        tests: Sequence[Test],
        workers: Iterable[str],
        axes: Mapping[str, Iterable[str]],
        error: Error,
    ) -> None:
        known = {**{axis: set(values) for axis, values in axes.items()}, WORKER: set(workers)}
        for attribute, entries in (("exclude", exclude), ("include", include)):
            for entry in entries:
                _check(attribute, entry, known, tests, error)
        for entry in include:
            if not any(_meet(entry, other, tests) for other in exclude):
                raise error(
                    "bad-entry",
                    f"{_text(entry)} in 'include' adds no cell, since 'exclude' removes none of its points",
                    "include",
                    "leave it out; an entry restores points that 'exclude' removes",
                )
        self._exclude, self._include = exclude, include

    def has(self, test: Test, worker: str, point: Iterable[tuple[str, str]]) -> bool:
        """Return whether the point is a cell."""
        values = {**dict(point), WORKER: worker}
        return not _any(self._exclude, test, values) or _any(self._include, test, values)


def _any(entries: Iterable[Entry], test: Test, values: Mapping[str, str]) -> bool:
    return any(
        all(is_named(test, value) if key == TEST else values.get(key) == value for key, value in entry.items())
        for entry in entries
    )


def _meet(one: Entry, other: Entry, tests: Sequence[Test]) -> bool:
    """Return whether a point matches both entries."""
    if any(key in other and other[key] != value for key, value in one.items() if key != TEST):
        return False
    wanted = [entry[TEST] for entry in (one, other) if TEST in entry]
    return any(all(is_named(test, text) for text in wanted) for test in tests)


def _check(attribute: str, entry: Entry, known: Mapping[str, set[str]], tests: Sequence[Test], error: Error) -> None:
    if not entry:
        raise error("bad-entry", f"an empty entry in {attribute!r} would match every cell", attribute, "")
    for key, value in entry.items():
        if key == TEST:
            if not any(is_named(test, value) for test in tests):
                hint = did_you_mean(value, {test.callable for test in tests}, "tests")
                raise error("unknown-test", f"{_text(entry)} in {attribute!r}: no test {value!r}", attribute, hint)
        elif key not in known:
            hint = did_you_mean(key, [*known, TEST], "axes")
            raise error("unknown-axis", f"{_text(entry)} in {attribute!r}: no axis {key!r}", attribute, hint)
        elif value not in known[key]:
            hint = did_you_mean(value, known[key], f"values of {key}")
            raise error("unknown-value", f"{_text(entry)} in {attribute!r}: {key} is never {value!r}", attribute, hint)


def _text(entry: Entry) -> str:
    return f"{{{', '.join(f'{key}: {value}' for key, value in entry.items())}}}"

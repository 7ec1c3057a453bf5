"""Rules by which the marks and the name of a test decide about its cells before anything starts, as in BuildKit's harness.

Each mark also has BuildKit's spelling as a part of the test's name, so that tests from BuildKit keep their names.
"""

from __future__ import annotations

import functools
from collections.abc import Collection

from bkrules.analysis.test_marks import Mark, Test
from bkrules.errors import LoadError, is_near
from bkrules.plugin.features import UnknownFeature, known

MARKS = {
    "no_rootless": "the test is skipped on workers without privileges; also: its name contains NoRootless",
    "no_parallel": "no other cell runs at the same time; also: its name ends with NoParallel",
    "requires": "the test is skipped on workers without all of these features, as `requires('cdi', 'merge_diff')`",
    "extra_timeout": "it may take three times as long; also: its name contains ExtraTimeout",
}
EXTRA = 3
_BARE = {
    "no_rootless": "",
    "no_parallel": "",
    "extra_timeout": f"it means {EXTRA} times as long; the attributes 'size' and 'timeout' of the matrix take seconds",
}
"""The marks without arguments, each with a hint that only it has, or an empty text."""
_KNOWN = (*MARKS, "filterwarnings", "parametrize", "skip", "skipif", "usefixtures", "xfail")
"""The marks that change what happens: bk's, and pytest's own."""


def skip_reason(test: Test, *, rootless: bool, unsupported: Collection[str]) -> str:
    """Return why a test does not run on a worker; empty when it runs, or when only the cell can tell.

    `unsupported` are the features that the worker lacks.
    """
    if rootless and (test.mark("no_rootless") or "NoRootless" in test.callable):
        return "the worker has no privileges"
    if missing := sorted(required(test).intersection(unsupported)):
        return f"the worker does not support {', '.join(missing)}"
    mark = test.mark("skip")
    return _reason(mark) if mark else ""


def check_marks(test: Test) -> None:
    """Raise LoadError, with a line as its place, for an unknown feature, and for a mark that is misspelled.

    pytest takes such a mark for one of the user, and the test would run as if it had none.
    """
    for mark in test.marks:
        if meant := _meant(mark.name):
            message = f"{test.name} has the unknown mark {mark.name!r}"
            hint = f"did you mean {meant!r}? A mark of your own needs a name that differs in more than one letter"
            raise LoadError("unknown-mark", message, where=str(mark.line), hint=hint)
        if fault := _misused(mark):
            what, hint = fault
            raise LoadError("bad-mark", f"{mark.name!r} of {test.name} {what}", where=str(mark.line), hint=hint)
    required(test)


def _misused(mark: Mark) -> tuple[str, str] | None:
    """Return what is wrong with the arguments of a mark that bk reads and pytest does not, and what to write; None when nothing is.

    pytest refuses them when the test runs, but a skipped test does not run.
    """
    if mark.name in _BARE and (mark.arguments is None or mark.arguments or mark.keywords):
        return "takes no arguments", _BARE[mark.name] or f"write @pytest.mark.{mark.name}"
    if mark.name == "skip" and (unknown := sorted({*(mark.keywords or ())} - {"reason"})):
        return f"has no argument {unknown[0]!r}", "write @pytest.mark.skip(reason = 'why')"
    if mark.name == "skip" and mark.arguments and (len(mark.arguments) > 1 or not isinstance(mark.arguments[0], str)):
        return (
            "takes a reason and nothing else",
            "a condition belongs to @pytest.mark.skipif(condition, reason = 'why')",
        )
    return None


@functools.cache
def _meant(name: str) -> str:
    """Return the known mark from which an unknown one differs in one letter, or by two that are swapped; else an empty text."""
    return "" if name in _KNOWN else next((known for known in _KNOWN if is_near(name, known)), "")


def required(test: Test) -> frozenset[str]:
    """Return the features that a test requires by its marks. Raises LoadError, with a line as its place, for an unknown feature."""
    features: frozenset[str] = frozenset()
    for mark in test.marks:
        if mark.name != "requires":
            continue
        names = mark.arguments
        if not names or mark.keywords or not all(isinstance(name, str) for name in names):
            hint = "write them as @pytest.mark.requires('cdi', 'merge_diff')"
            message = f"'requires' of {test.name} must name features, as literals"
            raise LoadError("bad-mark", message, where=str(mark.line), hint=hint)
        try:
            features |= known(names)
        except UnknownFeature as error:
            raise LoadError("unknown-feature", f"{test.name}: {error}", where=str(mark.line)) from error
    return features


def is_exclusive(test: Test) -> bool:
    """Return whether no other cell may run at the same time as the test."""
    return test.mark("no_parallel") is not None or test.callable.endswith("NoParallel")


def time_factor(test: Test) -> int:
    """Return the factor for the matrix's timeout."""
    return EXTRA if test.mark("extra_timeout") or "ExtraTimeout" in test.callable else 1


def _reason(skip: Mark) -> str:
    """Return the reason of a `skip`, pytest's own when it has none; empty when the cell computes it."""
    if skip.arguments is None or skip.keywords is None:
        return ""
    reason = skip.keywords.get("reason", skip.arguments[0] if skip.arguments else "")
    return str(reason) or "unconditional skip"

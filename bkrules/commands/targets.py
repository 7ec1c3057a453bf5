"""Names of targets on a command line: a label, or the target's own name."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence

from bkrules.build.analysis import package_of
from bkrules.errors import UsageError, did_you_mean
from bkrules.loading.workspace import Workspace
from bkrules.model.label import parse_pattern, shown_package
from bkrules.model.rule import Target

_SHOWN = 10


def target_of(workspace: Workspace, text: str, rule: str) -> Target:
    """Return the target of a rule with that label, or the only one whose name is, or begins with, or matches that text: of the
    workspace, or else of the modules that it names. Raises UsageError.
    """
    if text.startswith(("//", ":", "@")) or ":" in text:
        target, *_ = workspace.match([parse_pattern(text, package_of(workspace, "."))])
        if target.rule.name != rule:
            hint = f"it must be a {rule}: {', '.join(str(target.label) for target in _all(workspace, '//...', rule))}"
            raise UsageError("wrong-kind", f"{target.label} is a {target.rule.name}", hint=hint)
        return target
    known = _all(workspace, "//...", rule)
    named = _named(known, text)
    if not named:
        known += _of_modules(workspace, rule)
        named = _named(known, text)
    if len(named) != 1:
        hint = did_you_mean(text, [target.label.name for target in known], f"{rule} targets")
        if named:
            hint = f"say which one: {', '.join(str(target.label) for target in named)}"
        many = f"{len(named)} {rule} targets match" if named else f"no {rule} targets are called"
        raise UsageError("unknown-target", f"{many} {text!r}", hint=hint)
    return named[0]


def only_target(workspace: Workspace, rule: str) -> Target:
    """Return the only target of a rule in the workspace. Raises UsageError when there is another number of them."""
    known = _all(workspace, "//...", rule)
    if len(known) != 1:
        names = ", ".join(str(target.label) for target in known[:_SHOWN])
        more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
        hint = f"say which one: {names}{more}" if known else f"declare one:  {rule}(name = ...)"
        raise UsageError(f"which-{rule}", f"there are {len(known)} {rule} targets", hint=hint)
    return known[0]


def _named(known: Sequence[Target], text: str) -> list[Target]:
    return next(filter(None, ([target for target in known if fits(target.label.name)] for fits in _ways(text))), [])


def _of_modules(workspace: Workspace, rule: str) -> list[Target]:
    """Return the targets of a rule in the modules that the workspace names."""
    top = workspace.package("")
    return [target for module in (top.modules if top else ()) for target in _all(workspace, f"@{module}//...", rule)]


def _ways(text: str) -> tuple[Callable[[str], bool], ...]:
    """Return how a text may name a target: whole, by the beginning, or as a pattern with `*` and `?`."""
    return text.__eq__, lambda name: name.startswith(text), lambda name: fnmatch.fnmatchcase(name, text)


def _all(workspace: Workspace, pattern: str, rule: str) -> list[Target]:
    return [target for target in workspace.match([parse_pattern(pattern)]) if target.rule.name == rule]


def mirror_of(workspace: Workspace, worker: Target, text: str = "") -> Target:
    """Return the named image_mirror, the one in the worker's package, or the only one of the workspace, or of its modules when
    it has none. Raises UsageError.
    """
    if text:
        return target_of(workspace, text, "image_mirror")
    beside = _all(workspace, f"{shown_package(worker.label.package)}:all", "image_mirror")
    mirrors = beside or _all(workspace, "//...", "image_mirror") or _of_modules(workspace, "image_mirror")
    if len(mirrors) != 1:
        names = ", ".join(str(target.label) for target in mirrors)
        hint = f"say --mirror LABEL: {names}" if mirrors else "declare one:  image_mirror(name = ..., images = {...})"
        raise UsageError("which-mirror", f"there are {len(mirrors)} mirrors for {worker.label}", hint=hint)
    return mirrors[0]

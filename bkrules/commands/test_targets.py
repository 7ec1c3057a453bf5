"""The options of `bk test` for its targets: which of them by their tags, and more arguments for their programs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence, Set
from dataclasses import replace
from functools import partial

from bkrules.commands.parser import nothing
from bkrules.errors import UsageError, did_you_mean, is_near
from bkrules.incremental.dependencies import current
from bkrules.model.resources import EXCLUSIVE, MANUAL
from bkrules.model.rule import Target

Change = Callable[[Sequence[Target]], Sequence[Target]]
_ARGS = "args"


def add_targets(parser: argparse.ArgumentParser) -> None:
    """Add the options to a command."""
    group = parser.add_argument_group("which targets run, and how")
    group.add_argument(
        "--test_tag_filters",
        default="",
        metavar="TAG,-TAG",
        help="of the targets, those with one of these tags; with - in front, without them",
    )
    group.add_argument(
        "--test_arg",
        action="append",
        default=[],
        metavar="WORD",
        help="one more word on the command line of each program among the tests, in its key; can be repeated",
    )


def changes_of(arguments: argparse.Namespace) -> list[Change]:
    """Return what the options do with the targets, one after the other."""
    filters = [tag for tag in arguments.test_tag_filters.split(",") if tag.strip("-")]
    changes: list[Change] = [partial(_tagged, filters)] if filters else []
    return [*changes, *([partial(_with_words, tuple(arguments.test_arg))] if arguments.test_arg else [])]


def _tagged(filters: Sequence[str], targets: Sequence[Target]) -> Sequence[Target]:
    """Return the targets with one of the tags, and without those that begin with `-`. Raises BkError when none is left."""
    unwanted = {tag[1:] for tag in filters if tag.startswith("-")}
    wanted = {tag.removeprefix("+") for tag in filters if not tag.startswith("-")}
    tags = {tag for target in targets for tag in target.attributes["tags"]}
    if targets:
        _check_names(sorted({*wanted, *unwanted} - tags), tags)
    left = [
        target
        for target in targets
        if unwanted.isdisjoint(target.attributes["tags"])
        and (not wanted or not wanted.isdisjoint(target.attributes["tags"]))
    ]
    if targets and not left:
        hint = did_you_mean(next(iter(sorted(wanted - tags or unwanted))), tags, "their tags")
        raise nothing(f"--test_tag_filters={','.join(filters)} leaves none of {len(targets)} targets", hint)
    return left


def _check_names(names: Sequence[str], tags: Set[str]) -> None:
    """Raise UsageError for a name that is nearly a tag of the targets. Warn of any other name that is no tag of them."""
    for name in names:
        if any(is_near(name, tag) for tag in tags):
            what = f"--test_tag_filters: no target here has the tag {name!r}"
            raise UsageError("unknown-tag", what, hint=did_you_mean(name, tags, "their tags"))
        if name not in (EXCLUSIVE, MANUAL):
            hint = did_you_mean(name, tags, "their tags")
            print(f"warning: --test_tag_filters: no target here has the tag {name!r}\n  {hint}", file=sys.stderr)
            current().doubts.append("a warning is not kept with an answer")


def _with_words(words: tuple[str, ...], targets: Sequence[Target]) -> Sequence[Target]:
    """Return the targets with more arguments for their programs. Raises UsageError when none of them has a program."""
    changed = [_changed(target, words) if _has_programs(target) else target for target in targets]
    if targets and changed == list(targets):
        hint = "tests in Python take values from the axes of their matrix, or from --test_env=NAME=VALUE"
        raise UsageError("no-programs", f"--test_arg: none of {len(targets)} targets runs a program", hint=hint)
    return changed


def _has_programs(target: Target) -> bool:
    tests = target.attributes.get("tests") or ()
    return _ARGS in target.attributes and any(not label.name.endswith(".py") for label in tests)


def _changed(target: Target, words: tuple[str, ...]) -> Target:
    return replace(target, attributes={**target.attributes, _ARGS: (*target.attributes[_ARGS], *words)})

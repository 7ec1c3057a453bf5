"""Requested targets that run nothing, such as a `host_binary`, and need a file that this machine does not have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bkrules.analysis.host_inputs import find
from bkrules.build.analysis import Analysis, package_of
from bkrules.errors import MachineLacks
from bkrules.model.action import HostFile
from bkrules.model.label import Label, parse_pattern
from bkrules.model.providers import BinaryInfo


@dataclass(frozen=True)
class Lacks:
    """The lacks of targets that the command line names, and of those that only match a pattern such as `//...`."""

    named: Sequence[MachineLacks]
    matched: Sequence[MachineLacks]
    packages: frozenset[str]


NOTHING = Lacks((), (), frozenset())


def lacks_of(analysis: Analysis, patterns: Sequence[str], folder: str = ".") -> Lacks:
    """Return the lacks of the targets of a build. An action reports its own, so targets with actions have none here."""
    found = {label: lack for label in analysis.targets.wanted if (lack := _lack(analysis, label)) is not None}
    package = package_of(analysis.workspace, folder)
    parsed = [parse_pattern(text, package) for text in patterns] if found else []
    single = [pattern for pattern in parsed if pattern.name is not None and not pattern.negative]
    named = {target.label for target in analysis.workspace.match(single)}
    return Lacks(
        [lack for label, lack in found.items() if label in named],
        [lack for label, lack in found.items() if label not in named],
        frozenset(label.package for label in found),
    )


def _lack(analysis: Analysis, wanted: Label) -> MachineLacks | None:
    """Return the first lack of a target, or of the targets without actions that it depends on."""
    labels = [wanted]
    for label in labels:
        if analysis.actions.of_target[label]:
            continue
        # A target that --keep_going left out has no providers.
        for provider in analysis.actions.providers.get(label, ()):
            lack = _missing(provider) if isinstance(provider, BinaryInfo) else None
            if lack is not None:
                who = str(wanted) if label == wanted else f"{wanted} needs {label}"
                where = next(str(target.location) for target in analysis.targets.targets if target.label == label)
                return MachineLacks(lack.reason, f"{who}: {lack.message}", where=where, hint=lack.hint)
        labels += [below for below in analysis.targets.edges[label] if below not in labels]
    return None


def _missing(binary: BinaryInfo) -> MachineLacks | None:
    """Return which file of a binary this machine does not have, if any."""
    try:
        for file in (binary.file, *binary.also):
            if isinstance(file, HostFile):
                find(file.path)
    except MachineLacks as lack:
        return lack
    return None

"""The part of the output that a CI system understands: annotations of failures, and groups of lines.

A test may print anything, and so may its name and its messages. A line that the CI would take for a command is therefore changed:
an invisible space separates its first two characters. bk's own commands have a random mark until they are printed.
"""

from __future__ import annotations

import functools
import os
import re
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bkrules.report.failures import Failure

GITHUB, GITLAB = "GITHUB_ACTIONS", "GITLAB_CI"
"""The variables by which a job knows its CI."""
LONG = 20
"""The number of lines from which a part of the output is a group."""
_SPACE = "\u200b"
_COMMAND = re.compile(r"((?:^|[\r\n])\s*:)(?=:)|(#)(?=#\[)|(section_)(?=(?:start|end):)")
_PLACE = re.compile(r"(?P<file>[^\s:]+):(?P<line>\d+)(?:: (?P<text>.*))?", re.DOTALL)


class Ci:
    """The CI system of this job, if any, by the variables of its environment."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.kind = next((name for name in (GITHUB, GITLAB) if environment.get(name) == "true"), "")
        self._top = environment.get("GITHUB_WORKSPACE", "")
        self._groups = 0
        self._mark = os.urandom(16).hex() if self.kind else ""

    def grouped(self, title: str, text: str) -> str:
        """Return a text as a group with a title, which a reader can fold; as it is when it is short, or without a CI."""
        if not self.kind or text.count("\n") < LONG:
            return text
        self._groups += 1
        title = " ".join(title.split())
        if self.kind == GITHUB:
            return f"{self._mark}group::{title}\n{text}\n{self._mark}endgroup::"
        name, now = f"bk_{os.getpid()}_{self._groups}", int(time.time())
        start = f"\x1b[0K{self._mark}start:{now}:{name}[collapsed=true]\r\x1b[0K{title}"
        return f"{start}\n{text}\n\x1b[0K{self._mark}end:{now}:{name}\r\x1b[0K"

    def shown(self, text: str) -> str:
        """Return a text as it is printed: no line is a command to the CI, except bk's own."""
        if not self.kind:
            return text
        safe = _COMMAND.sub(lambda match: f"{match[0]}{_SPACE}", text)
        return safe.replace(self._mark, "::" if self.kind == GITHUB else "section_")

    def annotations(self, failures: Iterable[Failure], root: str) -> list[str]:
        """Return the annotations of failed cells at their lines in the workspace at `root`: one for all that failed alike."""
        found = []
        for failure in failures:
            match = _PLACE.fullmatch(failure.results[0].reason)
            text = (match["text"] if match else None) or failure.results[0].reason
            found += self.annotation(match[0] if match else "", root, f"{failure.title}: {text}")
        return found

    def annotation(self, place: str, root: str, text: str) -> list[str]:
        """Return the annotation of an error at `file:line...`, or without a place; nothing for a CI that has no annotations."""
        if self.kind != GITHUB:
            return []
        match = _PLACE.match(place)
        where = f" file={_property(self._path(match['file'], root))},line={match['line']}" if match else ""
        return [f"::error{where}::{_data(text)}"]

    def _path(self, file: str, root: str) -> str:
        """Return the path of a file of the workspace in the repository that the job has checked out."""
        path = os.path.join(root, file)
        is_below = self._top and os.path.isabs(path) and path.startswith(f"{self._top.rstrip('/')}/")
        return os.path.relpath(path, self._top) if is_below else file


@functools.cache
def current_ci() -> Ci:
    """Return the CI system of this process."""
    return Ci(os.environ)


def _data(text: str) -> str:
    """Return a message as GitHub's command has it after `::`, on one line."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """Return the value of a property of GitHub's commands."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")

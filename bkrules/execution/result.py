"""What became of an action."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bkrules.action import Action, Key, Node


@dataclass(frozen=True)
class Result:
    """`status` is passed, failed, timed out, skipped or not run; `failure` the class of what went wrong.

    `seconds` is what the action took when it ran, which for a cached result was another time.
    """

    action: Action
    status: str
    cached: bool = False
    seconds: float = 0.0
    key: Key | None = None
    outputs: Mapping[str, Node] = field(default_factory=dict)
    reason: str = ""
    failure: str = ""
    hint: str = ""
    log: str = ""


@dataclass(frozen=True)
class Outcome:
    """What a runner returns: `outputs` are paths of files or folders by the names that the action declared."""

    status: str
    outputs: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    failure: str = ""

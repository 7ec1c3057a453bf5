"""What a cell says of itself, read as words of somebody else.

A test in a cell is root. It can write its own outcome, and speak on the channel of the cell's first process. So nothing of it is
believed to have a form: a message that has another one than here is refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from bkrules.plugin.cell import CLASSES, STATUSES

_LONGEST_REASON = 1 << 16


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _are(is_one: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list) and all(map(is_one, value))


def _map_to(is_one: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, dict) and all(map(is_one, value.values()))


_FIELDS: Mapping[str, Callable[[object], bool]] = {
    "status": STATUSES.__contains__,
    "class": CLASSES.__contains__,
    "reason": _is_text,
    "detail": _is_text,
    "missing": _are(_is_text),
    "tainted": _are(_is_text),
    "began": _is_number,
    "seconds": _map_to(_is_number),
    "fuse": _are(lambda value: type(value) is int and value >= 0),
    "exit_code": lambda value: type(value) is int,
    "device": lambda value: type(value) is int,
    "address": _is_text,
    "environment": _map_to(_is_text),
}
_RESULT = ("class", "reason", "detail", "missing", "seconds", "fuse", "exit_code", "began")
_EVENTS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "root": (("device",), ()),
    "ready": (("address", "environment"), ()),
    "cell": (("status", "tainted"), _RESULT),
    "result": (("status",), _RESULT),
}
_ONLY = {"ready": "session", "cell": "tests"}
_OUTCOME = ("status", "class", "reason", "missing")


def checked(message: Mapping[str, Any], program: str) -> str:
    """The event of a message. Raises ValueError when a field is missing, unknown, or of another form.

    `program` is what runs in the cell: only a session gets ready, and only shared cells have a result for each test.
    """
    event = message.get("event")
    if not isinstance(event, str) or event not in _EVENTS or _ONLY.get(event, program) != program:
        raise ValueError("it is no event of such a cell")
    needed, more = _EVENTS[event]
    for name in needed:
        if name not in message:
            raise ValueError(f"the field {name!r} is missing")
    for name, value in message.items():
        if name != "event" and (name not in (*needed, *more) or not _FIELDS[name](value)):
            raise ValueError(f"the field {name[:64]!r} makes no sense")
    return event


def outcome(data: bytes) -> dict[str, Any]:
    """What a test's own process says became of it; nothing when that makes no sense. A long reason is cut."""
    try:
        said = json.loads(data)
        checked({"event": "result", **said}, "test")
    except (ValueError, TypeError, RecursionError):  # a test that is killed while it writes has not written it
        return {}
    found = {name: said[name] for name in _OUTCOME if name in said}
    return found | ({"reason": found["reason"][:_LONGEST_REASON]} if "reason" in found else {})

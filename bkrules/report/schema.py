"""Checks a report.json by its published schema: a report from elsewhere can have anything in the place of a field."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

_SCHEMA = Path(__file__).with_name("report.schema.json")
_SHOWN = 60
_KINDS: Mapping[str, Callable[[object], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value),
}


def check_report(document: object) -> None:
    """Raise ValueError that names the first field of a report that is not as the schema says.

    Unknown fields are allowed: a later bk may write more.
    """
    _check(document, _schema(), "")


@cache
def _schema() -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(_SCHEMA.read_bytes())
    return schema


def _check(value: object, rule: Mapping[str, Any], place: str) -> None:
    """Check a value by the part of the schema for its place, as `cells[0].status`."""
    if "$ref" in rule:
        rule = _schema()["$defs"][rule["$ref"].rpartition("/")[2]]
    if not _fits(value, rule):
        raise ValueError(f"{place or 'it'} is not valid: {json.dumps(value)[:_SHOWN]}")
    if isinstance(value, dict):
        missing = [name for name in rule.get("required", ()) if name not in value]
        if missing:
            raise ValueError(f"{place or 'it'} has no field {missing[0]!r}")
        others = rule.get("additionalProperties") or {}
        for name, each in value.items():
            _check(each, rule.get("properties", {}).get(name, others), f"{place}.{name[:_SHOWN]}".lstrip("."))
    elif isinstance(value, list):
        for number, each in enumerate(value):
            _check(each, rule.get("items", {}), f"{place}[{number}]")


def _fits(value: object, rule: Mapping[str, Any]) -> bool:
    """Return whether a value fits, without what is in it."""
    kinds = rule.get("type", ())
    kinds = [kinds] if isinstance(kinds, str) else kinds
    return (
        (not kinds or any(_KINDS[kind](value) for kind in kinds))
        and ("const" not in rule or _is_among(value, [rule["const"]]))
        and ("enum" not in rule or _is_among(value, rule["enum"]))
        and (not isinstance(value, int | float) or value >= rule.get("minimum", -math.inf))
        and (not isinstance(value, str) or len(value) >= rule.get("minLength", 0))
        and (not isinstance(value, str) or re.search(rule.get("pattern", ""), value) is not None)
    )


def _is_among(value: object, allowed: Sequence[object]) -> bool:
    """Return whether a value is one of those allowed; in JSON, true is not 1."""
    return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in allowed)

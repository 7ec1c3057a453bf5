"""JSON from registries and archives: its size, its grammar, and the types of its fields are checked. Null counts as absent.

Every error is an ActionFailed that names the document and the field.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any

from bkrules.errors import ActionFailed
from bkrules.images.digests import ImageDigest

MANIFEST_LIMIT = 4 << 20
"""The limit in bytes of a manifest, an index or a configuration: that of registries."""


def bad(where: str, problem: str) -> ActionFailed:
    """Return the error for a document."""
    return ActionFailed("bad-document", f"{where}: {problem}")


def read_json(data: bytes, where: str) -> Any:
    """Parse JSON of at most MANIFEST_LIMIT bytes. Raises ActionFailed."""
    if len(data) > MANIFEST_LIMIT:
        raise bad(where, f"it is larger than {MANIFEST_LIMIT} bytes")
    try:
        text = data.decode()
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_number, parse_float=_finite)
    except RecursionError:
        raise bad(where, "it is nested too deeply") from None
    except ValueError as error:
        kind = "HTML" if data.lstrip()[:1] == b"<" else "not JSON"
        raise bad(where, f"it is {kind}: {error}") from error


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name in fields:
            raise ValueError(f"the field {_shown(name)} occurs twice")
        fields[name] = value
    return fields


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is not a JSON number")


def _finite(text: str) -> float:
    """Return a number that JSON can express."""
    number = float(text)
    return number if math.isfinite(number) else _no_number(text)


class JsonObject:
    """A JSON object with typed access to its fields. `path` is its place in the document."""

    def __init__(self, value: Any, where: str, path: str, known: Sequence[str]) -> None:
        self.where, self._path = where, path
        if not isinstance(value, dict):
            raise self.wrong("", "an object", value)
        self.raw: dict[str, Any] = value
        folded = {name.casefold(): name for name in known}
        for name in value:
            meant = folded.get(name.casefold(), name)
            if meant != name:  # other clients accept it as that field
                raise bad(where, f"the field {self.at(name)!r} must be spelt {meant!r}")

    def get(self, name: str) -> Any:
        """Return the value of a field, None when it is absent."""
        return self.raw.get(name)

    def text(self, name: str, pattern: re.Pattern[str], what: str) -> str:
        """Return a text that matches a pattern, or an empty text."""
        value = self.get(name)
        if value is None or value == "":
            return ""
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise self.wrong(name, what, value)
        return value

    def size(self, name: str, limit: int) -> int:
        """Return a number of bytes."""
        value = self.get(name)
        if type(value) is not int or value < 0:
            raise self.wrong(name, "a number of bytes", value)
        if value > limit:
            raise bad(self.where, f"the field {self.at(name)!r} is {_shown(value)}; the limit is {limit}")
        return value

    def digest(self, name: str) -> ImageDigest:
        """Return a digest."""
        return self.parsed(name, self.get(name))

    def parsed(self, name: str, value: Any) -> ImageDigest:
        """Return a value of this object as a digest."""
        if not isinstance(value, str):
            raise self.wrong(name, "a digest", value)
        try:
            return ImageDigest(value)
        except ValueError as error:
            raise bad(self.where, f"the field {self.at(name)!r}: {error}") from None

    def object(self, name: str, known: Sequence[str] = ()) -> JsonObject | None:
        """Return an object, or None."""
        value = self.get(name)
        return None if value is None else JsonObject(value, self.where, self.at(name), known)

    def items(self, name: str) -> list[tuple[str, Any]]:
        """Return the items of a list with their places; empty when the list is absent."""
        value = self.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.wrong(name, "a list", value)
        return [(f"{name}[{number}]", item) for number, item in enumerate(value)]

    def texts(self, name: str) -> list[str]:
        """Return a list of texts."""
        for place, item in self.items(name):
            if not isinstance(item, str):
                raise self.wrong(place, "a text", item)
        return list(self.get(name) or ())

    def at(self, name: str) -> str:
        """Return the place of a field in the document."""
        return f"{self._path}.{name}" if self._path and name else self._path or name

    def wrong(self, name: str, what: str, value: Any) -> ActionFailed:
        """Return the error for a field with a wrong value."""
        subject = f"the field {self.at(name)!r}" if self.at(name) else "it"
        return bad(self.where, f"{subject} must be {what}, but is {_shown(value)}")


def _shown(value: Any) -> str:
    if value is None:
        return "missing"
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."

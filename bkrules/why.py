"""Why an action would run, or ran: the first leaf of its key that differs from an earlier one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bkrules.errors import MachineLacks

_PATIENCE = 30.0
KEY, PREVIOUS = "key.json", "previous_key.json"
Read = Callable[[str], Mapping[str, Any] | None]
_SHOWN = 72
_ORDER = ("platform/", "env/", "argument/", "input/", "output/", "timeout")


@dataclass(frozen=True)
class Difference:
    """The first leaf in which two keys differ, its two values (None where it is missing), and how many more differ."""

    leaf: str
    old: str | None
    new: str | None
    more: int

    def __str__(self) -> str:
        if self.old is None:
            text = f"{self.leaf} is new: {_short(self.new)}"
        elif self.new is None:
            text = f"{self.leaf} is gone; it was {_short(self.old)}"
        else:
            text = f"{self.leaf} was {_short(self.old)} and is {_short(self.new)}"
        return f"{text} (and {self.more} more)" if self.more else text


def difference(old: Mapping[str, str], new: Mapping[str, str]) -> Difference | None:
    """The first difference of two keys by their leaves, or nothing. Arguments are compared inside of their JSON."""
    found = [
        (name, old.get(name), new.get(name))
        for name in sorted({*old, *new}, key=_place)
        if old.get(name) != new.get(name)
    ]
    if not found:
        return None
    leaf, was, now = found[0]
    more = len(found) - 1
    if leaf.startswith("argument/") and was is not None and now is not None:
        inner = list(_inside(_parsed(was), _parsed(now), ""))
        leaf, was, now = inner[0]
        more += len(inner) - 1
    return Difference(leaf, was, now, more)


def _place(leaf: str) -> tuple[int, str]:
    return next((number for number, start in enumerate(_ORDER) if leaf.startswith(start)), len(_ORDER)), leaf


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _inside(old: Any, new: Any, path: str) -> Iterator[tuple[str, str | None, str | None]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted({*old, *new}):
            if old.get(name) != new.get(name):
                yield from _inside(old.get(name), new.get(name), f"{path}.{name}" if path else name)
    else:
        yield path or "argument", _json(old), _json(new)


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value)


def _short(text: str | None) -> str:
    assert text is not None
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def read_key(place: str, name: str) -> dict[str, Any] | None:
    """The key that a run kept in a folder or at a URL; nothing when it kept none. Raises MachineLacks when neither can be told."""
    try:
        if place.startswith(("http://", "https://")):
            import requests

            answer = requests.get(f"{place}/{name}", timeout=_PATIENCE)
            if answer.status_code == requests.codes.not_found:
                return None
            answer.raise_for_status()
            document: dict[str, Any] = answer.json()
        else:
            with open(f"{place}/{name}", "rb") as file:
                document = json.load(file)
        return document
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise MachineLacks("against", f"cannot read {place}/{name}: {error}", hint="see --against") from error


def explain(key: str | None, leaves: Mapping[str, str], read: Read, *, cached: bool, waits_for: str) -> str:
    """One line. `read` gives what the last build kept: its key, or that which it found when it ran the action anew."""
    if key is None:
        return f"would run: {waits_for} would run first"
    last = read(KEY)
    if cached:
        previous = read(PREVIOUS)
        if last is None or previous is None or last["key"] != key:
            return "cached"
        changed = difference(previous["leaves"], last["leaves"])
        return f"cached; it ran in the last build: {changed or 'its result before was no passed one'}"
    if last is None:
        return "would run: nothing is known of an earlier run"
    changed = difference(last["leaves"], leaves)
    return f"would run: {changed or 'its last result is not in the cache: it did not pass, or was removed'}"


def compare(key: str | None, leaves: Mapping[str, str], read: Read, *, waits_for: str) -> str:
    """One line on how a key differs from that of another run."""
    if key is None:
        return f"not known here: {waits_for} would run first"
    other = read(KEY)
    if other is None:
        return "that run kept no key of it"
    changed = difference(other["leaves"], leaves)
    return f"another key: {changed}" if changed else "the same key"

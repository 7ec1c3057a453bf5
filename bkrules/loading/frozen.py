"""Frozen values: what one file of a workspace loads from another, it cannot change."""

from __future__ import annotations

from collections.abc import Iterable
from types import BuiltinMethodType
from typing import Any

from bkrules.loading.meter import Refused
from bkrules.loading.values import Bound, Function

_identity = object.__hash__  # like id(), whose audit event would count as an escape


class Frozen:
    """The frozen lists and dictionaries of a workspace, each with the file that made it."""

    def __init__(self) -> None:
        self._owners: dict[int, tuple[object, str]] = {}  # with the objects, so that their identities stay theirs

    def freeze(self, values: Iterable[object], file: str) -> None:
        """Freeze all that `values` reach; it belongs to `file`."""
        todo = list(values)
        seen: set[int] = set()
        while todo:
            value = todo.pop()
            if _identity(value) in seen:
                continue
            seen.add(_identity(value))
            if isinstance(value, list | dict):
                self._owners.setdefault(_identity(value), (value, file))
            if isinstance(value, dict):
                todo += value.values()
            elif isinstance(value, list | tuple | type({}.values()) | type({}.items())):
                todo += value
            elif isinstance(value, Function | Bound):
                todo += value.below()
            elif isinstance(value, BuiltinMethodType):
                todo.append(value.__self__)

    def changeable(self, value: Any) -> Any:
        """Return a value that may be changed. Raises Refused for a frozen one."""
        owner = self._owners.get(_identity(value))
        if owner is not None:
            kind = type(value).__name__
            raise Refused(
                "frozen",
                f"the {kind} belongs to {owner[1]} and cannot be changed by others",
                f"change a copy of it, {kind}(...)",
            )
        return value

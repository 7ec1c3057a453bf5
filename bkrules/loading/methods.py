"""The methods of text, numbers, lists, tuples and dictionaries in build files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from bkrules.loading.frozen import Frozen
from bkrules.loading.meter import METHODS, Meter, charge_method, kind_of, size_of
from bkrules.loading.pure import Builtins
from bkrules.loading.values import Bound, Kind

_MUTATORS = {
    *("append", "extend", "insert", "pop", "remove", "clear", "sort", "reverse", "update", "setdefault", "popitem")
}
_NOT_OF_TYPES = _MUTATORS | {"copy", "join", "replace", "center", "ljust", "rjust", "zfill", "expandtabs"}


class Methods:
    """The methods of values, which charge their costs to the meter and change no frozen value."""

    def __init__(self, meter: Meter, frozen: Frozen, builtins: Builtins) -> None:
        self._meter = meter
        self._frozen = frozen
        self._builtins = builtins

    def method(self, value: Any, name: str) -> Any:
        """Return the method of a value or type. Raises AttributeError and TypeError."""
        if isinstance(value, Kind):
            return self._method_of_type(value._type, name)
        if name not in METHODS.get(type(value), ()):
            raise AttributeError(f"a {kind_of(value)} has no attribute {name!r}")
        if name == "join":
            return Bound(lambda items: self._join(value, items), value)
        if name == "sort":
            return Bound(lambda *, key=None, reverse=False: self._sort(value, key, reverse), value)
        if name == "fromkeys":
            return self._builtins.from_keys
        method = getattr(value, name)
        if not callable(method):
            return method

        def call(*args: Any, **named: Any) -> Any:
            if name in _MUTATORS:
                self._frozen.changeable(value)
            if name == "update":
                return value.update(self._builtins.dictionary(*args, **named))
            charge_method(self._meter, value, name, [*args, *named.values()])
            return self._meter.made(method(*args, **named))

        return Bound(call, value)

    def _method_of_type(self, kind: type, name: str) -> Callable[..., Any]:
        if name in _NOT_OF_TYPES or name not in METHODS.get(kind, ()):
            raise TypeError(f"{name}() is called on a value, not on a type")
        if name == "fromkeys":
            return self._builtins.from_keys

        def call(value: Any, *args: Any, **named: Any) -> Any:
            if not isinstance(value, kind):
                raise TypeError(f"{kind.__name__}.{name}() is called on a {kind.__name__}")
            return self.method(value, name)(*args, **named)

        return call

    def _sort(self, value: list[Any], key: Any, reverse: Any) -> None:
        self._frozen.changeable(value)
        value[:] = self._builtins.sorted_list(value, key=key, reverse=reverse)

    def _join(self, separator: str, items: Iterable[str]) -> str:
        parts = self._meter.items(items)
        self._meter.charge(sum(1 + size_of(part) + size_of(separator) for part in parts))
        return separator.join(parts)

"""The builtins of build files: those of Python whose results depend on their arguments alone.

`set`, `hash`, `id`, `repr` of objects and the like are left out: their order or value changes from run to run.
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from bkrules.loading.meter import Meter, Refused, kind_of, number_of
from bkrules.loading.operations import Operations
from bkrules.loading.values import Kind

_RANGE = 1_000_000
_CONVERSIONS: Mapping[int, Callable[[object], str]] = {ord("s"): str, ord("r"): repr, ord("a"): ascii}
_QUOTING = (ord("r"), ord("a"))
_WIDE = re.compile(r"\d{5}")


class Builtins:
    """The pure builtins, which charge their costs to the meter."""

    def __init__(self, meter: Meter, operations: Operations) -> None:
        self._meter = meter
        self._operations = operations

    def scope(self) -> dict[str, Any]:
        """Return the builtins by name."""
        items = self._meter.items
        return {
            "False": False,
            "None": None,
            "True": True,
            "abs": abs,
            "all": lambda values: all(items(values)),
            "any": lambda values: any(items(values)),
            "bool": Kind(bool, bool),
            "dict": Kind(dict, self.dictionary),
            "divmod": divmod,
            "enumerate": lambda values, start=0: list(enumerate(items(values), start)),
            "filter": lambda test, values: [
                item for item in items(values) if (test(item) if test is not None else item)
            ],
            "int": Kind(int, self._int),
            "isinstance": self._isinstance,
            "len": len,
            "list": Kind(list, lambda values=(): items(values)),
            "map": lambda function, *values: [function(*some) for some in zip(*map(items, values), strict=False)],
            "max": lambda *values, **named: self._extreme(max, values, **named),
            "min": lambda *values, **named: self._extreme(min, values, **named),
            "range": _range,
            "reversed": lambda values: items(values)[::-1],
            "round": _round,
            "sorted": lambda values, *, key=None, reverse=False: self.sorted_list(values, key=key, reverse=reverse),
            "str": Kind(str, lambda value="": self.text(value, ord("s"))),
            "sum": self._sum,
            "tuple": Kind(tuple, lambda values=(): tuple(items(values))),
            "zip": lambda *values, strict=False: list(zip(*map(items, values), strict=strict)),
        }

    def text(self, value: Any, conversion: int = -1, spec: str = "") -> str:
        """Return the text of a value, as an f-string has it."""
        size = self._meter.readable(value)
        if _WIDE.search(spec):
            raise Refused("too-large", "a text of that width is too large")
        if conversion in _QUOTING or isinstance(value, list | tuple | dict):
            self._meter.charge(9 * size)  # quoting makes text up to ten times as long
        convert = _CONVERSIONS.get(conversion)
        if convert is not None:
            value = convert(value)
        text: str = self._meter.made(format(value, spec))
        return text

    def mapping(self, value: Any) -> Any:
        """Return the mapping behind two stars in a call."""
        if isinstance(value, dict):
            self._meter.weigh_keys(value, len(value))
        return value

    def pairs(self, parts: Iterable[tuple[Any, ...]]) -> dict[Any, Any]:
        """Return a dictionary of keys with their values and of other dictionaries, each of which is in a tuple."""
        made: dict[Any, Any] = {}
        for part in parts:
            if len(part) == 2:
                self._meter.weigh_key(part[0], len(made))
                made[part[0]] = part[1]
            elif isinstance(part[0], dict):
                self._meter.weigh_keys(part[0], len(made) + len(part[0]))
                made.update(part[0])
            else:
                raise TypeError(f"'{kind_of(part[0])}' is not a dictionary")
        return made

    def dictionary(self, *values: Any, **named: Any) -> dict[Any, Any]:
        """Return a dictionary, as Python's `dict` does."""
        if not values:
            return self.pairs([(named,)])
        if len(values) > 1:
            raise TypeError(f"dict() takes one positional argument, but was given {len(values)}")
        if isinstance(values[0], dict):
            return self.pairs([(values[0],), (named,)])
        pairs = [tuple(self._meter.items(pair)) for pair in self._meter.items(values[0])]
        if any(len(pair) != 2 for pair in pairs):
            raise ValueError("a dictionary is made of pairs")
        return self.pairs([*pairs, (named,)])

    def from_keys(self, keys: Iterable[Any], value: Any = None) -> dict[Any, Any]:
        """Return a dictionary in which each key has the same value."""
        return self.pairs([(key, value) for key in self._meter.items(keys)])

    def sorted_list(self, values: Iterable[Any], *, key: Any, reverse: Any) -> list[Any]:
        """Return a sorted list of values."""
        listed = self._meter.items(values)
        if key is None:
            self._meter.weigh_order(listed)
            return sorted(listed, reverse=reverse)
        keys = [key(value) for value in listed]
        self._meter.weigh_order(keys)
        return [listed[number] for number in sorted(range(len(listed)), key=keys.__getitem__, reverse=reverse)]

    def _int(self, *values: Any, **named: Any) -> int:
        for value in values:
            number_of(value)
        number: int = self._meter.made(int(*values, **named))
        return number

    def _isinstance(self, value: object, kinds: Any) -> bool:
        named = self._meter.items(kinds) if isinstance(kinds, tuple) else [kinds]
        if not all(isinstance(kind, Kind) for kind in named):
            raise TypeError("isinstance() takes str, int, bool, list, tuple, dict, or a tuple of them")
        return isinstance(value, tuple(kind._type for kind in named))

    def _extreme(self, choose: Any, values: tuple[Any, ...], *, key: Any = None, **default: Any) -> Any:
        listed = self._meter.items(values[0]) if len(values) == 1 else list(values)
        keys = listed if key is None else [key(value) for value in listed]
        for key_of_value in keys:
            self._meter.weigh(key_of_value)
        if not listed:
            return choose(listed, **default)
        return listed[choose(range(len(listed)), key=keys.__getitem__)]

    def _sum(self, values: Iterable[Any], start: Any = 0) -> Any:
        if isinstance(start, str):
            raise TypeError("sum() does not join text; use ''.join()")
        total = start
        for item in self._meter.items(values):
            total = self._operations.operate("+", total, item)
        return total


def _range(*numbers: int) -> range:
    made = range(*numbers)
    try:
        if len(made) <= _RANGE:
            return made
    except OverflowError:
        pass
    raise Refused("too-large", f"a range of more than {_RANGE:,} numbers is too large")


def _round(number: Any, digits: int | None = None) -> Any:
    if isinstance(digits, int) and abs(digits) > 1000:
        raise Refused("too-large", "that many digits are too many")
    return builtins.round(number, digits)

"""The meter of loading: charges the cost of each operation on values before the operation runs.

One step is about a microsecond of work or 64 bytes of memory, whichever is more. A limit of steps is not a clock, so a
file that is refused on one machine is refused on every other. Values share parts: an operation that walks a value (a
hash, a comparison, a text) walks a shared part once for each path to it, and the meter charges it as often.
"""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sized
from types import MappingProxyType
from typing import Any

STEPS = 10_000_000
BITS = 1_024
"""The limit of a number's size. An operation on two numbers of this size takes no more than a step."""
DEPTH = 50
"""The limit of nested lists, tuples and dictionaries in operations that walk them."""
CALLS = 100
"""The limit of nested calls of functions of build files."""
MOST_BYTES = 8 << 20
"""The limit of a build file's size, in bytes."""
_FRAMES = 3_000
"""The recursion limit: more than loading ever needs, so that its own limits, which do not depend on the caller's stack,
apply first.
"""
_NUMERAL = 2_000
_TEXT = str
_ATOMS = frozenset((int, float, bool, type(None)))
VIEWS: tuple[Any, ...] = (type({}.keys()), type({}.values()), type({}.items()))
_KEYS, _VALUES, _ITEMS = VIEWS
_WALKED = frozenset((list, tuple, dict, *VIEWS))
_LISTED: tuple[Any, ...] = (list, tuple, _VALUES)


def raise_recursion_limit() -> None:
    """Raise Python's recursion limit above all that loading needs."""
    sys.setrecursionlimit(max(sys.getrecursionlimit(), _FRAMES))


class Refused(Exception):
    """An operation of a build file is not allowed. Its place is found from the traceback."""

    def __init__(self, reason: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.hint = hint


class _Shown(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother, self.maxlong = 3, 200, 200, 100

    def repr_str(self, x: str, level: int) -> str:
        return super().repr_str(x, level) if len(x) > self.maxstring else repr(x)

    def repr_instance(self, x: object, level: int) -> str:
        return repr(x) if x is None or isinstance(x, bool | int | float) else f"<{kind_of(x)}>"


shown: Callable[[object], str] = _Shown().repr
"""The text of a value for a message, which is short, however large the value is."""


class Meter:
    """Counts the steps of one file at a time."""

    def __init__(self) -> None:
        self._left = STEPS

    def start(self) -> None:
        """Reset the count."""
        self._left = STEPS

    def charge(self, steps: int) -> None:
        """Charge work before it is done. Raises Refused when it is too much for one file."""
        self._left -= steps
        if self._left < 0:
            raise Refused("too-long", f"loading takes more than {STEPS:,} steps", "declare less in one file")

    def weigh(self, value: Any, depth: int = 0) -> int:
        """Charge the hash, comparison or copy of a value with all its parts. Return the charged steps.

        Raises TypeError for a value that is nested too deeply.
        """
        kind = type(value)
        if kind is _TEXT:
            steps: int = 1 + (len(value) >> 6)
            self.charge(steps)
            return steps
        self.charge(1)
        if kind not in _WALKED:
            return 1
        if depth > DEPTH:
            raise TypeError(f"a value is nested more than {DEPTH} deep")
        steps = 1
        if isinstance(value, _KEYS | dict):
            steps += self.weigh_keys(value, len(value))
        if not isinstance(value, _KEYS):
            for item in value.values() if isinstance(value, dict) else value:
                steps += self.weigh(item, depth + 1)
        return steps

    def weigh_key(self, key: object, others: int) -> int:
        """Charge a lookup of `key` in a dictionary with `count` keys. Return the charged steps.

        Python's hash of text is secret, so keys of text do not collide. All other keys can be chosen so that each
        collides with all others.
        """
        steps = self.weigh(key)
        if type(key) is not _TEXT and others > 63:
            more = steps * (others >> 6)
            self.charge(more)
            steps += more
        return steps

    def weigh_keys(self, keys: Iterable[object], count: int) -> int:
        """Charge the insertion of a dictionary's keys into one with `count` keys. Return the charged steps."""
        return sum(self.weigh_key(key, count) for key in keys)

    def weigh_search(self, value: Any, container: Any) -> None:
        """Charge the search for a value in a container, text in text included."""
        if isinstance(container, str):
            size = len(value) if isinstance(value, str) else 1
            self.charge(1 + (len(container) >> 6) + (len(container) * size >> 8))
        elif isinstance(container, dict | _KEYS):
            self.weigh_key(value, len(container))
        elif isinstance(container, _LISTED):
            self.charge(1 + (self.weigh(value) * len(container) >> 4))
        elif isinstance(container, _ITEMS):
            self.charge(self.weigh(value) * (1 + (len(container) >> 6)))
        elif isinstance(container, range):
            self.charge(1 if type(value) is int else 1 + (len(container) >> 4))
        else:
            self.charge(1)

    def weigh_comparison(self, left: Any, right: Any) -> None:
        """Charge the comparison of two values, which walks both at once."""
        if type(left) in _ATOMS or type(right) in _ATOMS:
            self.charge(1)
        elif type(left) is _TEXT:
            self.charge(1 + (min(len(left), len(right)) >> 6 if type(right) is _TEXT else 0))
        else:
            self.weigh(left)

    def weigh_order(self, values: list[Any]) -> None:
        """Charge the sorting of these values."""
        self.charge(sum(map(self.weigh, values)) * max(1, len(values).bit_length() // 4))

    def made(self, value: Any) -> Any:
        """Charge the size of a text, a list or the like that has just been made. Return the value.

        Raises Refused for a number that is too large.
        """
        if isinstance(value, str | list | tuple):
            self.charge(size_of(value))
        elif isinstance(value, int) and value.bit_length() > BITS:
            raise too_many_bits()
        return value

    def items(self, values: Iterable[Any]) -> list[Any]:
        """Return the values as a new list, charged."""
        if isinstance(values, Sized):
            self.charge(1 + len(values))
            return list(values)
        return list(values)  # only for Python's message about a value that is not iterable

    # Text.

    def readable(self, value: Any, depth: int = 0) -> int:
        """Check that the value's text is the same in every run, and charge it. Return the charged steps.

        Raises TypeError for functions and types.
        """
        if isinstance(value, str):
            steps = 1 + size_of(value)
            self.charge(steps)
            return steps
        self.charge(1)
        if value is None or isinstance(value, int | float):
            return 1
        if depth > DEPTH:
            raise TypeError(f"a value is nested more than {DEPTH} deep")
        if isinstance(value, dict):
            return 1 + sum(
                self.readable(key, depth + 1) + self.readable(item, depth + 1) for key, item in value.items()
            )
        if isinstance(value, range):
            return 1
        if type(value) not in _WALKED:
            raise TypeError(f"a {kind_of(value)} has no text")
        return 1 + sum(self.readable(item, depth + 1) for item in value)

    def plain(self, value: Any, depth: int = 0) -> Any:
        """Return a copy of a value that consists of text, numbers, lists and dictionaries.

        Raises TypeError for any other value, and for text that no file and no command can contain: with a NUL, or with
        half a character.
        """
        if type(value) is _TEXT:
            self.charge(1 + (len(value) >> 6))
            if "\0" in value or not (value.isascii() or _is_whole(value)):
                raise TypeError(f"has a character in it that no file or command can hold: {shown(value)}")
            return value
        self.charge(1)
        if value is None or isinstance(value, str | int | float):
            return value
        if depth > DEPTH:
            raise TypeError(f"is nested more than {DEPTH} deep")
        if isinstance(value, list):
            return [self.plain(item, depth + 1) for item in value]
        if isinstance(value, tuple):
            return tuple([self.plain(item, depth + 1) for item in value])
        if isinstance(value, dict):
            self.weigh_keys(value, len(value))
            if not all(type(key) is _TEXT for key in value):  # JSON, of which keys are made, has no others
                raise TypeError(f"must have strings as the keys of its dictionaries, but has {shown(value)}")
            return {self.plain(key, depth + 1): self.plain(item, depth + 1) for key, item in value.items()}
        raise TypeError(f"must be made of text, numbers, lists and dictionaries, but has a {kind_of(value)} in it")


def size_of(value: object, times: int = 1) -> int:
    """Return the cost in steps of a text, or of a list without its parts, times `times`."""
    if isinstance(value, str):
        return len(value) * times >> 4  # four bytes each at most
    return len(value) * times >> 3 if isinstance(value, list | tuple) else 0


def _is_whole(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def kind_of(value: object) -> str:
    """Return the type of a value, in the words of build files."""
    if isinstance(value, type) or getattr(type(value), "is_type", False):
        return "type"
    return "function" if callable(value) else type(value).__name__


def too_many_bits() -> Refused:
    """Return the error for a number that is too large."""
    return Refused("too-large", f"a number of more than {BITS:,} bits is too large")


def number_of(text: object) -> None:
    """Check the argument of `int()`. Raises Refused for a numeral that takes long to parse."""
    if isinstance(text, str) and len(text) > _NUMERAL:
        raise Refused("too-large", f"a number of more than {_NUMERAL:,} characters is too large")


# The cost of methods beyond their object and their arguments, which all of them may have to read.

_SEARCHES = {
    *("find", "rfind", "index", "rindex", "count", "replace", "split", "rsplit", "partition", "rpartition"),
    *("strip", "lstrip", "rstrip"),
}
_WIDTHS = {"center", "ljust", "rjust", "zfill"}


def charge_method(meter: Meter, value: object, name: str, arguments: Iterable[Any]) -> None:
    """Charge the call of a method of a built-in type."""
    arguments = list(arguments)
    if isinstance(value, str):
        _charge_text(meter, value, name, arguments)
    elif isinstance(value, dict):
        _charge_dict(meter, value, name, arguments)
    elif isinstance(value, list | tuple | range):
        _charge_list(meter, value, name, arguments)
    else:
        meter.charge(1 + (len(value) if isinstance(value, Sized) else 0))
        for argument in arguments:
            meter.weigh(argument)


def _charge_text(meter: Meter, value: str, name: str, arguments: list[Any]) -> None:
    meter.charge(1 + size_of(value))
    for argument in arguments:
        meter.weigh(argument)
        if name in _SEARCHES and isinstance(argument, str):
            meter.charge(len(value) * len(argument) >> 8)
        elif name in _WIDTHS and isinstance(argument, int):
            meter.charge(max(argument, 0) >> 4)
    if name == "expandtabs":
        width = max([8, *(argument for argument in arguments if isinstance(argument, int))])
        meter.charge(value.count("\t") * width >> 4)
    elif name in ("split", "rsplit", "splitlines"):
        meter.charge(len(value))
    elif name == "replace" and len(arguments) > 1 and isinstance(arguments[0], str) and isinstance(arguments[1], str):
        meter.charge(value.count(arguments[0]) * len(arguments[1]) >> 4)


def _charge_dict(meter: Meter, value: dict[Any, Any], name: str, arguments: list[Any]) -> None:
    meter.charge(1)
    if name == "copy":
        meter.weigh_keys(value, len(value))
    elif arguments:
        meter.weigh_key(arguments[0], len(value))
    if name == "pop":
        meter.charge(len(value) >> 8)  # the slot stays, and the next loop over the dictionary walks it


def _charge_list(meter: Meter, value: Any, name: str, arguments: list[Any]) -> None:
    meter.charge(1)
    if name in ("index", "count", "remove") and arguments:
        meter.weigh_search(arguments[0], value)
    elif name == "extend" and arguments and isinstance(arguments[0], Sized):
        meter.charge(len(arguments[0]))
    elif name in ("copy", "reverse"):
        meter.charge(size_of(value))
    if name in ("insert", "remove") or (name == "pop" and arguments):
        meter.charge(len(value) >> 6)


METHODS: Mapping[type, frozenset[str]] = MappingProxyType(
    {
        kind: frozenset(name for name in dir(kind) if not name.startswith("_"))
        - {"mapping", "as_integer_ratio", "conjugate"}
        for kind in (str, int, bool, float, list, tuple, dict, range, *VIEWS)
    }
)
"""The attributes of each type that build files may use, unless the list of syntax refuses them."""

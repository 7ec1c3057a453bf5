"""What a build file computes with: pure builtins, and the checks that the syntax is compiled to.

Loading always ends: there is no `while`, no recursion and nothing lazy, and steps and sizes are counted. Nothing has a
text that changes from run to run, and what a file has loaded from another cannot be changed.
"""

from __future__ import annotations

import builtins
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import BuiltinMethodType, FunctionType
from typing import Any

STEPS = 10_000_000
_identity = object.__hash__  # as id(), whose audit event would be taken for an escape
_RANGE = 1_000_000
_BITS = 10_000
_DEPTH = 50
_VIEWS: tuple[type, ...] = (type({}.keys()), type({}.values()), type({}.items()))
_CONVERSIONS: Mapping[int, Callable[[object], str]] = {ord("s"): str, ord("r"): repr, ord("a"): ascii}
_SETS = (set, frozenset)
_SCALARS = (str, int, float, type(None))
_MUTATORS = {
    "append",
    "extend",
    "insert",
    "pop",
    "remove",
    "clear",
    "sort",
    "reverse",
    "update",
    "setdefault",
    "popitem",
}
_WIDTHS = {"center", "ljust", "rjust", "zfill", "expandtabs"}
_WIDE = re.compile(r"\d{5}")
_WIDE_PERCENT = re.compile(r"%(?:\([^)]*\))?[-#0 +.\d]*(?:\d{5}|\*)")
_OPERATIONS: Mapping[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "%": operator.mod,
    "**": operator.pow,
    "<<": operator.lshift,
    "|": operator.or_,
    "&": operator.and_,
    "^": operator.xor,
    "+=": operator.iadd,
    "-=": operator.isub,
    "*=": operator.imul,
    "%=": operator.imod,
    "**=": operator.ipow,
    "<<=": operator.ilshift,
    "|=": operator.ior,
    "&=": operator.iand,
    "^=": operator.ixor,
}


class Refused(Exception):
    """What a build file did is not allowed. Its place is found from the traceback."""

    def __init__(self, reason: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.hint = hint


class Kind:
    """A type as build files see it: it makes values, its methods can be named, and `isinstance` knows it."""

    __slots__ = ("_make", "_type")

    def __init__(self, kind: type, make: Callable[..., Any]) -> None:
        self._type = kind
        self._make = make

    def __call__(self, *args: Any, **given: Any) -> Any:
        return self._make(*args, **given)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._type, name)


class Function:
    """A function of a build file. It cannot be called while it runs, as in Starlark."""

    __slots__ = ("_body", "_key", "_runtime")

    def __init__(self, runtime: Runtime, key: str, body: FunctionType) -> None:
        self._runtime = runtime
        self._key = key
        self._body = body

    def __call__(self, *args: Any, **given: Any) -> Any:
        runtime, key = self._runtime, self._key
        if key in runtime.running:
            raise Refused("recursion", f"{self._body.__name__} is called while it runs", "loop over a list instead")
        runtime.charge(1)
        runtime.running.add(key)
        try:
            return self._body(*args, **given)
        finally:
            runtime.running.discard(key)

    def below(self) -> Iterator[object]:
        """What the function holds: defaults, and the variables of the functions around it."""
        yield from self._body.__defaults__ or ()
        yield from (self._body.__kwdefaults__ or {}).values()
        for cell in self._body.__closure__ or ():
            try:
                yield cell.cell_contents
            except ValueError:  # a variable that was never assigned
                continue


class Runtime:
    """The builtins of build files. `start()` comes before each file; what `freeze` was given stays frozen."""

    def __init__(self) -> None:
        self._left = STEPS
        self.running: set[str] = set()
        self._frozen: dict[int, tuple[object, str]] = {}  # the objects live here, so that an identity stays theirs
        self.scope = {**self._pure(), **self._checks()}

    def start(self) -> None:
        """Begin to count anew."""
        self._left = STEPS
        self.running.clear()

    def charge(self, steps: int) -> None:
        """Count work that is about to be done. Raises Refused when it is too much for one file."""
        self._left -= steps
        if self._left < 0:
            raise Refused("too-long", f"loading takes more than {STEPS:,} steps", "declare less in one file")

    def freeze(self, values: Iterable[object], file: str) -> None:
        """From now on nothing that `values` reach can be changed; it belongs to `file`."""
        todo = list(values)
        seen: set[int] = set()
        while todo:
            value = todo.pop()
            if _identity(value) in seen:
                continue
            seen.add(_identity(value))
            if isinstance(value, list | dict):
                self._frozen.setdefault(_identity(value), (value, file))
            if isinstance(value, dict):
                todo += value.values()
            elif isinstance(value, list | tuple | type({}.values()) | type({}.items())):
                todo += value
            elif isinstance(value, Function | Bound):
                todo += value.below()
            elif isinstance(value, BuiltinMethodType):
                todo.append(value.__self__)

    # What the syntax is compiled to.

    def _checks(self) -> dict[str, Any]:
        return {
            "__step": self._step,
            "__function": self._function,
            "__operate": self._operate,
            "__operate_at": self._operate_at,
            "__method": self._method,
            "__mutable": self._mutable,
            "__text": self._text,
            "__items": self._items,
            "__sized": self._sized,
        }

    def _step(self) -> bool:
        self.charge(1)
        return True

    def _function(self, key: str) -> Callable[[FunctionType], Function]:
        return lambda body: Function(self, key, body)

    def _operate(self, name: str, left: Any, right: Any) -> Any:
        if name.endswith("=") and isinstance(left, list | dict):
            self._mutable(left)
        self._check_size(name.removesuffix("="), left, right)
        value = _OPERATIONS[name](left, right)
        if isinstance(value, _SETS):
            raise TypeError("the order of a set changes from run to run; use a list or a dict")
        return value

    def _sized(self, value: Any) -> Any:
        self.charge(len(value) >> 4)
        return value

    def _operate_at(self, name: str, container: Any, index: Any, right: Any) -> None:
        self._mutable(container)
        container[index] = self._operate(name, container[index], right)

    def _check_size(self, name: str, left: Any, right: Any) -> None:
        if name == "*":
            for one, times in ((left, right), (right, left)):
                if isinstance(one, str | list | tuple) and isinstance(times, int):
                    self.charge(len(one) * max(times, 0))
        elif name == "+" and isinstance(left, str | list | tuple):
            self.charge((len(left) >> 4) + (len(right) if isinstance(right, str | list | tuple) else 0))
        elif name == "%" and isinstance(left, str):
            self.readable(right)
            if _WIDE_PERCENT.search(left):
                raise Refused("too-large", "a text of that width is too large")
        if name in ("*", "**", "<<") and isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length()
            size = {"*": bits + right.bit_length(), "**": bits * right, "<<": bits + right}[name]
            if size > _BITS:
                raise Refused("too-large", f"a number of more than {_BITS} bits is too large")

    def _mutable(self, value: Any) -> Any:
        owner = self._frozen.get(_identity(value))
        if owner is not None:
            kind = type(value).__name__
            raise Refused(
                "frozen",
                f"the {kind} belongs to {owner[1]} and cannot be changed by others",
                f"change a copy of it, {kind}(...)",
            )
        return value

    def _method(self, value: Any, name: str) -> Callable[..., Any]:
        if isinstance(value, Kind):
            raise TypeError(f"{name}() is called on a value, not on a type")
        method = getattr(value, name)
        if name == "join":
            return lambda items: self._join(value, items)

        def call(*args: Any, **given: Any) -> Any:
            if name in _MUTATORS:
                self._mutable(value)
            self._charge_method(value, name, args)
            return method(*args, **given)

        return Bound(call, value)

    def _charge_method(self, value: Any, name: str, args: tuple[Any, ...]) -> None:
        if name in _WIDTHS and args and isinstance(args[0], int):
            self.charge(max(args[0], 0) * (value.count("\t") if name == "expandtabs" else 1))
        elif name == "replace" and len(args) > 1 and isinstance(args[0], str) and isinstance(args[1], str):
            self.charge(value.count(args[0]) * len(args[1]))
        else:
            self.charge(1 + sum(len(one) for one in args if isinstance(one, str | list | tuple | dict | range)))
            if name == "copy":
                self._sized(value)

    def _join(self, separator: str, items: Iterable[str]) -> str:
        parts = self._items(items)
        self.charge(sum(len(one) + len(separator) for one in parts if isinstance(one, str)))
        return separator.join(parts)

    def _text(self, value: Any, conversion: int = -1, spec: str = "") -> str:
        self.readable(value)
        if _WIDE.search(spec):
            raise Refused("too-large", "a text of that width is too large")
        convert = _CONVERSIONS.get(conversion)
        if convert is not None:
            value = convert(value)
        return format(value, spec)

    def readable(self, value: Any, depth: int = 0) -> None:
        """Check that the value's text says the same in every run. Raises TypeError for functions and types."""
        if isinstance(value, _SCALARS):
            self.charge(1 + (len(value) >> 4 if isinstance(value, str) else 0))
            return
        if depth > _DEPTH:
            raise TypeError(f"a value is nested more than {_DEPTH} deep")
        if isinstance(value, dict):
            value = [*value.keys(), *value.values()]
        elif not isinstance(value, (list, tuple, range, *_VIEWS)):
            raise TypeError(f"a {_kind(value)} has no text")
        if not isinstance(value, range):
            for item in value:
                self.readable(item, depth + 1)

    def plain(self, value: Any, depth: int = 0) -> Any:
        """A copy of a value that consists of text, numbers, lists and dictionaries. Raises TypeError for another."""
        self.charge(1)
        if isinstance(value, _SCALARS):
            return value
        if depth > _DEPTH:
            raise TypeError(f"is nested more than {_DEPTH} deep")
        if isinstance(value, list):
            return [self.plain(item, depth + 1) for item in value]
        if isinstance(value, tuple):
            return tuple(self.plain(item, depth + 1) for item in value)
        if isinstance(value, dict):
            return {self.plain(key, depth + 1): self.plain(item, depth + 1) for key, item in value.items()}
        raise TypeError(f"must be made of text, numbers, lists and dictionaries, but has a {_kind(value)} in it")

    # The builtins. Without set, hash, id, repr of objects and the like: their order or value changes from run to run.

    def _pure(self) -> dict[str, Any]:
        items = self._items
        return {
            "False": False,
            "None": None,
            "True": True,
            "abs": abs,
            "all": lambda values: all(items(values)),
            "any": lambda values: any(items(values)),
            "bool": Kind(bool, bool),
            "dict": Kind(dict, self._dict),
            "divmod": divmod,
            "enumerate": lambda values, start=0: list(enumerate(items(values), start)),
            "filter": lambda test, values: list(filter(test, items(values))),
            "int": Kind(int, int),
            "isinstance": _isinstance,
            "len": len,
            "list": Kind(list, lambda values=(): items(values)),
            "map": lambda function, *values: [function(*some) for some in zip(*map(items, values), strict=False)],
            "max": lambda *values, **given: max(*_unpacked(values, items), **given),
            "min": lambda *values, **given: min(*_unpacked(values, items), **given),
            "range": _range,
            "reversed": lambda values: items(values)[::-1],
            "round": _round,
            "sorted": lambda values, *, key=None, reverse=False: sorted(items(values), key=key, reverse=reverse),
            "str": Kind(str, lambda value="": self._text(value, ord("s"))),
            "sum": self._sum,
            "tuple": Kind(tuple, lambda values=(): tuple(items(values))),
            "zip": lambda *values, strict=False: list(zip(*map(items, values), strict=strict)),
        }

    def _items(self, values: Iterable[Any]) -> list[Any]:
        found = list(values)
        self.charge(1 + len(found))
        return found

    def _dict(self, *values: Any, **given: Any) -> dict[Any, Any]:
        made = dict(*values, **given)
        self.charge(1 + len(made))
        return made

    def _sum(self, values: Iterable[Any], start: Any = 0) -> Any:
        if isinstance(start, str):
            raise TypeError("sum() does not join text; use ''.join()")
        total = start
        for item in self._items(values):
            total = self._operate("+", total, item)
        return total


class Bound:
    """A method of a value that may be frozen later; `below` is that value."""

    __slots__ = ("_call", "_owner")

    def __init__(self, call: Callable[..., Any], owner: object) -> None:
        self._call = call
        self._owner = owner

    def __call__(self, *args: Any, **given: Any) -> Any:
        return self._call(*args, **given)

    def below(self) -> Iterator[object]:
        """What the method changes."""
        yield self._owner


def _kind(value: object) -> str:
    if isinstance(value, Kind | type):
        return "type"
    return "function" if callable(value) else type(value).__name__


def _isinstance(value: object, kinds: Any) -> bool:
    named = kinds if isinstance(kinds, tuple) else (kinds,)
    if not all(isinstance(kind, Kind) for kind in named):
        raise TypeError("isinstance() takes str, int, bool, list, tuple, dict, or a tuple of them")
    return isinstance(value, tuple(kind._type for kind in named))


def _unpacked(values: tuple[Any, ...], items: Callable[[Any], list[Any]]) -> tuple[Any, ...]:
    return (items(values[0]),) if len(values) == 1 else values


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


BUILTINS = tuple(Runtime()._pure())

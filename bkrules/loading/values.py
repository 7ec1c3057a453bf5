"""The values of build files: pure builtins, and the operations that the syntax is compiled to.

Every operation on values whose cost grows with them goes through the `Runtime`, which charges it to the meter first.
Loading always ends: there is no `while`, no recursion and no lazy value, and steps and sizes are counted. No text
changes from run to run, and no file can change values that it loads from another.
"""

from __future__ import annotations

import builtins
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from types import BuiltinMethodType, FunctionType
from typing import Any

from bkrules.loading.meter import (
    BITS,
    CALLS,
    METHODS,
    VIEWS,
    Meter,
    Refused,
    charge_method,
    kind_of,
    number_of,
    size_of,
    too_many_bits,
)

_identity = object.__hash__  # like id(), whose audit event would count as an escape
_RANGE = 1_000_000
_CONVERSIONS: Mapping[int, Callable[[object], str]] = {ord("s"): str, ord("r"): repr, ord("a"): ascii}
_QUOTING = (ord("r"), ord("a"))
_MUTATORS = {
    *("append", "extend", "insert", "pop", "remove", "clear", "sort", "reverse", "update", "setdefault", "popitem")
}
_NOT_OF_TYPES = _MUTATORS | {"copy", "join", "replace", "center", "ljust", "rjust", "zfill", "expandtabs"}
_WIDE = re.compile(r"\d{5}")
_WIDE_PERCENT = re.compile(r"%(?:\([^)]*\))?[-#0 +.\d]*(?:\d{5}|\*)")
_WIDER_PERCENT = re.compile(r"%(?:\([^)]*\))?[-#0 +.\d]*\d{3}")
_OPERATIONS: Mapping[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
    "@": operator.matmul,
    "**": operator.pow,
    "<<": operator.lshift,
    ">>": operator.rshift,
    "|": operator.or_,
    "&": operator.and_,
    "^": operator.xor,
    "+=": operator.iadd,
    "*=": operator.imul,
    "|=": operator.ior,
}
"""The operations of operators. Those with `=` change a list or dictionary in place; for other values they equal those without."""
_COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class Kind:
    """A type of build files: it makes values, its methods can be named, and `isinstance` knows it."""

    __slots__ = ("_make", "_type")
    is_type = True

    def __init__(self, kind: type, make: Callable[..., Any]) -> None:
        self._type = kind
        self._make = make

    def __call__(self, *args: Any, **given: Any) -> Any:
        return self._make(*args, **given)


class Function:
    """A function of a build file. It cannot be called while it runs, as in Starlark. A call itself costs `cost` steps."""

    __slots__ = ("_body", "_cost", "_key", "_runtime")

    def __init__(self, runtime: Runtime, key: str, cost: int, body: FunctionType) -> None:
        self._runtime = runtime
        self._key = key
        self._cost = cost
        self._body = body

    def __call__(self, *args: Any, **given: Any) -> Any:
        runtime, key = self._runtime, self._key
        if key in runtime.running:
            raise Refused("recursion", f"{self._body.__name__} is called while it runs", "loop over a list instead")
        if len(runtime.running) >= CALLS:
            raise Refused("too-deep", f"more than {CALLS} nested calls", "nest fewer calls")
        runtime.meter.charge(self._cost)
        runtime.running.add(key)
        try:
            return self._body(*args, **given)
        finally:
            runtime.running.discard(key)

    def below(self) -> Iterator[object]:
        """Return the values that the function holds: defaults, and the variables of enclosing functions."""
        yield from self._body.__defaults__ or ()
        yield from (self._body.__kwdefaults__ or {}).values()
        for cell in self._body.__closure__ or ():
            try:
                yield cell.cell_contents
            except ValueError:  # a variable that was never assigned
                continue


class Place:
    """A list or dictionary that is the target of an item assignment."""

    __slots__ = ("_runtime", "_value")

    def __init__(self, runtime: Runtime, value: Any) -> None:
        self._runtime = runtime
        self._value = value

    def __setitem__(self, index: Any, item: Any) -> None:
        self._runtime.store(self._value, index, item)


class Runtime:
    """The builtins of build files. Call `start()` before each file; frozen values stay frozen."""

    def __init__(self) -> None:
        self.meter = Meter()
        self.running: set[str] = set()
        self._frozen: dict[
            int, tuple[object, str]
        ] = {}  # keeps the objects alive, so that their identities stay theirs
        self.scope = {**self._pure(), **self._checks()}

    def start(self) -> None:
        """Reset the count."""
        self.meter.start()
        self.running.clear()

    def plain(self, value: Any) -> Any:
        """Return a copy of a value that consists of text, numbers, lists and dictionaries. Raises TypeError for another."""
        return self.meter.plain(value)

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
                self._frozen.setdefault(_identity(value), (value, file))
            if isinstance(value, dict):
                todo += value.values()
            elif isinstance(value, list | tuple | type({}.values()) | type({}.items())):
                todo += value
            elif isinstance(value, Function | Bound):
                todo += value.below()
            elif isinstance(value, BuiltinMethodType):
                todo.append(value.__self__)

    # The operations that the syntax is compiled to.

    def _checks(self) -> dict[str, Any]:
        return {
            "__step": self._step,
            "__function": self._function,
            "__operate": self._operate,
            "__operate_at": self._operate_at,
            "__compare": self._compare,
            "__weighed": self._weighed,
            "__method": self._method,
            "__place": self._place,
            "__item": self._item,
            "__dict": self._pairs,
            "__mapping": self._mapping,
            "__text": self._text,
            "__items": self.meter.items,
            "__made": self.meter.made,
            "__rest": self._rest,
        }

    def _step(self, cost: int) -> bool:
        self.meter.charge(cost)
        return True

    def _function(self, key: str, cost: int) -> Callable[[FunctionType], Function]:
        return lambda body: Function(self, key, cost, body)

    def _rest(self, *lists: list[Any]) -> bool:
        """Charge the lists made by an assignment to a starred name."""
        self.meter.charge(sum(map(len, lists)))
        return True

    def _weighed(self, value: Any) -> Any:
        """Return an operand of a chain of comparisons. Searching, comparing or hashing it costs no more than all its parts."""
        self.meter.weigh(value)
        if isinstance(value, range):
            self.meter.charge(len(value))
        return value

    def _compare(self, name: str, left: Any, right: Any) -> bool:
        if name in ("in", "not in"):
            self.meter.weigh_search(left, right)
            return (left in right) == (name == "in")
        self.meter.weigh_comparison(left, right)
        return _COMPARISONS[name](left, right)

    def _operate(self, name: str, left: Any, right: Any) -> Any:
        in_place = name[-1] == "=" and isinstance(left, list | dict)
        if in_place:
            self._changeable(left)
        else:
            name = name.removesuffix("=")
        operation = _OPERATIONS.get(name) or _OPERATIONS[name[:-1]]
        if isinstance(left, int) and isinstance(right, int):
            self._check_bits(name, left, right)
            return self.meter.made(operation(left, right))
        self._charge_operation(name, left, right)
        return operation(left, right)

    def _operate_at(self, name: str, container: Any, index: Any, right: Any) -> None:
        self._changeable(container)
        self.store(container, index, self._operate(name, self._item(container, index), right))

    def _check_bits(self, name: str, left: int, right: int) -> None:
        if name in ("*", "**", "<<"):
            bits = left.bit_length()
            size = {"*": bits + right.bit_length(), "**": bits * right, "<<": bits + right}[name]
            if size > BITS:
                raise too_many_bits()

    def _charge_operation(self, name: str, left: Any, right: Any) -> None:
        charge = self.meter.charge
        if name[0] in "|&^-" and (isinstance(left, VIEWS) or isinstance(right, VIEWS)):
            raise TypeError("the order of a set changes from run to run; use a list or a dict")
        if name[0] == "*":
            for one, times in ((left, right), (right, left)):
                if isinstance(one, str | list | tuple) and isinstance(times, int):
                    charge(size_of(one, max(times, 0)))
        elif name == "+=":
            charge(1 + (len(right) if isinstance(right, Sized) else 0))
        elif name == "+":
            charge(1 + size_of(left) + size_of(right))
        elif name[0] == "|" and isinstance(left, dict) and isinstance(right, dict):
            count = len(left) + len(right)
            self.meter.weigh_keys(left, count)
            self.meter.weigh_keys(right, count)
        elif name == "%" and isinstance(left, str):
            self._check_format(left, right)

    def _check_format(self, text: str, values: Any) -> None:
        fields = text.count("%")
        self.meter.charge(1 + size_of(text) + (len(text) * text.count("%(") >> 8))
        size = self.meter.readable(values)
        if _WIDE_PERCENT.search(text):
            raise Refused("too-large", "a text of that width is too large")
        uses = fields if isinstance(values, dict) else 1
        # A width and a precision usually have two digits, and four at most. Quoting makes text up to ten times as long.
        self.meter.charge(13 * fields + 1250 * len(_WIDER_PERCENT.findall(text)) + 10 * size * uses)

    def _changeable(self, value: Any) -> Any:
        owner = self._frozen.get(_identity(value))
        if owner is not None:
            kind = type(value).__name__
            raise Refused(
                "frozen",
                f"the {kind} belongs to {owner[1]} and cannot be changed by others",
                f"change a copy of it, {kind}(...)",
            )
        return value

    def _place(self, value: Any) -> Place:
        return Place(self, self._changeable(value))

    def store(self, value: Any, index: Any, item: Any) -> None:
        """Store a value at an item or a slice of a list or dictionary."""
        if isinstance(value, dict):
            self.meter.weigh_key(index, len(value))
        elif isinstance(value, list) and isinstance(index, slice):
            self.meter.charge(1 + (len(value) >> 3))
            item = self.meter.items(item)
        value[index] = item

    def _item(self, value: Any, index: Any) -> Any:
        if isinstance(value, dict):
            self.meter.weigh_key(index, len(value))
        return value[index]

    def _method(self, value: Any, name: str) -> Any:
        if isinstance(value, Kind):
            return self._method_of_type(value._type, name)
        if name not in METHODS.get(type(value), ()):
            raise AttributeError(f"a {kind_of(value)} has no attribute {name!r}")
        if name == "join":
            return Bound(lambda items: self._join(value, items), value)
        if name == "sort":
            return Bound(lambda *, key=None, reverse=False: self._sort(value, key, reverse), value)
        if name == "fromkeys":
            return self._from_keys
        method = getattr(value, name)
        if not callable(method):
            return method

        def call(*args: Any, **given: Any) -> Any:
            if name in _MUTATORS:
                self._changeable(value)
            if name == "update":
                return value.update(self._dict(*args, **given))
            charge_method(self.meter, value, name, [*args, *given.values()])
            return self.meter.made(method(*args, **given))

        return Bound(call, value)

    def _method_of_type(self, kind: type, name: str) -> Callable[..., Any]:
        if name in _NOT_OF_TYPES or name not in METHODS.get(kind, ()):
            raise TypeError(f"{name}() is called on a value, not on a type")
        if name == "fromkeys":
            return self._from_keys

        def call(value: Any, *args: Any, **given: Any) -> Any:
            if not isinstance(value, kind):
                raise TypeError(f"{kind.__name__}.{name}() is called on a {kind.__name__}")
            return self._method(value, name)(*args, **given)

        return call

    def _isinstance(self, value: object, kinds: Any) -> bool:
        named = self.meter.items(kinds) if isinstance(kinds, tuple) else [kinds]
        if not all(isinstance(kind, Kind) for kind in named):
            raise TypeError("isinstance() takes str, int, bool, list, tuple, dict, or a tuple of them")
        return isinstance(value, tuple(kind._type for kind in named))

    def _sort(self, value: list[Any], key: Any, reverse: Any) -> None:
        self._changeable(value)
        value[:] = self._sorted(value, key=key, reverse=reverse)

    def _join(self, separator: str, items: Iterable[str]) -> str:
        parts = self.meter.items(items)
        self.meter.charge(sum(1 + size_of(one) + size_of(separator) for one in parts))
        return separator.join(parts)

    def _text(self, value: Any, conversion: int = -1, spec: str = "") -> str:
        size = self.meter.readable(value)
        if _WIDE.search(spec):
            raise Refused("too-large", "a text of that width is too large")
        if conversion in _QUOTING or isinstance(value, list | tuple | dict):
            self.meter.charge(9 * size)  # quoting makes text up to ten times as long
        convert = _CONVERSIONS.get(conversion)
        if convert is not None:
            value = convert(value)
        text: str = self.meter.made(format(value, spec))
        return text

    # The builtins, without set, hash, id, repr of objects and the like: their order or value changes from run to run.

    def _pure(self) -> dict[str, Any]:
        items = self.meter.items
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
            "filter": lambda test, values: [one for one in items(values) if (test(one) if test is not None else one)],
            "int": Kind(int, self._int),
            "isinstance": self._isinstance,
            "len": len,
            "list": Kind(list, lambda values=(): items(values)),
            "map": lambda function, *values: [function(*some) for some in zip(*map(items, values), strict=False)],
            "max": lambda *values, **given: self._extreme(max, values, **given),
            "min": lambda *values, **given: self._extreme(min, values, **given),
            "range": _range,
            "reversed": lambda values: items(values)[::-1],
            "round": _round,
            "sorted": lambda values, *, key=None, reverse=False: self._sorted(values, key=key, reverse=reverse),
            "str": Kind(str, lambda value="": self._text(value, ord("s"))),
            "sum": self._sum,
            "tuple": Kind(tuple, lambda values=(): tuple(items(values))),
            "zip": lambda *values, strict=False: list(zip(*map(items, values), strict=strict)),
        }

    def _int(self, *values: Any, **given: Any) -> int:
        for one in values:
            number_of(one)
        number: int = self.meter.made(int(*values, **given))
        return number

    def _mapping(self, value: Any) -> Any:
        """Return the mapping behind two stars in a call."""
        if isinstance(value, dict):
            self.meter.weigh_keys(value, len(value))
        return value

    def _pairs(self, parts: Iterable[tuple[Any, ...]]) -> dict[Any, Any]:
        """Return a dictionary of keys with their values and of other dictionaries, each of which is in a tuple."""
        made: dict[Any, Any] = {}
        for part in parts:
            if len(part) == 2:
                self.meter.weigh_key(part[0], len(made))
                made[part[0]] = part[1]
            elif isinstance(part[0], dict):
                self.meter.weigh_keys(part[0], len(made) + len(part[0]))
                made.update(part[0])
            else:
                raise TypeError(f"'{kind_of(part[0])}' is not a dictionary")
        return made

    def _dict(self, *values: Any, **given: Any) -> dict[Any, Any]:
        if not values:
            return self._pairs([(given,)])
        if len(values) > 1:
            raise TypeError(f"dict() takes one positional argument, but was given {len(values)}")
        if isinstance(values[0], dict):
            return self._pairs([(values[0],), (given,)])
        pairs = [tuple(self.meter.items(pair)) for pair in self.meter.items(values[0])]
        if any(len(pair) != 2 for pair in pairs):
            raise ValueError("a dictionary is made of pairs")
        return self._pairs([*pairs, (given,)])

    def _from_keys(self, keys: Iterable[Any], value: Any = None) -> dict[Any, Any]:
        return self._pairs([(key, value) for key in self.meter.items(keys)])

    def _sorted(self, values: Iterable[Any], *, key: Any, reverse: Any) -> list[Any]:
        found = self.meter.items(values)
        if key is None:
            self.meter.weigh_order(found)
            return sorted(found, reverse=reverse)
        keys = [key(one) for one in found]
        self.meter.weigh_order(keys)
        return [found[number] for number in sorted(range(len(found)), key=keys.__getitem__, reverse=reverse)]

    def _extreme(self, choose: Any, values: tuple[Any, ...], *, key: Any = None, **default: Any) -> Any:
        found = self.meter.items(values[0]) if len(values) == 1 else list(values)
        keys = found if key is None else [key(one) for one in found]
        for one in keys:
            self.meter.weigh(one)
        if not found:
            return choose(found, **default)
        return found[choose(range(len(found)), key=keys.__getitem__)]

    def _sum(self, values: Iterable[Any], start: Any = 0) -> Any:
        if isinstance(start, str):
            raise TypeError("sum() does not join text; use ''.join()")
        total = start
        for item in self.meter.items(values):
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
        """Return the value that the method changes."""
        yield self._owner


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

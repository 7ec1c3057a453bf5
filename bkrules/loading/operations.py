"""The operators of build files, which charge their costs to the meter before they run."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sized
from typing import Any

from bkrules.loading.frozen import Frozen
from bkrules.loading.meter import BITS, VIEWS, Meter, Refused, size_of, too_many_bits
from bkrules.loading.values import Place

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


class Operations:
    """The operations on values that the syntax is compiled to."""

    def __init__(self, meter: Meter, frozen: Frozen) -> None:
        self._meter = meter
        self._frozen = frozen

    def step(self, cost: int) -> bool:
        """Charge the steps of an iteration."""
        self._meter.charge(cost)
        return True

    def rest(self, *lists: list[Any]) -> bool:
        """Charge the lists made by an assignment to a starred name."""
        self._meter.charge(sum(map(len, lists)))
        return True

    def weighed(self, value: Any) -> Any:
        """Return an operand of a chain of comparisons. Searching, comparing or hashing it costs no more than all its parts."""
        self._meter.weigh(value)
        if isinstance(value, range):
            self._meter.charge(len(value))
        return value

    def compare(self, name: str, left: Any, right: Any) -> bool:
        """Return the result of a comparison, or of a search with `in` and `not in`."""
        if name in ("in", "not in"):
            self._meter.weigh_search(left, right)
            return (left in right) == (name == "in")
        self._meter.weigh_comparison(left, right)
        return _COMPARISONS[name](left, right)

    def operate(self, name: str, left: Any, right: Any) -> Any:
        """Return the result of an operator. Those with `=` change a list or dictionary in place."""
        in_place = name[-1] == "=" and isinstance(left, list | dict)
        if in_place:
            self._frozen.changeable(left)
        else:
            name = name.removesuffix("=")
        operation = _OPERATIONS.get(name) or _OPERATIONS[name[:-1]]
        if isinstance(left, int) and isinstance(right, int):
            self._check_bits(name, left, right)
            return self._meter.made(operation(left, right))
        self._charge_operation(name, left, right)
        return operation(left, right)

    def operate_at(self, name: str, container: Any, index: Any, right: Any) -> None:
        """Store the result of an operator at an item of a list or dictionary."""
        self._frozen.changeable(container)
        self.store(container, index, self.operate(name, self.item(container, index), right))

    def place(self, value: Any) -> Place:
        """Return the target of an item assignment."""
        return Place(self.store, self._frozen.changeable(value))

    def store(self, value: Any, index: Any, item: Any) -> None:
        """Store a value at an item or a slice of a list or dictionary."""
        if isinstance(value, dict):
            self._meter.weigh_key(index, len(value))
        elif isinstance(value, list) and isinstance(index, slice):
            self._meter.charge(1 + (len(value) >> 3))
            item = self._meter.items(item)
        value[index] = item

    def item(self, value: Any, index: Any) -> Any:
        """Return an item of a value."""
        if isinstance(value, dict):
            self._meter.weigh_key(index, len(value))
        return value[index]

    def _check_bits(self, name: str, left: int, right: int) -> None:
        if name in ("*", "**", "<<"):
            bits = left.bit_length()
            size = {"*": bits + right.bit_length(), "**": bits * right, "<<": bits + right}[name]
            if size > BITS:
                raise too_many_bits()

    def _charge_operation(self, name: str, left: Any, right: Any) -> None:
        charge = self._meter.charge
        if name[0] in "|&^-" and (isinstance(left, VIEWS) or isinstance(right, VIEWS)):
            raise TypeError("the order of a set changes from run to run; use a list or a dict")
        if name[0] == "*":
            for part, times in ((left, right), (right, left)):
                if isinstance(part, str | list | tuple) and isinstance(times, int):
                    charge(size_of(part, max(times, 0)))
        elif name == "+=":
            charge(1 + (len(right) if isinstance(right, Sized) else 0))
        elif name == "+":
            charge(1 + size_of(left) + size_of(right))
        elif name[0] == "|" and isinstance(left, dict) and isinstance(right, dict):
            count = len(left) + len(right)
            self._meter.weigh_keys(left, count)
            self._meter.weigh_keys(right, count)
        elif name == "%" and isinstance(left, str):
            self._check_format(left, right)

    def _check_format(self, text: str, values: Any) -> None:
        fields = text.count("%")
        self._meter.charge(1 + size_of(text) + (len(text) * text.count("%(") >> 8))
        size = self._meter.readable(values)
        if _WIDE_PERCENT.search(text):
            raise Refused("too-large", "a text of that width is too large")
        uses = fields if isinstance(values, dict) else 1
        # A width and a precision usually have two digits, and four at most. Quoting makes text up to ten times as long.
        self._meter.charge(13 * fields + 1250 * len(_WIDER_PERCENT.findall(text)) + 10 * size * uses)

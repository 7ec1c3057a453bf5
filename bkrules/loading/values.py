"""The values that build files have and Python does not: types, functions, methods, places."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any

from bkrules.loading.meter import CALLS, Meter, Refused


class Kind:
    """A type of build files: it makes values, its methods can be named, and `isinstance` knows it."""

    __slots__ = ("_make", "_type")
    is_type = True

    def __init__(self, kind: type, make: Callable[..., Any]) -> None:
        self._type = kind
        self._make = make

    def __call__(self, *args: Any, **named: Any) -> Any:
        return self._make(*args, **named)


class Function:
    """A function of a build file. It cannot be called while it runs, as in Starlark. A call itself costs `cost` steps.

    `running` are the keys of the functions that run now.
    """

    __slots__ = ("_body", "_cost", "_key", "_meter", "_running")

    def __init__(self, meter: Meter, running: set[str], key: str, cost: int, body: FunctionType) -> None:
        self._meter = meter
        self._running = running
        self._key = key
        self._cost = cost
        self._body = body

    def __call__(self, *args: Any, **named: Any) -> Any:
        running, key = self._running, self._key
        if key in running:
            raise Refused("recursion", f"{self._body.__name__} is called while it runs", "loop over a list instead")
        if len(running) >= CALLS:
            raise Refused("too-deep", f"more than {CALLS} nested calls", "nest fewer calls")
        self._meter.charge(self._cost)
        running.add(key)
        try:
            return self._body(*args, **named)
        finally:
            running.discard(key)

    @property
    def name(self) -> str:
        """Return the name of the function in its build file."""
        return self._body.__name__

    def below(self) -> Iterator[object]:
        """Return the values that the function holds: defaults, and the variables of enclosing functions."""
        yield from self._body.__defaults__ or ()
        yield from (self._body.__kwdefaults__ or {}).values()
        for cell in self._body.__closure__ or ():
            try:
                yield cell.cell_contents
            except ValueError:  # a variable that was never assigned
                continue


class Bound:
    """A method of a value that may be frozen later; `below` is that value."""

    __slots__ = ("_call", "_owner")

    def __init__(self, call: Callable[..., Any], owner: object) -> None:
        self._call = call
        self._owner = owner

    def __call__(self, *args: Any, **named: Any) -> Any:
        return self._call(*args, **named)

    def below(self) -> Iterator[object]:
        """Return the value that the method changes."""
        yield self._owner


class Place:
    """A list or dictionary that is the target of an item assignment, which `store` does."""

    __slots__ = ("_store", "_value")

    def __init__(self, store: Callable[[Any, Any, Any], None], value: Any) -> None:
        self._store = store
        self._value = value

    def __setitem__(self, index: Any, item: Any) -> None:
        self._store(self._value, index, item)

"""The runtime of build files: the builtins, and the operations that their syntax is compiled to.

Every operation on values whose cost grows with them charges it to the meter first. Loading always ends: there is no
`while`, no recursion and no lazy value, and steps and sizes are counted. No text changes from run to run, and no file
can change values that it loads from another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any

from bkrules.loading.frozen import Frozen
from bkrules.loading.meter import Meter
from bkrules.loading.methods import Methods
from bkrules.loading.operations import Operations
from bkrules.loading.pure import Builtins
from bkrules.loading.values import Function


class Runtime:
    """The builtins of build files. Call `start()` before each file; frozen values stay frozen."""

    def __init__(self) -> None:
        self.meter = Meter()
        self._running: set[str] = set()
        self._frozen = Frozen()
        self._operations = Operations(self.meter, self._frozen)
        self._builtins = Builtins(self.meter, self._operations)
        self._methods = Methods(self.meter, self._frozen, self._builtins)
        self.scope = {**self._builtins.scope(), **self._checks()}

    def start(self) -> None:
        """Reset the count."""
        self.meter.start()
        self._running.clear()

    def plain(self, value: Any) -> Any:
        """Return a copy of a value that consists of text, numbers, lists and dictionaries. Raises TypeError for another."""
        return self.meter.plain(value)

    def freeze(self, values: Iterable[object], file: str) -> None:
        """Freeze all that `values` reach; it belongs to `file`."""
        self._frozen.freeze(values, file)

    def _checks(self) -> dict[str, Any]:
        """Return the functions to which `compilation.py` compiles the syntax."""
        operations = self._operations
        return {
            "__step": operations.step,
            "__function": self._function,
            "__operate": operations.operate,
            "__operate_at": operations.operate_at,
            "__compare": operations.compare,
            "__weighed": operations.weighed,
            "__method": self._methods.method,
            "__place": operations.place,
            "__item": operations.item,
            "__dict": self._builtins.pairs,
            "__mapping": self._builtins.mapping,
            "__text": self._builtins.text,
            "__items": self.meter.items,
            "__made": self.meter.made,
            "__rest": operations.rest,
        }

    def _function(self, key: str, cost: int) -> Callable[[FunctionType], Function]:
        return lambda body: Function(self.meter, self._running, key, cost, body)


BUILTINS = tuple(name for name in Runtime().scope if not name.startswith("__"))
"""The names of the builtins; the first three are constants."""

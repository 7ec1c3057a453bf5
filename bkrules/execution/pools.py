"""Pools: the resources of this machine that running actions share. Pure: no threads, no actions.

As in Bazel there are job slots, the pools `cpu` and `memory`, and named ones that a user declares.
"""

from __future__ import annotations

from collections.abc import Mapping

from bkrules.model.resources import CPU, MEMORY, Request

_UNIT = 1000  # amounts are whole thousandths, so that releases are exact


class Pools:
    """`jobs` slots, `elsewhere` slots for actions on other machines, and named `sizes`: cores of `cpu`, MiB of `memory`,
    numbers of others. A missing size is unlimited for `cpu` and `memory`, and 0 for any other name.

    A request for cores or memory is an estimate: one larger than the pool counts as the whole pool, so it runs when no
    other action uses any of it, as in Bazel. A named resource is counted, so a request for more than the pool has can
    never run: see `lack`.
    """

    def __init__(self, jobs: int, sizes: Mapping[str, float] | None = None, elsewhere: int = 0) -> None:
        self.jobs = jobs
        self._free_elsewhere = elsewhere
        self.running = 0
        self._sizes = {name: _amount(size) for name, size in (sizes or {}).items()}
        self._used = dict.fromkeys(self._sizes, 0)
        self._alone = False
        self._shares: dict[Request, dict[str, int]] = {}

    def lack(self, request: Request) -> tuple[str, float, float] | None:
        """Return the first named resource of which a request needs more than exists: its name, the request, the pool's size."""
        for name, wanted in request.resources:
            there = self._sizes.get(name, 0)
            if name not in (CPU, MEMORY) and _amount(wanted) > there:
                return name, wanted, there / _UNIT
        return None

    def fits(self, request: Request) -> bool:
        """Return whether an action with this request may start now."""
        if request.elsewhere:
            return self._free_elsewhere > 0
        if self.running >= self.jobs or self._alone:
            return False
        if request.exclusive:
            return not self.running
        return all(self._used[name] + amount <= self._sizes[name] for name, amount in self._share(request).items())

    def take(self, request: Request) -> None:
        """Take the resources of an action, until `release`. The action must fit."""
        assert self.fits(request)
        if request.elsewhere:
            self._free_elsewhere -= 1
            return
        self.running += 1
        self._alone = request.exclusive
        for name, amount in self._share(request).items():
            self._used[name] += amount

    def release(self, request: Request) -> None:
        """Release the resources of an action."""
        if request.elsewhere:
            self._free_elsewhere += 1
            return
        self.running -= 1
        self._alone = False
        for name, amount in self._share(request).items():
            self._used[name] -= amount

    def _share(self, request: Request) -> dict[str, int]:
        """Return the share of each pool that a request takes; requests are few and used often."""
        if request not in self._shares:
            self._shares[request] = {
                name: min(_amount(wanted), self._sizes[name])
                for name, wanted in request.resources
                if name in self._sizes
            }
        return self._shares[request]


def _amount(value: float) -> int:
    return round(value * _UNIT)

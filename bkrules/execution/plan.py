"""The plan: which actions may run now. Pure; it knows neither threads nor caches."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping


class Plan:
    """Hands out ids whose dependencies have succeeded, in the order in which they were given."""

    def __init__(self, dependencies: Mapping[str, Collection[str]]) -> None:
        self._order = {name: number for number, name in enumerate(dependencies)}
        self._waiting = {name: set(needs) for name, needs in dependencies.items()}
        self._dependents: dict[str, list[str]] = {name: [] for name in dependencies}
        for name, needs in dependencies.items():
            for need in needs:
                self._dependents[need].append(name)
        self._ready = [(self._order[name], name) for name, needs in self._waiting.items() if not needs]
        heapq.heapify(self._ready)
        self._open = set(dependencies)

    @property
    def finished(self) -> bool:
        """Whether every id has succeeded, failed, or been given up."""
        return not self._open

    def take(self) -> str | None:
        """The next id that may run, or None when all of those left wait for others."""
        return heapq.heappop(self._ready)[1] if self._ready else None

    def succeed(self, name: str) -> None:
        """Record that an id is done; what waited for it alone becomes ready."""
        self._open.discard(name)
        for other in self._dependents[name]:
            needs = self._waiting[other]
            needs.discard(name)
            if not needs and other in self._open:
                heapq.heappush(self._ready, (self._order[other], other))

    def fail(self, name: str) -> list[str]:
        """Record that an id failed; the ids that can never run because of it, in order."""
        given_up: set[str] = set()
        stack = [name]
        while stack:
            for other in self._dependents[stack.pop()]:
                if other in self._open and other not in given_up:
                    given_up.add(other)
                    stack.append(other)
        self._open -= given_up | {name}
        return sorted(given_up, key=self._order.__getitem__)

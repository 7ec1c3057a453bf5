"""The plan: the actions that may be looked up and those that may run now, the most urgent first. Pure: no threads, no caches."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Mapping

from bkrules.execution.pools import Pools
from bkrules.model.resources import UNASKED, Request

Rank = tuple[bool, float, int]


class Plan:
    """Hands out ids whose dependencies have succeeded: first to be looked up, then, after a miss, to run.

    They come in the given order until `prioritize` is called. Priorities take time to compute, so the scheduler asks
    for them only when there is a choice: until then nothing starts while a lookup is left, which may be urgent too.
    `requests` are the resources of `pools` that an id takes while it runs. Ids that share a worker run one after the other
    while there is anything else to do: two of them at once need that worker twice.
    """

    def __init__(
        self,
        dependencies: Mapping[str, Collection[str]],
        requests: Mapping[str, Request] | None = None,
        pools: Pools | None = None,
    ) -> None:
        self._ranks: dict[str, Rank] = {name: (False, 0.0, number) for number, name in enumerate(dependencies)}
        self._waiting = {name: set(needs) for name, needs in dependencies.items()}
        self._dependents: dict[str, list[str]] = {name: [] for name in dependencies}
        for name, needs in dependencies.items():
            for need in needs:
                self._dependents[need].append(name)
        self._ready = [(self._ranks[name], name) for name, needs in self._waiting.items() if not needs]
        heapq.heapify(self._ready)
        self._open = set(dependencies)
        self._requests = dict(requests or {})
        self._pools = pools or Pools(1)
        self._missed: dict[Request, list[tuple[Rank, str]]] = {}
        self._running: set[str] = set()
        self._is_ordered = False

    @property
    def finished(self) -> bool:
        """Whether every id has succeeded, failed, or been given up."""
        return not self._open

    @property
    def unfinished(self) -> Collection[str]:
        """The ids that have not ended."""
        return self._open

    def is_last(self, name: str) -> bool:
        """Return whether no other id depends on an id."""
        return not self._dependents[name]

    @property
    def has_room(self) -> bool:
        """Whether a job slot is free."""
        return self._pools.running < self._pools.jobs

    @property
    def has_to_choose(self) -> bool:
        """Whether more ids wait to run than there is room for, in arbitrary order."""
        if self._is_ordered:
            return False
        waiting = sum(map(len, self._missed.values()))
        fit = all(self._pools.fits(request) for request, heap in self._missed.items() if heap)
        return waiting > self._pools.jobs - self._pools.running or not fit

    def prioritize(self, seconds: Callable[[str], float], failed: Callable[[str], bool]) -> None:
        """Order ids by urgency: first those that lead to an id that `failed`, then those that hold up others for longest.

        The measure is the expected `seconds` of the longest chain that begins with an id. Ids that share a worker are a chain.
        """
        self._is_ordered = True
        behind = {
            name: [dependent for dependent in self._dependents[name] if dependent in self._open] for name in self._open
        }
        left = {name: len(dependents) for name, dependents in behind.items()}
        done = [name for name, count in left.items() if not count]
        for name in done:  # the list grows during the walk: an id comes after all that depend on it
            ranks = [self._ranks[dependent] for dependent in behind[name]]
            calm = not failed(name) and all(rank[0] for rank in ranks)
            chain = min((rank[1] for rank in ranks), default=0.0) - seconds(name)
            self._ranks[name] = (calm, chain, self._ranks[name][2])
            for need in self._waiting[name]:
                left[need] -= 1
                if not left[need]:
                    done.append(need)
        self._chain_workers(seconds)
        for heap in (self._ready, *self._missed.values()):
            heap[:] = [(self._ranks[name], name) for _, name in heap]
            heapq.heapify(heap)

    def _chain_workers(self, seconds: Callable[[str], float]) -> None:
        """Let each id that shares a worker hold up the less urgent ones of that worker."""
        later: dict[str, float] = {}
        sharing = [name for name in self._open if self._request(name).worker]
        for name in sorted(sharing, key=self._ranks.__getitem__, reverse=True):
            worker, (calm, chain, number) = self._request(name).worker, self._ranks[name]
            self._ranks[name] = (calm, chain - later.get(worker, 0.0), number)
            later[worker] = later.get(worker, 0.0) + seconds(name)

    def take(self) -> str | None:
        """Return the most urgent id to look up, or None when all that are left wait for others."""
        return heapq.heappop(self._ready)[1] if self._ready else None

    def miss(self, name: str) -> None:
        """Record that an id has to run, or to continue after a pause; `start` hands it out when there is room."""
        heapq.heappush(self._missed.setdefault(self._request(name), []), (self._ranks[name], name))

    def start(self) -> str | None:
        """Return the most urgent id that may run now, and take its share of the pools.

        Return None when there is none, or when an id that is still to be looked up is more urgent. An id that must run
        alone waits until all else has finished, one whose worker runs another until all others have started.
        """
        best = self._best(exclusive=False) or (None if self._ready else self._best(exclusive=True))
        if best is None:
            return None
        is_busy, urgency = best
        if self._ready and (is_busy or not self._is_ordered or self._ready[0] < urgency):
            return None
        name = urgency[1]
        request = self._request(name)
        heapq.heappop(self._missed[request])
        self._pools.take(request)
        self._running.add(name)
        return name

    def pause(self, name: str) -> None:
        """Record that a running id waits for another process: others may have its share of the pools until `miss` and
        `start`.
        """
        self._running.remove(name)
        self._pools.release(self._request(name))

    def bring(self, name: str, request: Request) -> None:
        """Record that a paused id was to run elsewhere, and runs here with that request; `miss` and `start` let it continue."""
        self._requests[name] = request

    def succeed(self, name: str) -> None:
        """Record that an id has succeeded; ids that waited for it alone become ready."""
        self._end(name)
        for dependent in self._dependents[name]:
            needs = self._waiting[dependent]
            needs.discard(name)
            if not needs and dependent in self._open:
                heapq.heappush(self._ready, (self._ranks[dependent], dependent))

    def fail(self, name: str) -> list[str]:
        """Record that an id failed. Return the ids that can never run because of it, in the given order."""
        self._end(name)
        given_up = self.behind(name)
        self._open.difference_update(given_up)
        return given_up

    def behind(self, name: str) -> list[str]:
        """Return the ids that have not ended and that wait for an id, directly or not, in the given order."""
        found: set[str] = set()
        stack = [name]
        while stack:
            for dependent in self._dependents[stack.pop()]:
                if dependent in self._open and dependent not in found:
                    found.add(dependent)
                    stack.append(dependent)
        return sorted(found, key=lambda dependent: self._ranks[dependent][2])

    def _request(self, name: str) -> Request:
        return self._requests.get(name, UNASKED)

    def _end(self, name: str) -> None:
        self._open.discard(name)
        if name in self._running:
            self.pause(name)

    def _best(self, *, exclusive: bool) -> tuple[bool, tuple[Rank, str]] | None:
        """Return the most urgent id that fits, after whether it shares a worker with a running id: one that shares none is
        better.

        Ids with equal requests share a heap, so few are looked at.
        """
        best = None
        busy = {self._request(name).worker for name in self._running} - {""}
        for request, heap in self._missed.items():
            while heap and heap[0][1] not in self._open:  # it ended while it waited to continue
                heapq.heappop(heap)
            if heap and request.exclusive == exclusive and self._pools.fits(request):
                found = request.worker in busy, heap[0]
                best = found if best is None else min(best, found)
        return best

"""Which replica a request goes to."""

from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Protocol

from capacity.simulation.replica import Replica
from client.errors import UsageError

ROUND_ROBIN, LEAST_LOADED = "round-robin", "least-loaded"
ROUTERS = (ROUND_ROBIN, LEAST_LOADED)


class Router(Protocol):
    """Chooses by what it knows of the replicas."""

    def choose(self) -> int:
        """The place of the next one."""

    def changed(self, place: int) -> None:
        """The load of a replica is another now."""


def open_router(name: str, replicas: Sequence[Replica]) -> Router:
    """By its name. UsageError names the known ones."""
    if name == ROUND_ROBIN:
        return RoundRobin(len(replicas))
    if name == LEAST_LOADED:
        return LeastLoaded(replicas)
    raise UsageError(f"--router: {', '.join(ROUTERS)}; got {name!r}")


class RoundRobin:
    """One after the other, whatever they do."""

    def __init__(self, replicas: int) -> None:
        self._replicas, self._next = replicas, -1

    def choose(self) -> int:
        """The one after the last."""
        self._next = (self._next + 1) % self._replicas
        return self._next

    def changed(self, place: int) -> None:
        """Nothing to it."""


class LeastLoaded:
    """The fewest requests that have not ended; of several, the one that has been so for longest."""

    def __init__(self, replicas: Sequence[Replica]) -> None:
        self._replicas, self._order = replicas, count()
        self._heap = [(replica.load, next(self._order), at) for at, replica in enumerate(replicas)]
        heapify(self._heap)

    def choose(self) -> int:
        """Entries of loads that are past are dropped on the way."""
        while True:
            load, _, place = self._heap[0]
            if load == self._replicas[place].load:
                return place
            heappop(self._heap)

    def changed(self, place: int) -> None:
        """Remembers the new load. O(log n)."""
        heappush(self._heap, (self._replicas[place].load, next(self._order), place))

"""Which requests have run out of time."""

from heapq import heapify, heappop, heappush
from itertools import count

from server.scheduler.request import Request, State


class Deadlines:
    """Requests by deadline. Adding and expiring cost O(log n). Ended ones go late."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Request]] = []
        self._order = count()
        self._sweep_at = 64

    def add(self, request: Request) -> None:
        """Watches a request, if it has a deadline."""
        if request.deadline is None:
            return
        if len(self._heap) >= self._sweep_at:
            self._sweep()
        heappush(self._heap, (request.deadline, next(self._order), request))

    def expired(self, now: float) -> list[Request]:
        """Takes out and returns the live requests whose deadline is `now` or earlier."""
        late = []
        while self._heap and self._heap[0][0] <= now:
            request = heappop(self._heap)[2]
            if request.state is not State.ENDED:
                late.append(request)
        return late

    def _sweep(self) -> None:
        # Without this, requests that ended early would hold their prompts until their deadline.
        self._heap = [entry for entry in self._heap if entry[2].state is not State.ENDED]
        heapify(self._heap)
        self._sweep_at = max(64, 2 * len(self._heap))

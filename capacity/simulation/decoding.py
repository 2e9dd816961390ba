"""The sequences that decode: how many, how long, and which step is whose last."""

from bisect import bisect_left
from collections.abc import Sequence
from heapq import heappop, heappush
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from capacity.simulation.scheduling import Request


class Decoding:
    """Counted in decode steps of a replica; nothing here costs time for each sequence and step.

    active: sequences that take part in the next step. live: positions that they had read by the
    last one. growing: those that a step gives a position more; the others have filled their slot
    and forget one for each (`kept` positions). spans: of which a step reads that which holds the
    longest, of every one of `slots`; none where it reads live positions.
    """

    def __init__(self, kept: int, slots: int, spans: Sequence[int] = ()) -> None:
        self.active = self.growing = self.live = 0
        self._kept, self._slots, self._spans = kept, slots, spans
        # A heap of (the step before a request's first position, its last step): a request sees as
        # many positions as steps have gone by since, so the first stays the longest.
        self._begun: list[tuple[int, int]] = []
        self._last: dict[int, list[Request]] = {}  # by the step that ends them
        self._full: dict[int, int] = {}  # by the step that fills their slot, how many
        self._next: list[int] = []  # a heap of the steps in both

    def join(self, request: "Request") -> None:
        """From the step after `request.joined` on."""
        inputs, steps = len(request.prompt), request.max_tokens - 1
        last, full = request.joined + steps, request.joined + self._kept - inputs
        self.active += 1
        self.live += min(inputs, self._kept)
        self._at(last)
        self._last.setdefault(last, []).append(request)
        if self._spans:
            heappush(self._begun, (request.joined - inputs, last))
        if full <= request.joined:
            return
        self.growing += 1
        if full < last:
            self._at(full)
            self._full[full] = self._full.get(full, 0) + 1

    def steps_alike(self, step: int) -> int:
        """From this step on, how many there are until one ends, fills a slot or is the last of a
        span, that included."""
        count = self._next[0] - step + 1
        if not self._spans:
            return count
        longest = self._longest(step)
        span = self._span(longest)
        return min(count, span - longest + 1) if span < self._kept else count

    def reads(self, step: int) -> tuple[int, int]:
        """Positions that this step reads in all, and how many more each of those alike after it."""
        if not self._spans:
            return self.live + self.growing, self.growing
        return self._slots * self._span(self._longest(step)), 0

    def advance(self, count: int, step: int) -> "list[Request]":
        """`count` steps, the last of them `step`; who ended with that. None before it may have."""
        self.live += self.growing * count
        if self._next[0] > step:
            return []
        heappop(self._next)
        self.growing -= self._full.pop(step, 0)
        ended = self._last.pop(step, [])
        for request in ended:
            positions = len(request.prompt) + request.max_tokens - 1
            self.live -= min(positions, self._kept)
            if len(request.prompt) < self._kept and positions <= self._kept:
                self.growing -= 1
        self.active -= len(ended)
        return ended

    def _longest(self, step: int) -> int:
        """Positions of the longest in this step."""
        while self._begun[0][1] < step:
            heappop(self._begun)
        return min(step - self._begun[0][0], self._kept)

    def _span(self, longest: int) -> int:
        return self._spans[bisect_left(self._spans, longest)]

    def _at(self, step: int) -> None:
        if step not in self._last and step not in self._full:
            heappush(self._next, step)

"""The sequences that decode: how many, how long, and which step is whose last."""

from heapq import heappop, heappush
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from capacity.simulation.scheduling import Request


class Decoding:
    """Counted in decode steps of a replica; nothing here costs time for each sequence and step.

    active: sequences that take part in the next step. live: positions that they had read by the
    last one. growing: those that a step gives a position more; the others have filled their slot
    and forget one for each (`kept` positions).
    """

    def __init__(self, kept: int) -> None:
        self.active = self.growing = self.live = 0
        self._kept = kept
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
        if full <= request.joined:
            return
        self.growing += 1
        if full < last:
            self._at(full)
            self._full[full] = self._full.get(full, 0) + 1

    def steps_alike(self, step: int) -> int:
        """From this step on, how many there are until one ends or fills a slot, that included."""
        return self._next[0] - step + 1

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

    def _at(self, step: int) -> None:
        if step not in self._last and step not in self._full:
            heappush(self._next, step)

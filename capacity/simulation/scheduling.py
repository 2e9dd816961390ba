"""The one door to the server's scheduler. It is imported when a simulation begins."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from server.scheduler.request import Request
    from server.scheduler.turns import Span, Turns


class Scheduling:
    """Makes what the server schedules with: `Turns` for a replica, and its `Request`s.

    prefills: (rows, tokens) of the prefill dispatches, growing in tokens.
    """

    def __init__(
        self,
        slots: int,
        cache_length: int,
        prefills: Sequence[tuple[int, int]],
        prefills_per_decode: int,
        queue_limit: int,
    ) -> None:
        from server.engine.protocol import EngineShape, PrefillSize, Sampling
        from server.scheduler.errors import QueueFull
        from server.scheduler.request import Request
        from server.scheduler.turns import Policy, Turn, Turns

        sizes = tuple(PrefillSize(*size) for size in prefills)
        self._shape = EngineShape(slots, cache_length, sizes, vocab=1, eos_ids=frozenset())
        self._policy = Policy(queue_limit, prefills_per_decode)
        self._turns, self._request, self._sampling = Turns, Request, Sampling()
        self.full: type[Exception] = QueueFull
        self.decode, self.nothing = Turn.DECODE, Turn.NOTHING

    def turns(self) -> "Turns":
        """Of one replica."""
        return self._turns(self._shape, self._policy)

    def request(self, index: int, inputs: int, outputs: int) -> "Request":
        """Of so many tokens; what they are does not matter to the policy."""
        return self._request(index, range(inputs), outputs, self._sampling)


__all__ = ["Scheduling"]
if TYPE_CHECKING:
    __all__ += ["Request", "Span", "Turns"]

"""The policy: who is read, who decodes and who waits."""

import itertools
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from heapq import heappop, heappush

from server.engine.protocol import EngineShape
from server.scheduler.errors import QueueFull
from server.scheduler.request import Request, State


@dataclass(frozen=True)
class Policy:
    """`queue_limit`: requests that may wait. `prefills_per_decode`: the most prefill steps between
    two decode steps while any stream is running; more fill the slots sooner, fewer keep the time
    between tokens of running streams short.
    """

    queue_limit: int = 16_384
    prefills_per_decode: int = 1

    def __post_init__(self) -> None:
        for name in ("queue_limit", "prefills_per_decode"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")


@dataclass(slots=True)
class Span:
    """The tokens from `start` to `stop` of a request's prompt, read in one dispatch."""

    request: Request
    start: int
    stop: int

    @property
    def last(self) -> bool:
        """Whether the prompt ends here."""
        return self.stop == len(self.request.prompt)


class Turn(Enum):
    """What an engine may be given besides spans to read."""

    DECODE = "decode"
    NOTHING = "nothing"


class Turns:
    """First come, first served, over the slots of an engine.

    The whole policy and nothing else: no token, no event, no clock, no thread, so the server
    (`Scheduler`) and the planner's simulation drive the same one. It moves requests from QUEUED to
    PREFILL and DECODE; `leave` takes one out, whose end is the caller's business.
    """

    def __init__(self, shape: EngineShape, policy: Policy) -> None:
        self.shape = shape
        self.policy = policy
        self.steps = 0  # decode steps so far
        self._queue: OrderedDict[Request, None] = OrderedDict()
        self._free = list(range(shape.slots))  # a heap
        self._prefilling: dict[int, Request] = {}  # by slot, oldest first
        self._decoding: dict[int, Request] = {}
        self._prefills = 0  # prefill steps since the last decode step

    def join(self, request: Request) -> None:
        """Queues a new request. Raises QueueFull when `queue_limit` requests wait already."""
        if len(self._queue) >= self.policy.queue_limit:
            raise QueueFull(
                f"{len(self._queue)} requests wait and the limit is {self.policy.queue_limit}; "
                "try again later or send fewer at once"
            )
        request.state = State.QUEUED
        self._queue[request] = None

    def leave(self, request: Request) -> None:
        """Takes a request out, wherever it stands; its slot is free."""
        if request.slot is None:
            del self._queue[request]
            return
        self._prefilling.pop(request.slot, None)
        self._decoding.pop(request.slot, None)
        heappush(self._free, request.slot)

    def next(self) -> list[Span] | Turn:
        """What to dispatch next: spans to read together, a decode step, or nothing."""
        wanted = self._wanted()
        may_read = not wanted or self._prefills < self.policy.prefills_per_decode
        if may_read and (requests := self._next_to_read()):
            self._prefills += 1
            return [self._read(request) for request in requests]
        self._prefills = 0
        if not wanted:
            return Turn.NOTHING
        self.steps += 1
        return Turn.DECODE

    @property
    def settled(self) -> bool:
        """True while there is nothing to read and will be nothing until a request joins or leaves:
        then decode steps follow one another.
        """
        return not self._prefilling and not (self._queue and self._free)

    def repeat(self, steps: int) -> None:
        """So many decode steps more, as `next` would have said them one by one while it was
        `settled`; whoever has joined since came after them. ValueError when nobody wants the last.
        """
        self.steps += steps - 1
        if steps and not self._wanted():
            raise ValueError(f"{steps} decode steps more: nobody wants so many")
        self.steps += 1

    @property
    def queued(self) -> int:
        """Requests that wait for a slot."""
        return len(self._queue)

    @property
    def prefilling(self) -> int:
        """Requests whose prompt is read in part."""
        return len(self._prefilling)

    @property
    def decoding(self) -> int:
        """Requests that make tokens."""
        return len(self._decoding)

    @property
    def free(self) -> int:
        """Slots without a request."""
        return len(self._free)

    @property
    def owners(self) -> dict[int, Request]:
        """Slot -> request of those that decode, as they are now."""
        return dict(self._decoding)

    def all(self) -> Iterator[Request]:
        """Every request: those that decode, are read, and wait."""
        return itertools.chain(self._decoding.values(), self._prefilling.values(), self._queue)

    def _wanted(self) -> bool:
        """Whether a decode step would make a token: steps under way may make all the last ones."""
        # Prefill makes a token, and each step from then on another.
        return any(
            1 + self.steps - request.joined < request.max_tokens
            for request in self._decoding.values()
        )

    def _next_to_read(self) -> list[Request]:
        """The oldest requests with prompt left, as many as one step can read together."""
        waiting = itertools.islice(self._queue, len(self._free))
        chosen: list[Request] = []
        longest = 0
        for request in itertools.chain(self._prefilling.values(), waiting):
            left = len(request.prompt) - request.prompt_read
            longest = max(longest, min(left, self.shape.chunk))
            if len(chosen) >= self.shape.prefill_size(longest).rows:
                break
            chosen.append(request)
        return chosen

    def _read(self, request: Request) -> Span:
        if request.state is State.QUEUED:
            del self._queue[request]
            request.state, request.slot = State.PREFILL, heappop(self._free)
            self._prefilling[request.slot] = request
        start = request.prompt_read
        request.prompt_read = min(start + self.shape.chunk, len(request.prompt))
        span = Span(request, start, request.prompt_read)
        if span.last:
            assert request.slot is not None
            del self._prefilling[request.slot]
            self._decoding[request.slot] = request
            request.state, request.joined = State.DECODE, self.steps
        return span

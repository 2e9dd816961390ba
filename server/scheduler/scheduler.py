"""Which request runs when."""

import itertools
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from server.engine.protocol import EngineShape, Finish, PrefillChunk, Token
from server.scheduler.deadlines import Deadlines
from server.scheduler.errors import QueueFull
from server.scheduler.event import Cause, Event, Failure
from server.scheduler.plan import Decode, Plan, Prefill
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


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts of requests now (`slots` is the engine's size) and of tokens so far."""

    queued: int
    prefilling: int
    decoding: int
    slots: int
    tokens: int


class Scheduler:
    """First come, first served, over the slots of an engine.

    It touches no device, clock or thread: `plan` says what to do next, `complete` takes the results
    back and `take_events` hands out what became of the requests. Several dispatches may be under
    way at once; each carries its own slot -> request map, so a late token never reaches the next
    request of its slot. Every request ends in exactly one event with `end` set.
    """

    def __init__(self, shape: EngineShape, policy: Policy | None = None) -> None:
        self.shape = shape
        self.policy = policy or Policy()
        self._queue: OrderedDict[Request, None] = OrderedDict()
        self._free = list(range(shape.slots))  # a heap
        self._prefilling: dict[int, Request] = {}  # by slot, oldest first
        self._decoding: dict[int, Request] = {}
        self._release: list[int] = []
        self._events: list[Event] = []
        self._deadlines = Deadlines()
        self._prefills = 0  # prefill steps since the last decode step
        self._tokens = 0

    def submit(self, request: Request, now: float) -> None:
        """Takes a request in. Raises QueueFull when `queue_limit` requests wait already."""
        if request.state is not State.NEW:
            raise ValueError(f"request {request.id} was submitted before; make a new one")
        if len(self._queue) >= self.policy.queue_limit:
            raise QueueFull(
                f"{len(self._queue)} requests wait and the limit is {self.policy.queue_limit}; "
                "try again later or send fewer at once"
            )
        request.state, request.queued_at = State.QUEUED, now
        self._queue[request] = None
        self._deadlines.add(request)

    def cancel(self, request: Request, now: float) -> None:
        """Ends a request its owner gave up; no more of its tokens come. Nothing if it ended."""
        self.fail(request, Failure(Cause.CANCELLED, "cancelled by the client"), now)

    def finish(self, request: Request, now: float) -> None:
        """Ends a request that its owner has enough of (a stop string). Nothing if it ended."""
        self._give_up(request, Finish.STOP, now)

    def fail(self, request: Request, failure: Failure, now: float) -> None:
        """Ends a request with a failure and frees its slot. Nothing if it ended."""
        self._give_up(request, failure, now)

    def fail_all(self, failure: Failure, now: float) -> None:
        """Ends every request with the same failure."""
        for request in [*self._decoding.values(), *self._prefilling.values(), *self._queue]:
            self.fail(request, failure, now)

    def plan(self, now: float) -> Plan:
        """The next work for the engine; `dispatch` is None when there is nothing to start."""
        for request in self._deadlines.expired(now):
            where = "queued" if request.state is State.QUEUED else "running"
            self.fail(request, Failure(Cause.DEADLINE, f"deadline passed while {where}"), now)
        release, self._release = self._release, []
        return Plan(release, self._dispatch(now))

    def complete(self, dispatch: Prefill | Decode, tokens: Sequence[Token], now: float) -> None:
        """Takes the tokens of a dispatch, in order. Raises RuntimeError on a token of a slot that
        had no request when the step was planned: engine and scheduler then disagree.
        """
        owners = dispatch.owners
        made: dict[Request, list[Token]] = {}
        for token in tokens:
            request = owners.get(token.slot)
            if request is None:
                raise RuntimeError(f"the engine made a token for slot {token.slot}, which was free")
            if request.state is not State.ENDED:
                made.setdefault(request, []).append(token)
                if token.finish is not None:
                    self._end(request, now)
        for request, own in made.items():
            self._hand_out(request, own, now)

    def take_events(self) -> list[Event]:
        """What happened since the last call, in order."""
        events, self._events = self._events, []
        return events

    @property
    def live(self) -> int:
        """Requests that have not ended."""
        return len(self._queue) + len(self._prefilling) + len(self._decoding)

    @property
    def idle(self) -> bool:
        """True when nothing is left to plan or to tell."""
        return not (self.live or self._release or self._events)

    def stats(self) -> Stats:
        """The counts of this moment."""
        return Stats(
            queued=len(self._queue),
            prefilling=len(self._prefilling),
            decoding=len(self._decoding),
            slots=self.shape.slots,
            tokens=self._tokens,
        )

    def _dispatch(self, now: float) -> Prefill | Decode | None:
        wanted = any(request.promised < request.max_tokens for request in self._decoding.values())
        may_read = not wanted or self._prefills < self.policy.prefills_per_decode
        if may_read and (requests := self._next_to_read()):
            self._prefills += 1
            for request in requests:
                if request.state is State.QUEUED:
                    self._admit(request, now)
            return Prefill([self._next_chunk(request) for request in requests], requests)
        self._prefills = 0
        return self._decode() if wanted else None

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

    def _admit(self, request: Request, now: float) -> None:
        del self._queue[request]
        slot = heappop(self._free)
        request.state, request.slot, request.prefill_at = State.PREFILL, slot, now
        self._prefilling[slot] = request

    def _next_chunk(self, request: Request) -> PrefillChunk:
        assert request.slot is not None
        start = request.prompt_read
        tokens = request.prompt[start : start + self.shape.chunk]
        request.prompt_read += len(tokens)
        last = request.prompt_read == len(request.prompt)
        if last:
            del self._prefilling[request.slot]
            self._decoding[request.slot] = request
            request.state, request.promised = State.DECODE, 1
        return PrefillChunk(
            slot=request.slot,
            tokens=tokens,
            start=start,
            last=last,
            sampling=request.sampling,
            max_tokens=request.max_tokens,
            ignore_eos=request.ignore_eos,
            logprobs=request.logprobs,
        )

    def _decode(self) -> Decode:
        for request in self._decoding.values():
            request.promised += 1
        return Decode(dict(self._decoding))

    def _hand_out(self, request: Request, tokens: list[Token], now: float) -> None:
        if request.first_token_at is None:
            request.first_token_at = now
        request.generated += len(tokens)
        self._tokens += len(tokens)
        self._events.append(Event(request, tokens, tokens[-1].finish))

    def _give_up(self, request: Request, end: Finish | Failure, now: float) -> None:
        if request.state in (State.NEW, State.ENDED):
            return
        if request.state is State.QUEUED:
            del self._queue[request]
        elif request.slot is not None:
            self._release.append(request.slot)
        self._end(request, now)
        self._events.append(Event(request, (), end))

    def _end(self, request: Request, now: float) -> None:
        if request.slot is not None:
            self._prefilling.pop(request.slot, None)
            self._decoding.pop(request.slot, None)
            heappush(self._free, request.slot)
        request.state, request.ended_at = State.ENDED, now

"""Which request runs when."""

from collections.abc import Sequence
from dataclasses import dataclass

from server.engine.protocol import EngineShape, Finish, PrefillChunk, Token
from server.scheduler.deadlines import Deadlines
from server.scheduler.event import Cause, Event, Failure
from server.scheduler.plan import Decode, Plan, Prefill
from server.scheduler.request import Request, State
from server.scheduler.turns import Policy, Span, Turn, Turns


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts of requests now (`slots` is the engine's size) and of tokens so far."""

    queued: int
    prefilling: int
    decoding: int
    slots: int
    tokens: int


class Scheduler:
    """Requests, tokens and events around the policy, which is in `Turns`.

    It touches no device, clock or thread: `plan` says what to do next, `complete` takes the results
    back and `take_events` hands out what became of the requests. Several dispatches may be under
    way at once; each carries its own slot -> request map, so a late token never reaches the next
    request of its slot. Every request ends in exactly one event with `end` set.
    """

    def __init__(self, shape: EngineShape, policy: Policy | None = None) -> None:
        self.shape = shape
        self.policy = policy or Policy()
        self._turns = Turns(shape, self.policy)
        self._release: list[int] = []
        self._events: list[Event] = []
        self._deadlines = Deadlines()
        self._tokens = 0

    def submit(self, request: Request, now: float) -> None:
        """Takes a request in. Raises QueueFull when `queue_limit` requests wait already."""
        if request.state is not State.NEW:
            raise ValueError(f"request {request.id} was submitted before; make a new one")
        self._turns.join(request)
        request.queued_at = now
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
        for request in list(self._turns.all()):
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
        turns = self._turns
        return turns.queued + turns.prefilling + turns.decoding

    @property
    def idle(self) -> bool:
        """True when nothing is left to plan or to tell."""
        return not (self.live or self._release or self._events)

    def stats(self) -> Stats:
        """The counts of this moment."""
        return Stats(
            queued=self._turns.queued,
            prefilling=self._turns.prefilling,
            decoding=self._turns.decoding,
            slots=self.shape.slots,
            tokens=self._tokens,
        )

    def _dispatch(self, now: float) -> Prefill | Decode | None:
        turn = self._turns.next()
        if turn is Turn.DECODE:
            return Decode(self._turns.owners)
        if isinstance(turn, Turn):
            return None
        for span in turn:
            if span.start == 0:
                span.request.prefill_at = now
        return Prefill([_chunk(span) for span in turn], [span.request for span in turn])

    def _hand_out(self, request: Request, tokens: list[Token], now: float) -> None:
        if request.first_token_at is None:
            request.first_token_at = now
        request.generated += len(tokens)
        self._tokens += len(tokens)
        self._events.append(Event(request, tokens, tokens[-1].finish))

    def _give_up(self, request: Request, end: Finish | Failure, now: float) -> None:
        if request.state in (State.NEW, State.ENDED):
            return
        if request.slot is not None:
            self._release.append(request.slot)
        self._end(request, now)
        self._events.append(Event(request, (), end))

    def _end(self, request: Request, now: float) -> None:
        self._turns.leave(request)
        request.state, request.ended_at = State.ENDED, now


def _chunk(span: Span) -> PrefillChunk:
    request = span.request
    assert request.slot is not None
    return PrefillChunk(
        slot=request.slot,
        tokens=request.prompt[span.start : span.stop],
        start=span.start,
        last=span.last,
        sampling=request.sampling,
        max_tokens=request.max_tokens,
        ignore_eos=request.ignore_eos,
        logprobs=request.logprobs,
    )

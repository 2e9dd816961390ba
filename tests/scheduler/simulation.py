"""Runs a Scheduler against the small engine turn by turn, without threads or a real clock."""

from collections import defaultdict
from dataclasses import dataclass, field

from server.scheduler import Decode, Event, Plan, Policy, Prefill, Request, Scheduler, Token
from tests.scheduler.small_engine import SmallEngine, SmallStep


@dataclass
class Simulation:
    """One turn is a second. `plans` and `starts` keep what was planned and who started when."""

    engine: SmallEngine
    policy: Policy = field(default_factory=Policy)
    now: float = 0.0
    plans: list[Plan] = field(default_factory=list)
    starts: list[Request] = field(default_factory=list)
    events: dict[Request, list[Event]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(self.engine.shape, self.policy)
        self._flight: tuple[Prefill | Decode, SmallStep] | None = None

    def submit(self, request: Request) -> Request:
        self.scheduler.submit(request, self.now)
        return request

    def turn(self) -> Plan:
        """One turn of a pipeline one deep: dispatch the next step, then read the one before."""
        self.now += 1
        plan = self.scheduler.plan(self.now)
        self.plans.append(plan)
        for slot in plan.release:
            self.engine.release(slot)
        launched = self._launch(plan.dispatch)
        if self._flight is not None:
            dispatch, step = self._flight
            self.scheduler.complete(dispatch, step.tokens(), self.now)
        self._flight = launched
        for event in self.scheduler.take_events():
            self.events[event.request].append(event)
        return plan

    def run(self, turns: int = 10_000) -> None:
        """Turns until nothing is left to do."""
        for _ in range(turns):
            if self._flight is None and self.scheduler.idle:
                return
            self.turn()
        raise AssertionError(f"still busy after {turns} turns: {self.scheduler.stats()}")

    def tokens(self, request: Request) -> list[Token]:
        return [token for event in self.events[request] for token in event.tokens]

    def ids(self, request: Request) -> list[int]:
        return [token.token_id for token in self.tokens(request)]

    def _launch(self, dispatch: Prefill | Decode | None) -> tuple | None:
        if dispatch is None:
            return None
        if isinstance(dispatch, Decode):
            return dispatch, self.engine.decode()
        for chunk, request in zip(dispatch.chunks, dispatch.requests, strict=True):
            if chunk.start == 0:
                self.starts.append(request)
        return dispatch, self.engine.prefill(dispatch.chunks)

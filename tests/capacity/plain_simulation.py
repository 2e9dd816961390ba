"""A fleet of one, dispatch by dispatch and token by token, around the server's whole Scheduler.

What `capacity.simulation` jumps over, this does one by one: the two must agree.
"""

from collections import deque
from dataclasses import dataclass, field

from capacity.simulation.step_model import StepModel
from capacity.work.reading import positions_read
from server.engine.protocol import EngineShape, Finish, PrefillSize, Token
from server.scheduler import Decode, Policy, Prefill, Request, Scheduler


@dataclass
class Slot:
    """What the device knows of a request: its positions, and tokens left to make."""

    positions: int
    left: int


@dataclass
class PlainReplica:
    """`ask`: (seconds, prompt, answer) in order of time."""

    model: StepModel
    prefills: tuple[tuple[int, int], ...]
    prefills_per_decode: int
    ahead: int
    slots: dict[int, Slot] = field(default_factory=dict)
    came: dict[int, list[float]] = field(default_factory=dict)  # when tokens of a request came

    def run(self, asked: list[tuple[float, int, int]]) -> list[Request]:
        """Until all have ended; their times are in the requests."""
        setting = self.model.setting
        sizes = tuple(PrefillSize(*size) for size in self.prefills)
        shape = EngineShape(setting.slots, setting.cache_length, sizes, 9, frozenset())
        scheduler = Scheduler(shape, Policy(prefills_per_decode=self.prefills_per_decode))
        requests = [Request(i, range(a), b) for i, (_, a, b) in enumerate(asked)]
        waiting = deque(zip(asked, requests, strict=True))
        flights: deque = deque()
        now = device = 0.0
        while waiting or scheduler.live or flights:
            if not scheduler.live and not flights:
                now = max(now, waiting[0][0][0])
            while waiting and waiting[0][0][0] <= now:
                (at, _, _), request = waiting.popleft()
                scheduler.submit(request, at)
            plan = scheduler.plan(now)
            assert not plan.release
            if plan.dispatch is not None:
                seconds, tokens = self._launch(plan.dispatch)
                device = max(now, device) + seconds
                flights.append((device, plan.dispatch, tokens))
            if len(flights) > self.ahead or (flights and plan.dispatch is None):
                end, dispatch, tokens = flights.popleft()
                now = max(now, end)
                scheduler.complete(dispatch, tokens, now)
            for event in scheduler.take_events():
                self.came.setdefault(event.request.id, []).extend([now] * len(event.tokens))
        return requests

    def _launch(self, dispatch: Prefill | Decode) -> tuple[float, list[Token]]:
        if isinstance(dispatch, Prefill):
            chunks = [(chunk.start, len(chunk.tokens)) for chunk in dispatch.chunks]
            made = [self._open(chunk) for chunk in dispatch.chunks if chunk.last]
            return self.model.read(chunks), made
        kept = self.model.setting.kept_positions
        for slot in self.slots.values():
            slot.positions += 1
        seen = [min(slot.positions, kept) for slot in self.slots.values()]
        read = positions_read(self.model.setting, sum(seen), max(seen))
        seconds = self.model.step(len(self.slots), read)
        return seconds, [self._make(number) for number in list(self.slots)]

    def _open(self, chunk) -> Token:
        self.slots[chunk.slot] = Slot(chunk.start + len(chunk.tokens), chunk.max_tokens)
        return self._make(chunk.slot)

    def _make(self, number: int) -> Token:
        slot = self.slots[number]
        slot.left -= 1
        if slot.left:
            return Token(number, 0, None, None)
        del self.slots[number]
        return Token(number, 0, None, Finish.LENGTH)

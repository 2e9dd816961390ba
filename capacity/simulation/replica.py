"""One server: its slots, its dispatches, and the moments at which it decides."""

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from capacity.simulation.decoding import Decoding
from capacity.simulation.log import Log
from capacity.simulation.scheduling import Scheduling
from capacity.simulation.step_model import StepModel
from capacity.work.software import SPAN
from server.models import sizes

if TYPE_CHECKING:
    from capacity.simulation.scheduling import Request, Span

NEVER = float("inf")


@dataclass(slots=True)
class Flight:
    """A dispatch whose tokens have not come back. `first`: requests whose first token it makes;
    `last`: those that it ends.
    """

    end: float
    first: "list[Request]"
    last: "list[Request]"


@dataclass(slots=True)
class Run:
    """Decode steps one after another in which nobody joins or ends before the last one.

    `end(n)`: when the n-th of them is done. Step n + 1 is planned when step n - `ahead` is done.
    """

    model: StepModel
    start: float
    before: float  # when what is under way at the start is done
    count: int
    active: int
    read: int
    grown: int

    def end(self, steps: int) -> float:
        """Of the first so many."""
        if steps == 0:
            return self.before
        return self.start + self.model.steps(steps, self.active, self.read, self.grown)


class Replica:
    """An engine of one setting as `EngineLoop` drives it: the next dispatch is planned when that
    before the last has come back (`ahead` 1), by the server's own `Turns`. The device works them
    off one by one.

    `next_at`: when it decides again. `load`: requests that have not ended.
    """

    def __init__(self, scheduling: Scheduling, model: StepModel, log: Log, ahead: int) -> None:
        self._scheduling, self._model, self._log, self._ahead = scheduling, model, log, ahead
        self._turns = scheduling.turns()
        setting = model.setting
        spans = sizes.spans(setting.kept_positions) if setting.cache_reads == SPAN else ()
        self._decoding = Decoding(setting.kept_positions, setting.slots, spans)
        self._flights: deque[Flight] = deque()
        self._run: Run | None = None
        self._free_at = 0.0  # when the device has nothing left to do
        self.next_at = NEVER
        self.load = 0
        self.most_queued = 0
        self.busy = 0.0  # seconds of the device
        self.slot_seconds = 0.0  # of slots that decode
        self.steps = self.reads = self.tokens = 0

    @property
    def queued(self) -> int:
        """Requests that wait for a slot."""
        return self._turns.queued

    def arrive(self, index: int, at: float, inputs: int, outputs: int) -> None:
        """Takes a request in. The scheduler's QueueFull when it has no room."""
        self._turns.join(self._scheduling.request(index, inputs, outputs))
        self.load += 1
        self.most_queued = max(self.most_queued, self._turns.queued)
        if self.next_at == NEVER:
            self.next_at = at
        elif self._run is not None and self._turns.free and at < self.next_at:
            self._cut(self._run, at)

    def turn(self) -> None:
        """Decides once, at `next_at`."""
        now = self.next_at
        if self._run is not None:
            self._close(self._run)
        while self._flights and self._flights[0].end <= now:
            self._land(self._flights.popleft())
        turn = self._turns.next()
        if turn is self._scheduling.decode:
            self._decode(now)
            return
        launched = turn is not self._scheduling.nothing
        if launched:
            self._read(now, turn)  # type: ignore[arg-type]
        if len(self._flights) > self._ahead or (self._flights and not launched):
            self.next_at = self._flights[0].end
        else:
            self.next_at = now if launched else NEVER

    def _decode(self, now: float) -> None:
        decoding, count = self._decoding, 1
        # A request that ends in what is under way frees its slot in between.
        if self._turns.settled and not any(flight.last for flight in self._flights):
            count = decoding.steps_alike(self._turns.steps)
        start = max(now, self._free_at)
        self._run = run = Run(
            self._model,
            start,
            self._flights[0].end if self._flights else now,
            count,
            decoding.active,
            *decoding.reads(self._turns.steps),
        )
        self.next_at = run.end(count - self._ahead)

    def _cut(self, run: Run, at: float) -> None:
        """Ends a run with the first step that is decided on at `at` or later."""
        low, high = max(self._ahead, 1), run.count
        while low < high:
            middle = (low + high) // 2
            if run.end(middle - self._ahead) >= at:
                high = middle
            else:
                low = middle + 1
        run.count = low
        self.next_at = run.end(low - self._ahead)

    def _close(self, run: Run) -> None:
        """Does what a run came to."""
        self._run = None
        end = run.end(run.count)
        self._turns.repeat(run.count - 1)
        self.busy += end - run.start
        self.slot_seconds += run.active * (end - run.start)
        self.steps += run.count
        self.tokens += run.active * run.count
        self._free_at = end
        last = self._decoding.advance(run.count, self._turns.steps)
        self._flights.append(Flight(end, [], last))

    def _read(self, now: float, spans: "list[Span]") -> None:
        log = self._log
        for span in spans:
            if span.start == 0:
                log.admitted[span.request.id] = now
        start = max(now, self._free_at)
        end = start + self._model.read([(span.start, span.stop - span.start) for span in spans])
        self.busy += end - start
        self.reads += 1
        self._free_at = end
        first = [span.request for span in spans if span.last]
        last = [request for request in first if request.max_tokens == 1]
        for request in first:
            if request.max_tokens > 1:
                self._decoding.join(request)
        self.tokens += len(first)
        self._flights.append(Flight(end, first, last))

    def _land(self, flight: Flight) -> None:
        log = self._log
        for request in flight.first:
            log.first[request.id] = flight.end
        for request in flight.last:
            log.ended[request.id] = flight.end
            self._turns.leave(request)
        self.load -= len(flight.last)

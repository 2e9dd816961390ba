"""The thread that owns the engine."""

import logging
import time
from collections.abc import Callable
from threading import Condition, Thread

from server.engine.protocol import Engine, Step
from server.scheduler.errors import EngineLost, ShuttingDown
from server.scheduler.event import Cause, Event, Failure
from server.scheduler.plan import Decode, Plan, Prefill
from server.scheduler.request import Request
from server.scheduler.scheduler import Scheduler, Stats
from server.scheduler.turns import Policy

_logger = logging.getLogger(__name__)

Sink = Callable[[list[Event]], None]
_Flight = tuple[Prefill | Decode, Step]


class EngineLoop:
    """Runs a Scheduler against a real engine from one thread, one dispatch ahead.

    Step k+1 is dispatched before the tokens of step k are read, so the device never waits for the
    host. The thread sleeps when there is nothing to do. Events go to `sink`, called from that
    thread at most once a turn with all events of the turn; it must return soon and not raise.

    A ValueError out of `engine.prefill` means that the engine refused a chunk and dispatched
    nothing: only the requests it refuses alone fail. Any other exception loses the engine: every
    request fails, `lost` tells why, `on_lost` is called once from the thread, and `submit` raises
    EngineLost from then on.
    """

    def __init__(
        self,
        engine: Engine,
        sink: Sink,
        policy: Policy | None = None,
        on_lost: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._sink = sink
        self._on_lost = on_lost
        self._clock = clock
        self._changed = Condition()
        self._scheduler = Scheduler(engine.shape, policy)  # guarded by _changed
        self._draining = False
        self._stopping = False
        self._resting = True
        self._lost: str | None = None
        self._thread = Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def submit(self, request: Request) -> None:
        """Takes a request in, from any thread. Raises QueueFull, ShuttingDown or EngineLost."""
        with self._changed:
            if self._lost is not None:
                raise EngineLost(f"the engine is lost: {self._lost}")
            if self._draining:
                raise ShuttingDown("the server is shutting down; send the request to another")
            self._scheduler.submit(request, self._clock())
            self._wake()

    def cancel(self, request: Request) -> None:
        """Gives a request up, from any thread; its slot is free from the next step on."""
        with self._changed:
            self._scheduler.cancel(request, self._clock())
            self._wake()

    def finish(self, request: Request) -> None:
        """Ends a request as finished (a stop string was met), from any thread."""
        with self._changed:
            self._scheduler.finish(request, self._clock())
            self._wake()

    def refuse_new(self) -> None:
        """From now on `submit` raises ShuttingDown; what was taken in goes on."""
        with self._changed:
            self._draining = True

    def drain(self, timeout: float) -> bool:
        """Refuses new requests and waits at most `timeout` seconds for those taken in, queued ones
        too. True when all ended and the sink was told.
        """
        with self._changed:
            self._draining = True
            return self._changed.wait_for(self._quiet, timeout)

    def stop(self, timeout: float = 10.0) -> bool:
        """Fails what is left and ends the thread. False if it did not end in `timeout` seconds,
        which happens when the device does not answer.
        """
        with self._changed:
            self._draining = self._stopping = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def lost(self) -> str | None:
        """Why the engine is lost, or None while it is well."""
        return self._lost

    @property
    def draining(self) -> bool:
        """True once new requests are refused because of a shutdown."""
        return self._draining

    def stats(self) -> Stats:
        """Queue and slot counts of this moment, from any thread."""
        with self._changed:
            return self._scheduler.stats()

    def _wake(self) -> None:
        if self._resting:
            self._changed.notify_all()

    def _quiet(self) -> bool:
        return self._scheduler.idle and (self._resting or not self._thread.is_alive())

    def _run(self) -> None:
        flight: _Flight | None = None
        try:
            while (plan := self._next_plan(waiting=flight is None)) is not None:
                flight = self._turn(plan, flight)
                self._tell()
            self._fail_all(Cause.SHUTDOWN, "the server shut down before this request finished")
        except Exception as error:
            _logger.exception("the engine is lost")
            self._lose(f"{type(error).__name__}: {error}")

    def _next_plan(self, waiting: bool) -> Plan | None:
        with self._changed:
            self._resting = waiting and self._scheduler.idle
            if self._resting:
                self._changed.notify_all()
            while self._scheduler.idle and waiting and not self._stopping:
                self._changed.wait()
            self._resting = False
            if self._stopping:
                return None
            plan = self._scheduler.plan(self._clock())
            if waiting and plan.dispatch is None and self._scheduler.live:
                # Without this a token the engine owes would be waited for in a busy loop.
                raise RuntimeError("the engine made fewer tokens than the steps it was given")
            return plan

    def _turn(self, plan: Plan, flight: _Flight | None) -> _Flight | None:
        for slot in plan.release:
            self._engine.release(slot)
        launched: _Flight | None = None
        refused: Prefill | None = None
        if isinstance(plan.dispatch, Decode):
            launched = plan.dispatch, self._engine.decode()
        elif plan.dispatch is not None:
            try:
                launched = plan.dispatch, self._engine.prefill(plan.dispatch.chunks)
            except ValueError:
                refused = plan.dispatch
        if flight is not None:
            self._land(flight)
        if refused is not None:
            self._read_singly(refused)
        return launched

    def _read_singly(self, refused: Prefill) -> None:
        # Finds the chunk that the engine cannot read; not pipelined, as this hardly ever happens.
        for chunk, request in zip(refused.chunks, refused.requests, strict=True):
            try:
                step = self._engine.prefill([chunk])
            except ValueError as error:
                _logger.warning("the engine refused request %d: %s", request.id, error)
                self._reject(request, str(error))
            else:
                self._land((Prefill([chunk], [request]), step))

    def _reject(self, request: Request, reason: str) -> None:
        failure = Failure(Cause.REJECTED, f"the engine refused this request: {reason}")
        with self._changed:
            self._scheduler.fail(request, failure, self._clock())

    def _land(self, flight: _Flight) -> None:
        dispatch, step = flight
        tokens = step.tokens()
        with self._changed:
            self._scheduler.complete(dispatch, tokens, self._clock())

    def _tell(self) -> None:
        with self._changed:
            events = self._scheduler.take_events()
        if events:
            self._sink(events)

    def _lose(self, reason: str) -> None:
        with self._changed:
            self._lost = reason
        try:
            if self._on_lost is not None:
                self._on_lost(reason)
        finally:
            self._fail_all(Cause.ENGINE_LOST, f"the engine is lost: {reason}")

    def _fail_all(self, cause: Cause, message: str) -> None:
        with self._changed:
            self._scheduler.fail_all(Failure(cause, message), self._clock())
        try:
            self._tell()
        finally:
            with self._changed:
                self._resting = True
                self._changed.notify_all()

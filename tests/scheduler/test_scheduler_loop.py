"""The engine thread: events, refusals, drain and a lost engine."""

import threading
import time
from collections import defaultdict

import pytest

from server.scheduler import (
    Cause,
    EngineLoop,
    EngineLost,
    Event,
    Failure,
    Finish,
    Policy,
    QueueFull,
    Request,
    ShuttingDown,
)
from tests.scheduler.small_engine import SmallEngine

PATIENCE = 10.0


class Collector:
    """A sink that lets a test wait for the end of a request."""

    def __init__(self) -> None:
        self.events: dict[Request, list[Event]] = defaultdict(list)
        self.batches: list[int] = []
        self._changed = threading.Condition()

    def __call__(self, events: list[Event]) -> None:
        with self._changed:
            self.batches.append(len(events))
            for event in events:
                self.events[event.request].append(event)
            self._changed.notify_all()

    def end(self, request: Request) -> Finish | Failure:
        with self._changed:
            assert self._changed.wait_for(lambda: self._ended(request), PATIENCE)
        return self.events[request][-1].end

    def wait_for_tokens(self, request: Request) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.ids(request), PATIENCE)

    def ids(self, request: Request) -> list[int]:
        return [token.token_id for event in self.events[request] for token in event.tokens]

    def _ended(self, request: Request) -> bool:
        return any(event.end is not None for event in self.events[request])


@pytest.fixture
def collector():
    return Collector()


@pytest.fixture
def start(collector):
    """Starts loops and stops them afterwards."""
    loops = []

    def start(engine: SmallEngine, **settings) -> EngineLoop:
        loop = EngineLoop(engine, collector, **settings)
        loops.append((engine, loop))
        loop.start()
        return loop

    yield start
    for engine, loop in loops:
        engine.gate.set()
        assert loop.stop(PATIENCE)


def test_requests_from_many_threads_all_get_their_own_tokens(start, collector):
    engine = SmallEngine(slots=3)
    loop = start(engine)
    requests = [Request(n, [n % 90 + 1] * (n % 20 + 1), n % 7 + 1) for n in range(200)]
    threads = [
        threading.Thread(target=lambda part=requests[i::4]: [loop.submit(r) for r in part])
        for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for request in requests:
        assert collector.end(request) is Finish.LENGTH
        assert collector.ids(request) == engine.expected(request.prompt, request.max_tokens)
    for thread in threads:
        thread.join(PATIENCE)


def test_events_of_a_step_come_in_one_call(start, collector):
    engine = SmallEngine(slots=4, prefill_batch=4)
    engine.gate.clear()
    loop = start(engine)
    requests = [Request(n, [n + 1], 20) for n in range(4)]
    for request in requests:
        loop.submit(request)
    engine.gate.set()
    for request in requests:
        collector.end(request)
    assert max(collector.batches) == 4
    assert len(collector.batches) < 40


def test_one_step_is_dispatched_ahead_of_the_one_being_read(start, collector):
    engine = SmallEngine()
    engine.gate.clear()
    loop = start(engine)
    request = Request(0, [1], 10)
    loop.submit(request)
    wait_until(lambda: len(engine.calls) == 2)
    assert [what for what, _ in engine.calls] == ["prefill", "decode"]
    engine.gate.set()
    collector.end(request)


def test_an_idle_loop_sleeps(start, collector):
    loop = start(SmallEngine())
    request = Request(0, [1], 3)
    loop.submit(request)
    collector.end(request)
    assert loop.drain(PATIENCE)
    before = time.process_time()
    time.sleep(0.2)
    assert time.process_time() - before < 0.02


def test_cancel_frees_the_slot_within_two_steps(start, collector):
    engine = SmallEngine(slots=1, step_seconds=0.005)
    loop = start(engine)
    first, second = Request(0, [1], 100_000), Request(1, [2], 2)
    loop.submit(first)
    loop.submit(second)
    collector.wait_for_tokens(first)
    loop.cancel(first)
    before = len(engine.calls)
    assert collector.end(second) is Finish.LENGTH
    calls = engine.calls[before:]
    starts = [index for index, (what, _) in enumerate(calls) if what == "prefill"]
    steps_before = [what for what, _ in calls[: starts[0]] if what == "decode"]
    assert len(steps_before) <= 2
    assert collector.end(first).cause is Cause.CANCELLED
    assert collector.ids(second) == engine.expected([2], 2)


def test_a_full_queue_refuses_at_once(start, collector):
    engine = SmallEngine(slots=1)
    engine.gate.clear()
    loop = start(engine, policy=Policy(queue_limit=3))
    requests = [Request(n, [1], 2) for n in range(20)]
    loop.submit(requests[0])
    wait_until(lambda: loop.stats().decoding == 1)
    for request in requests[1:4]:
        loop.submit(request)
    begun = time.monotonic()
    with pytest.raises(QueueFull):
        loop.submit(requests[4])
    assert time.monotonic() - begun < 0.5
    engine.gate.set()
    for request in requests[:4]:
        assert collector.end(request) is Finish.LENGTH


@pytest.mark.parametrize("fault", ["break_reads", "break_decode"])
def test_a_lost_engine_fails_its_requests_and_refuses_more(start, collector, fault):
    engine = SmallEngine(slots=2)
    told = []
    loop = start(engine, on_lost=told.append)
    engine.gate.clear()
    requests = [Request(n, [1], 1000) for n in range(5)]
    for request in requests:
        loop.submit(request)
    setattr(engine, fault, True)
    engine.gate.set()
    for request in requests:
        end = collector.end(request)
        assert end.cause is Cause.ENGINE_LOST
        assert "the device is on fire" in end.message
    wait_until(lambda: bool(told))
    assert loop.lost == told[0] == "RuntimeError: the device is on fire"
    with pytest.raises(EngineLost, match="on fire"):
        loop.submit(Request(9, [1], 1))


def test_an_engine_that_owes_tokens_is_lost_and_not_waited_for_in_a_busy_loop(start, collector):
    engine = SmallEngine()
    loop = start(engine)
    request = Request(0, [1], 100)
    engine.gate.clear()
    loop.submit(request)
    wait_until(lambda: len(engine.unread) == 1 and len(engine.calls) == 2)
    engine._make = lambda slot, count: []
    engine.gate.set()
    assert "fewer tokens" in collector.end(request).message
    assert loop.lost is not None


def test_a_refused_chunk_fails_only_its_own_request(start, collector):
    engine = SmallEngine(slots=4, prefill_batch=3, refuses=lambda chunk: chunk.tokens[-1] == 66)
    engine.gate.clear()
    loop = start(engine)
    blocker = Request(0, [1], 5)
    loop.submit(blocker)
    wait_until(lambda: len(engine.calls) >= 1)
    good, bad, other = Request(1, [2] * 9, 5), Request(2, [3] * 8 + [66], 5), Request(3, [4] * 9, 5)
    for request in (good, bad, other):
        loop.submit(request)
    engine.gate.set()
    end = collector.end(bad)
    assert end.cause is Cause.REJECTED
    assert "cannot read the chunk at 8" in end.message
    for request in (blocker, good, other):
        assert collector.end(request) is Finish.LENGTH
        assert collector.ids(request) == engine.expected(request.prompt, 5)
    assert loop.lost is None


def test_drain_finishes_what_runs_and_what_is_queued(start, collector):
    engine = SmallEngine(slots=1, step_seconds=0.002)
    loop = start(engine)
    requests = [Request(n, [n + 1], 4) for n in range(4)]
    for request in requests:
        loop.submit(request)
    assert loop.drain(PATIENCE)
    assert all(len(collector.ids(request)) == 4 for request in requests)
    with pytest.raises(ShuttingDown):
        loop.submit(Request(9, [1], 1))


def test_drain_gives_up_after_its_time_and_stop_fails_the_rest(start, collector):
    engine = SmallEngine(slots=1, step_seconds=0.005)
    loop = start(engine)
    request = Request(0, [1], 1_000_000)
    loop.submit(request)
    assert not loop.drain(0.05)
    assert loop.stop(PATIENCE)
    assert collector.end(request).cause is Cause.SHUTDOWN


def test_stop_returns_when_the_device_hangs(collector):
    engine = SmallEngine()
    engine.gate.clear()
    loop = EngineLoop(engine, collector)
    loop.start()
    loop.submit(Request(0, [1], 5))
    wait_until(lambda: len(engine.calls) == 2)
    assert not loop.stop(timeout=0.05)
    engine.gate.set()
    assert loop.stop(PATIENCE)


def wait_until(holds) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.001)

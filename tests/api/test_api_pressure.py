"""Deadlines, cancels, full queues and broken engines, over real sockets."""

import asyncio
import time
from collections import Counter

import grpc
import pytest

from protos import orchestrator_pb2 as pb
from tests.api.served import PATIENCE, VOCAB, Served, burst, by_ids, serving, wait_until
from tests.scheduler.small_engine import SmallEngine, echo

Code = grpc.StatusCode


def endless(served: Served, timeout: float | None = None):
    """A stream that runs until it is stopped; its first token has come."""
    call = served.stub.Decode(by_ids([1], served.max_tokens), timeout=timeout)
    next(call)
    return call


@pytest.mark.parametrize(
    ("count", "limit"),
    [
        pytest.param(10_000, 16_384, marks=pytest.mark.slow),
        (2_000, 16_384),
        (10_000, 100),
    ],
)
def test_thousands_of_requests_at_once_are_queued_or_refused(count, limit):
    engine = SmallEngine(vocab=VOCAB, slots=8, prefill_batch=2)
    engine.gate.clear()  # nothing is served until every call was queued or refused
    with serving(engine, queue_limit=limit) as (served, thread):

        def settled() -> int:
            value = thread.server.metrics.registry.get_sample_value
            refused = value("loadstone_requests_refused_total", {"cause": "queue_full"}) or 0
            stats = thread.server.engine_loop.stats()
            return int(refused) + stats.queued + stats.prefilling + stats.decoding

        async def go() -> Counter:
            calls = asyncio.ensure_future(burst(served.address, count))
            end = time.monotonic() + 60
            while settled() < count:
                assert time.monotonic() < end, f"only {settled()} calls got anywhere"
                await asyncio.sleep(0.02)
            engine.gate.set()
            return await calls

        outcomes = asyncio.run(go())
        assert outcomes["OK"] + outcomes["RESOURCE_EXHAUSTED"] == count, outcomes
        assert min(count, limit) <= outcomes["OK"] <= limit + 8  # two steps of four are under way
        assert len(served.decode(by_ids([1], 3)).ids) == 3


def test_a_full_queue_refuses_at_once_and_says_so():
    engine = SmallEngine(vocab=VOCAB, slots=1)
    engine.gate.clear()
    with serving(engine, queue_limit=1) as (served, thread):
        stats = thread.server.engine_loop.stats
        calls = [served.stub.Decode(by_ids([1], 2), timeout=PATIENCE)]
        wait_until(lambda: stats().decoding == 1, "the first request runs")
        calls.append(served.stub.Decode(by_ids([1], 2), timeout=PATIENCE))
        wait_until(lambda: stats().queued == 1, "the second request is queued")
        begun = time.monotonic()
        with pytest.raises(grpc.RpcError, match="the limit is 1") as refused:
            served.decode(by_ids([1], 2))
        assert refused.value.code() is Code.RESOURCE_EXHAUSTED
        assert time.monotonic() - begun < 2
        engine.gate.set()
        for call in calls:
            assert sum(len(m.stream_content.samples[0].token_ids) for m in call) == 2


def test_a_client_that_hangs_up_frees_its_slot():
    engine = SmallEngine(vocab=VOCAB, slots=1, step_seconds=0.005)
    with serving(engine) as (served, thread):
        call = endless(served)
        call.cancel()
        assert len(served.decode(by_ids([2], 3)).ids) == 3
        assert thread.server.engine_loop.stats().tokens < 2000
        value = thread.server.metrics.registry.get_sample_value
        assert value("loadstone_requests_cancelled_total") == 1
        wait_until(lambda: not len(thread.server._streams), "nothing of the streams is kept")


def test_a_queued_client_that_hangs_up_leaves_the_queue():
    engine = SmallEngine(vocab=VOCAB, slots=1, step_seconds=0.005)
    with serving(engine) as (served, thread):
        running = endless(served)
        queued = served.stub.Decode(by_ids([2], 3), timeout=PATIENCE)
        stats = thread.server.engine_loop.stats
        wait_until(lambda: stats().queued == 1, "the second request is queued")
        queued.cancel()
        wait_until(lambda: stats().queued == 0, "the queued request left")
        prefills = [slots for what, slots in engine.calls if what == "prefill"]
        assert len(prefills) == 1
        running.cancel()


def test_a_client_whose_connection_breaks_frees_its_slot():
    engine = SmallEngine(vocab=VOCAB, slots=1, step_seconds=0.005)
    with serving(engine) as (served, thread):
        endless(served)
        served.channel.close()
        stats = thread.server.engine_loop.stats
        wait_until(lambda: stats().decoding == 0, "the slot is free")


def test_a_deadline_frees_the_slot_of_a_running_request():
    engine = SmallEngine(vocab=VOCAB, slots=1, step_seconds=0.005)
    with serving(engine) as (served, _):
        call = endless(served, timeout=0.3)
        with pytest.raises(grpc.RpcError) as late:
            list(call)
        assert late.value.code() is Code.DEADLINE_EXCEEDED
        assert len(served.decode(by_ids([2], 3)).ids) == 3


def test_a_deadline_holds_in_the_queue_and_never_touches_the_device():
    engine = SmallEngine(vocab=VOCAB, slots=1, step_seconds=0.005)
    with serving(engine) as (served, thread):
        running = endless(served)
        begun = time.monotonic()
        with pytest.raises(grpc.RpcError) as late:
            served.decode(by_ids([2], 3), timeout=0.2)
        assert late.value.code() is Code.DEADLINE_EXCEEDED
        assert time.monotonic() - begun < 2
        stats = thread.server.engine_loop.stats
        wait_until(lambda: stats().queued == 0, "the late request left the queue")
        assert len([what for what, _ in engine.calls if what == "prefill"]) == 1
        running.cancel()


def test_a_deadline_holds_while_the_event_loop_is_busy():
    engine = SmallEngine(vocab=VOCAB, slots=1)
    engine.gate.clear()
    with serving(engine) as (served, thread):
        running = served.stub.Decode(by_ids([1], 2), timeout=PATIENCE)
        wait_until(lambda: len(engine.calls) == 2, "the first request runs")
        late = served.stub.Decode(by_ids([2], 3), timeout=0.2)
        stats = thread.server.engine_loop.stats
        wait_until(lambda: stats().queued == 1, "the second request is queued")
        thread.loop.call_soon_threadsafe(time.sleep, 0.6)
        time.sleep(0.3)
        engine.gate.set()
        wait_until(lambda: stats().queued == 0, "the late request left the queue")
        assert [what for what, _ in engine.calls] == ["prefill", "decode"]
        with pytest.raises(grpc.RpcError) as failed:
            list(late)
        assert failed.value.code() is Code.DEADLINE_EXCEEDED
        assert len(list(running)) >= 1


@pytest.mark.parametrize("fault", ["break_reads", "break_decode"])
def test_a_lost_engine_is_told_to_clients_and_health(fault):
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    engine = SmallEngine(vocab=VOCAB, slots=1, step_seconds=0.005)
    with serving(engine) as (served, thread):
        running = endless(served)
        queued = served.stub.Decode(by_ids([2], 3), timeout=PATIENCE)
        stats = thread.server.engine_loop.stats
        wait_until(lambda: stats().queued == 1, "the second request is queued")
        setattr(engine, fault, True)
        for call in (running, queued):
            with pytest.raises(grpc.RpcError, match="the device is on fire") as failed:
                list(call)
            assert failed.value.code() is Code.INTERNAL
        with pytest.raises(grpc.RpcError, match="the device is on fire") as refused:
            served.decode(by_ids([1], 1))
        assert refused.value.code() is Code.UNAVAILABLE
        assert not served.stub.HealthCheck(pb.HealthCheckRequest(), timeout=PATIENCE).is_live
        health = health_pb2_grpc.HealthStub(served.channel)
        ask = health_pb2.HealthCheckRequest()
        not_serving = health_pb2.HealthCheckResponse.NOT_SERVING
        wait_until(lambda: health.Check(ask).status == not_serving, "health turns unready")


def test_a_request_that_the_engine_refuses_fails_alone():
    engine = SmallEngine(vocab=VOCAB, choose=echo, refuses=lambda chunk: 66 in chunk.tokens)
    with serving(engine) as (served, _):
        with pytest.raises(grpc.RpcError, match="the engine refused this request") as failed:
            served.decode(by_ids([1, 66], 3))
        assert failed.value.code() is Code.INTERNAL
        assert len(served.decode(by_ids([1], 3)).ids) == 3

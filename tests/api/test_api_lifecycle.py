"""Start, health, reflection, metrics and shutdown of a server."""

import re
import threading
import time
import urllib.request

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from protos import orchestrator_pb2 as pb
from server.api import ServerConfig
from tests.api.served import LOCAL, PATIENCE, VOCAB, ServerThread, by_ids, serving, wait_until
from tests.scheduler.small_engine import SmallEngine, echo

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
JETSTREAM_METRICS = [
    "prefill_backlog_size",
    "transfer_backlog_size",
    "generate_backlog_size",
    "queue_duration",
    "slots_used_percentage",
    "model_load_time",
    "server_startup_latency",
    "request_input_length",
    "request_output_length",
    "request_success_count",
    "time_to_first_token",
    "time_per_output_token",
    "time_per_prefill_token",
    "time_per_request",
    "wait_time_per_request",
]


def scrape(thread: ServerThread) -> dict[str, float]:
    """Every sample without labels, by name."""
    url = f"http://127.0.0.1:{thread.server.metrics_port}/metrics"
    with urllib.request.urlopen(url, timeout=PATIENCE) as page:
        lines = page.read().decode().splitlines()
    pairs = [line.rsplit(" ", 1) for line in lines if not line.startswith("#")]
    return {name: float(value) for name, value in pairs}


def test_health_follows_the_server():
    with serving(SmallEngine(vocab=VOCAB)) as (served, thread):
        health = health_pb2_grpc.HealthStub(served.channel)
        for name in ("", "jetstream_proto.Orchestrator"):
            ask = health_pb2.HealthCheckRequest(service=name)
            assert health.Check(ask, timeout=PATIENCE).status == SERVING
        assert served.stub.HealthCheck(pb.HealthCheckRequest(), timeout=PATIENCE).is_live
        watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
        assert next(watch).status == SERVING
        begun = time.monotonic()
        assert thread.stop(drain_seconds=5)
        assert next(watch).status == NOT_SERVING
        assert time.monotonic() - begun < 4


def test_reflection_lists_the_services():
    with serving(SmallEngine(vocab=VOCAB)) as (served, _):
        stub = reflection_pb2_grpc.ServerReflectionStub(served.channel)
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        answer = next(iter(stub.ServerReflectionInfo(iter([ask]), timeout=PATIENCE)))
        names = {service.name for service in answer.list_services_response.service}
        assert {"jetstream_proto.Orchestrator", "grpc.health.v1.Health"} <= names
        ask = reflection_pb2.ServerReflectionRequest(
            file_containing_symbol="jetstream_proto.Orchestrator"
        )
        answer = next(iter(stub.ServerReflectionInfo(iter([ask]), timeout=PATIENCE)))
        assert answer.file_descriptor_response.file_descriptor_proto


def test_metrics_have_jetstreams_names_and_the_right_values():
    engine = SmallEngine(vocab=VOCAB, choose=echo)
    with serving(engine, metrics_port=0) as (served, thread):
        for _ in range(3):
            served.decode(by_ids([1] * 10, 5, has_bos=True))
        with pytest.raises(grpc.RpcError):
            served.decode(by_ids([]))
        seen = scrape(thread)
        for name in JETSTREAM_METRICS:
            assert any(re.match(f"jetstream_{name}(_total|_count)?$", key) for key in seen), name
        assert seen["jetstream_request_success_count_total"] == 3
        assert seen["jetstream_request_input_length_sum"] == 30
        assert seen["jetstream_request_output_length_sum"] == 15
        assert seen["jetstream_time_to_first_token_count"] == 3
        assert seen["jetstream_time_per_output_token_sum"] > 0
        assert seen["loadstone_tokens_generated_total"] == 15
        assert seen['loadstone_requests_refused_total{cause="invalid"}'] == 1
        assert seen["loadstone_engine_up"] == 1


def test_metrics_show_queue_and_slots_as_they_are():
    engine = SmallEngine(vocab=VOCAB, slots=4)
    engine.gate.clear()
    with serving(engine, metrics_port=0) as (served, thread):
        stats = thread.server.engine_loop.stats
        calls = [served.stub.Decode(by_ids([1], 3), timeout=PATIENCE)]
        wait_until(lambda: len(engine.calls) == 2, "a prefill and a decode step are under way")
        calls += [served.stub.Decode(by_ids([1], 3), timeout=PATIENCE) for _ in range(3)]
        wait_until(lambda: stats().queued == 3, "the others are queued")
        seen = scrape(thread)
        assert seen["jetstream_prefill_backlog_size"] == 3
        assert seen["jetstream_slots_used_percentage"] == 0.25
        engine.gate.set()
        for call in calls:
            list(call)


def test_drain_finishes_running_and_queued_requests_and_refuses_new_ones():
    engine = SmallEngine(vocab=VOCAB, slots=1, choose=echo, step_seconds=0.01)
    with serving(engine) as (served, thread):
        running = served.stub.Decode(by_ids([1], 30), timeout=PATIENCE)
        next(running)
        queued = served.stub.Decode(by_ids([2], 5), timeout=PATIENCE)
        wait_until(lambda: thread.server.engine_loop.stats().queued, "one is queued")
        drained = []
        stopping = threading.Thread(target=lambda: drained.append(thread.stop(PATIENCE)))
        stopping.start()
        wait_until(lambda: thread.server.engine_loop.draining, "the server drains")
        with pytest.raises(grpc.RpcError, match="shutting down") as refused:
            served.decode(by_ids([3], 1))
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        for call in (running, queued):
            assert list(call)[-1].stream_content.samples[0].finish_reason
        stopping.join(PATIENCE)
        assert drained == [True]


def test_what_outlasts_the_drain_fails_as_unavailable():
    engine = SmallEngine(vocab=VOCAB, slots=1, step_seconds=0.005)
    with serving(engine) as (served, thread):
        running = served.stub.Decode(by_ids([1], 30_000), timeout=PATIENCE)
        next(running)
        assert not thread.stop(drain_seconds=0.05)
        with pytest.raises(grpc.RpcError, match="shut down before") as failed:
            list(running)
        assert failed.value.code() is grpc.StatusCode.UNAVAILABLE


def test_wait_returns_after_stop():
    thread = ServerThread(SmallEngine(vocab=VOCAB), None)
    waiting = threading.Thread(target=lambda: thread.run(thread.server.wait()))
    waiting.start()
    assert waiting.is_alive()
    thread.stop()
    waiting.join(PATIENCE)
    assert not waiting.is_alive()
    thread.close()


@pytest.mark.parametrize("which", ["port", "metrics_port"])
def test_a_taken_port_is_named(which):
    with serving(SmallEngine(vocab=VOCAB), metrics_port=0) as (_, thread):
        taken = getattr(thread.server, which)
        with (
            pytest.raises(OSError, match=f"127.0.0.1:{taken}"),
            serving(SmallEngine(vocab=VOCAB), **{"metrics_port": 0, which: taken}),
        ):
            pass


@pytest.mark.parametrize(
    ("name", "value"), [("port", 70_000), ("queue_limit", 0), ("max_tokens", -1)]
)
def test_a_wrong_setting_is_named(name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        ServerConfig(**{name: value})


def test_port_zero_picks_a_free_port():
    assert LOCAL.port == 0
    with serving(SmallEngine(vocab=VOCAB)) as (served, _):
        assert not served.address.endswith(":0")

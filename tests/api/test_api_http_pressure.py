"""Full queues, shutdown, broken engines and slow readers, over HTTP."""

import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from urllib.parse import urlsplit

import openai
import pytest

from tests.api.http_rig import CHAT_BYTES, MODEL, Web, web
from tests.api.served import PATIENCE, VOCAB, wait_until
from tests.scheduler.small_engine import SmallEngine, echo
from tokenization.pieces import Pieces


def begun(server: Web, tokens: int = 30_000) -> openai.Stream:
    """A stream whose first token has come."""
    client = server.openai()
    stream = client.completions.create(model=MODEL, prompt=[1], max_tokens=tokens, stream=True)
    next(stream)
    return stream


def test_a_full_queue_is_429_with_retry_after():
    engine = SmallEngine(vocab=VOCAB, slots=1)
    engine.gate.clear()
    with web(engine, queue_limit=1) as server, ThreadPoolExecutor(2) as pool:
        stats = server.thread.server.engine_loop.stats
        calls = [pool.submit(server.ask, "completions", prompt=[1], max_tokens=2)]
        wait_until(lambda: stats().decoding == 1, "the first request runs")
        calls.append(pool.submit(server.ask, "completions", prompt=[1], max_tokens=2))
        wait_until(lambda: stats().queued == 1, "the second request is queued")
        refused = server.ask("completions", prompt=[1])
        assert refused.status == 429
        assert int(refused.headers["Retry-After"]) >= 1
        assert refused.error["code"] == "rate_limit_exceeded"
        assert "the limit is 1" in refused.error["message"]
        with pytest.raises(openai.RateLimitError):
            server.openai().completions.create(model=MODEL, prompt=[1])
        engine.gate.set()
        assert [call.result().status for call in calls] == [200, 200]
        value = server.thread.server.metrics.registry.get_sample_value
        assert value("loadstone_requests_refused_total", {"cause": "queue_full"}) == 2


def test_choices_are_admitted_all_or_none():
    engine = SmallEngine(vocab=VOCAB, slots=1)
    engine.gate.clear()
    with web(engine, queue_limit=2) as server:
        stats = server.thread.server.engine_loop.stats
        assert server.ask("completions", prompt=[1], n=4).status == 429
        wait_until(lambda: stats().queued + stats().decoding == 0, "none of the four is left")
        engine.gate.set()
        assert server.ask("completions", prompt=[1], max_tokens=2).status == 200


def test_many_requests_at_once_are_all_answered():
    engine = SmallEngine(vocab=VOCAB, slots=8, choose=echo)
    with web(engine) as server, ThreadPoolExecutor(32) as pool:

        def ask(number: int) -> list[int]:
            prompt = [number % 97 + 1, number % 89 + 1]
            fields = {"prompt": prompt, "max_tokens": 5, "return_token_ids": True}
            answer = server.ask("completions", stream=bool(number % 2), **fields)
            if not number % 2:
                return answer.json["choices"][0]["token_ids"]
            parts = [json.loads(event)["choices"][0] for event in answer.events[:-1]]
            return [token_id for part in parts for token_id in part["token_ids"]]

        for number, ids in enumerate(pool.map(ask, range(300))):
            first, second = number % 97 + 1, number % 89 + 1
            assert ids == [first, second, first, second, first]


@pytest.mark.parametrize("fault", ["break_reads", "break_decode"])
def test_a_lost_engine_ends_streams_with_an_error_and_turns_health_red(fault):
    engine = SmallEngine(vocab=VOCAB, slots=1, step_seconds=0.005)
    with web(engine) as server, ThreadPoolExecutor(1) as pool:
        assert server.send("GET", "/health").status == 200
        stream = begun(server)
        queued = pool.submit(server.ask, "completions", prompt=[2])
        stats = server.thread.server.engine_loop.stats
        wait_until(lambda: stats().queued == 1, "the second request is queued")
        setattr(engine, fault, True)
        with pytest.raises(openai.APIError, match="the device is on fire"):
            list(stream)
        assert queued.result().status == 500
        assert "the device is on fire" in queued.result().error["message"]
        assert server.ask("completions", prompt=[1]).status == 503
        health = server.send("GET", "/health")
        assert health.status == 503
        assert "the device is on fire" in health.error["message"]


def test_a_stream_that_broke_has_no_done():
    engine = SmallEngine(vocab=VOCAB, slots=1, step_seconds=0.01)
    with web(engine) as server, ThreadPoolExecutor(1) as pool:
        call = pool.submit(server.ask, "completions", prompt=[1], max_tokens=30_000, stream=True)
        stats = server.thread.server.engine_loop.stats
        wait_until(lambda: stats().tokens > 2, "tokens are made")
        engine.break_reads = True
        answer = call.result()
    assert answer.status == 200
    assert "[DONE]" not in answer.events
    assert json.loads(answer.events[-1])["error"]["type"] == "server_error"


def test_a_request_that_the_engine_refuses_fails_alone():
    engine = SmallEngine(vocab=VOCAB, choose=echo, refuses=lambda chunk: 66 in chunk.tokens)
    with web(engine) as server:
        for stream in (False, True):
            failed = server.ask("completions", prompt=[1, 66], stream=stream)
            assert failed.status == 500
            assert "the engine refused this request" in failed.error["message"]
        assert server.ask("completions", prompt=[1]).status == 200


def test_drain_finishes_what_runs_and_refuses_new_requests():
    engine = SmallEngine(vocab=VOCAB, slots=1, choose=echo, step_seconds=0.01)
    with web(engine) as server:
        stream = begun(server, 40)
        stopping = threading.Thread(target=lambda: server.thread.stop(PATIENCE))
        stopping.start()
        wait_until(lambda: server.thread.server.engine_loop.draining, "the server drains")
        assert server.ask("completions", prompt=[1]).status == 503
        assert server.send("GET", "/health").status == 503
        assert list(stream)[-1].choices[0].finish_reason == "length"
        stopping.join(PATIENCE)
        assert not stopping.is_alive()


def test_what_outlasts_the_drain_is_told_so():
    engine = SmallEngine(vocab=VOCAB, slots=1, step_seconds=0.005)
    with web(engine) as server:
        stream = begun(server)
        assert not server.thread.stop(drain_seconds=0.05)
        with pytest.raises(openai.APIError, match="shut down before"):
            list(stream)


def test_a_client_that_reads_nothing_is_hung_up_on():
    wide = replace(CHAT_BYTES, pieces=Pieces([b"x" * 2000] * VOCAB))
    with web(SmallEngine(vocab=VOCAB), wide, stall_seconds=1) as server:
        place = urlsplit(server.url)
        with socket.socket() as line:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            line.connect((place.hostname, place.port))
            body = json.dumps({"prompt": [1], "max_tokens": 20_000, "stream": True}).encode()
            head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
            line.sendall(head.encode() + b"\r\n" + body)
            streams = server.thread.server._streams
            wait_until(lambda: len(streams) == 1, "the stream runs")
            wait_until(lambda: len(streams) == 0, "the stream is given up")
        assert server.ask("completions", prompt=[1], max_tokens=2).status == 200


def test_a_taken_http_port_is_named():
    with web() as server:
        taken = server.thread.server.http_port
        with pytest.raises(OSError, match=f"HTTP on 127.0.0.1:{taken}"), web(http_port=taken):
            pass


def test_metrics_and_version_are_served():
    with web() as server:
        server.ask("completions", prompt=[1], max_tokens=2)
        page = server.send("GET", "/metrics")
        assert page.headers["Content-Type"].startswith("text/plain")
        assert b"loadstone_tokens_generated_total 2.0" in page.body
        assert server.send("GET", "/version").json["version"]

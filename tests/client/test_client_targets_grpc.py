"""Every gRPC transport against real gRPC servers: the same causes, tokens, order and times."""

import asyncio
import signal
import socket
import time
from pathlib import Path

import pytest
from client_rig import Link, serving
from target_rig import LOOPS, asking, prompt, run, summary, until

from client.errors import NotReadyError
from client.targets.exchange import Exchange
from client.targets.open import make_target
from client.targets.settings import TargetSettings

CERTIFICATES = Path(__file__).parents[1] / "api" / "certificates"
# Each where a run would use it, and ours on the stock loop too.
WAYS = [("fast", "uvloop"), ("fast", "asyncio"), ("loop", "uvloop"), ("grpcio", "asyncio")]


@pytest.fixture(params=WAYS, ids=" on ".join)
def way(request):
    return request.param


@pytest.fixture(params=[way for way in WAYS if way != ("fast", "asyncio")], ids=" on ".join)
def quick(request):
    """Where the loop makes no difference."""
    return request.param


def settings_for(way, port: int, **changes) -> TargetSettings:
    usual = {"transport": way[0], "server": "127.0.0.1", "port": port, "connections": 2}
    return TargetSettings(**usual | {"request_timeout": 20.0, "connect_timeout": 10.0} | changes)


def asked(way, port: int, prompts, meanwhile=None, **changes):
    return run(asking(settings_for(way, port, **changes), prompts, meanwhile), way[1])


COMPLETED = ("completed", "", "")
TIMEOUT = ("failed", "timeout", "no end within 1.5 s")
# What each script must become: outcome, ids, text, finish.
SCRIPTS = {
    "go": (COMPLETED, tuple(range(8)), "x" * 8, "length"),
    "burst": (COMPLETED, tuple(range(8)), "x" * 8, "length"),
    "textual": (COMPLETED, (), "ab" * 4, "length"),
    "early": (COMPLETED, (0, 1, 2), "xxx", "length"),
    "refuse": (("failed", "RESOURCE_EXHAUSTED", "the queue is full"), (), "", None),
    "unwell": (("failed", "UNAVAILABLE", "the engine is lost"), (), "", None),
    "cancelled": (("failed", "CANCELLED", "not wanted"), (), "", None),
    "hurried": (
        ("failed", "DEADLINE_EXCEEDED", "the server's own: 1 % & \u00fc"), (), "", None,
    ),
    "break": (("failed", "INTERNAL", "the step failed"), (0, 1), "xx", None),
    "cut": (("failed", "truncated stream", ""), (0, 1), "xx", None),
    "nothing": (("failed", "empty stream", ""), (), "", None),
    "silent": (TIMEOUT, (), "", None),
    "stuck": (TIMEOUT, (0, 1), "xx", None),
}  # fmt: skip


def test_every_script_ends_as_it_should(server, way):
    prompts = [prompt(f"{script} please") for script in SCRIPTS]
    records = asked(way, server.port, prompts, request_timeout=1.5)
    found = {
        record.prompt_id.split(" ")[0]: (
            summary(record), record.token_ids, record.text, record.finish,
        )
        for record in records
    }  # fmt: skip
    assert found == SCRIPTS
    by_name = {record.prompt_id.split(" ")[0]: record for record in records}
    for name in ("go", "burst"):
        went = by_name[name]
        assert (went.server_queue, went.server_prefill) == (0.25, 0.5)
        assert went.server_completion_tokens == 8
        assert went.server_prompt_tokens == len(f"{name} please") + 1
    for record in records:
        times = [record.sent, *(time for time, _ in record.arrivals), record.ended]
        assert times == sorted(times)


def test_tokens_are_never_earlier_than_the_server_sent_them(quick):
    with serving("--ttft", "0.2", "--itl", "0.03") as slow:
        (record,) = asked(quick, slow.port, [prompt("go", 10)])
    since = [time - record.sent for time, _ in record.arrivals]
    assert all(time >= 0.2 + 0.03 * index for index, time in enumerate(since))
    # Stamped as they came, not when the stream had ended.
    assert len(set(since)) > 1


def test_jetstream_itself(quick):
    with serving("--jetstream") as theirs:
        (record,) = asked(quick, theirs.port, [prompt("go", 5)])
    assert (record.outcome.value, record.tokens, record.finish) == ("completed", 5, None)
    assert record.server_queue is None


def test_500_streams_at_once_on_two_connections(server, way):
    records = asked(way, server.port, [prompt(f"go {number}", 4) for number in range(500)])
    assert {summary(record) for record in records} == {COMPLETED}
    assert {record.token_ids for record in records} == {(0, 1, 2, 3)}
    assert [record.prompt_id for record in records] == [f"go {number}" for number in range(500)]


def test_a_limit_of_streams_on_a_connection(quick):
    with serving("--streams", "2", "--ttft", "0.1") as limited:
        prompts = [prompt("go", 4)] * 20
        records = asked(quick, limited.port, prompts, connections=1)
    found = {summary(record)[:2] for record in records}
    if quick[0] != "grpcio":  # opens further connections
        assert found == {("completed", "")}
    else:  # gRPC holds some back on its one connection, and the server refuses others
        assert found <= {("completed", ""), ("failed", "stream refused")}


def test_a_prompt_longer_than_every_window_is_sent_whole(server, way):
    prompts = [prompt("go " + "p" * length, 2) for length in (65_000, 65_536, 2**20, 3 * 2**20)]
    records = asked(way, server.port, prompts * 2, connections=1)
    assert {summary(record) for record in records} == {COMPLETED}
    lengths = [len(each.text) + 1 for each in prompts * 2]
    assert [record.server_prompt_tokens for record in records] == lengths


def test_messages_longer_than_frames_and_windows_are_read_whole(server, way):
    (record,) = asked(way, server.port, [prompt("long", 5)])
    assert record.token_ids == (0, 1, 2, 3, 4)
    assert record.text == "".join(letter * 2**20 for letter in "abcde")


def test_a_request_that_waits_to_be_sent_can_time_out_alone(server, quick):
    """The link holds back the windows that the server opens; the next request is unharmed."""
    link = Link(server.port)

    async def freeze(target, exchanges):
        link.freeze()

    prompts = [prompt("go " + "p" * 2**20, 2)]
    (record,) = asked(quick, link.port, prompts, freeze, request_timeout=0.5)
    link.close()
    assert summary(record) == ("failed", "timeout", "no end within 0.5 s")


@pytest.mark.parametrize(
    ("broken", "cause"), [("half_close", "connection lost"), ("freeze", "timeout")]
)
def test_a_link_that_breaks(server, way, broken, cause):
    link = Link(server.port)

    async def meanwhile(target, exchanges):
        await until(lambda: all(exchange.tokens > 2 for exchange in exchanges))
        getattr(link, broken)()

    prompts = [prompt("go", 10_000)] * 3
    records = asked(way, link.port, prompts, meanwhile, request_timeout=1.2)
    link.close()
    assert {summary(record)[:2] for record in records} == {("failed", cause)}
    for record in records:
        assert record.token_ids[:2] == (0, 1)
        assert record.token_ids == tuple(range(record.tokens))


def test_a_server_that_dies(way):
    with serving("--itl", "0.01") as doomed:

        async def meanwhile(target, exchanges):
            await until(lambda: all(exchange.tokens > 2 for exchange in exchanges))
            doomed.process.kill()

        records = asked(way, doomed.port, [prompt("go", 10_000)] * 3, meanwhile)
    assert {summary(record)[:2] for record in records} == {("failed", "connection lost")}
    assert all(record.tokens for record in records)


def test_requests_after_a_server_has_died_fail_at_once(way):
    async def both(settings):
        target = make_target(settings)
        await target.open(lambda reason: None)
        doomed.process.kill()
        doomed.process.wait()
        found = []
        for _ in range(3):
            exchange = Exchange()
            await target.ask(target.build(prompt("go")), exchange)
            assert exchange.sent <= exchange.ended
            found.append((exchange.status, exchange.detail))
        await target.close()
        return found

    with serving() as doomed:
        found = run(both(settings_for(way, doomed.port)), way[1])
    assert [status for status, _ in found] == ["connection lost"] * 3, found


def test_a_graceful_shutdown_lets_streams_end(way):
    with serving("--itl", "0.01") as leaving:

        async def meanwhile(target, exchanges):
            await until(lambda: all(exchange.tokens > 2 for exchange in exchanges))
            leaving.process.send_signal(signal.SIGTERM)

        records = asked(way, leaving.port, [prompt("go", 60)] * 4, meanwhile)
        assert {summary(record) for record in records} == {COMPLETED}
        assert {record.tokens for record in records} == {60}
        # The connections are given back when their last stream has ended.
        assert leaving.process.wait(timeout=8) == 0


def test_headers_and_key_go_with_each_call(server, quick):
    headers = {"X-Route": "a b", "x-team": "capacity"}
    text = "told authorization x-route x-team"
    (record,) = asked(quick, server.port, [prompt(text)], headers=headers, api_key="k3y")
    assert record.text == "authorization=Bearer k3y;x-route=a b;x-team=capacity"


def test_a_server_that_wants_a_key_says_so_at_once(quick):
    with serving("--key", "right") as keyed:
        started = time.monotonic()
        with pytest.raises(NotReadyError, match="wants a key") as told:
            asked(quick, keyed.port, [], api_key="wr0ng-key")
        assert time.monotonic() - started < 8
        assert "wr0ng" not in str(told.value)
        assert asked(quick, keyed.port, [], api_key="right") == []


def test_tls_with_a_certificate_of_ones_own(quick):
    secure = {"tls": True, "ca_file": CERTIFICATES / "certificate.pem"}
    with serving("--certificates", str(CERTIFICATES)) as encrypted:
        records = asked(quick, encrypted.port, [prompt("go"), prompt("refuse")], **secure)
        assert [summary(record)[:2] for record in records] == [
            ("completed", ""), ("failed", "RESOURCE_EXHAUSTED"),
        ]  # fmt: skip
        for wrong in ({"tls": True}, {}):  # an unknown authority, no encryption
            with pytest.raises(NotReadyError, match="no ready server"):
                asked(quick, encrypted.port, [], connect_timeout=0.5, **wrong)


def test_a_server_that_is_loading_is_waited_for(quick):
    said = []

    async def opening(settings):
        target = make_target(settings)
        await target.open(said.append)
        await target.close()

    with serving("--not-live", "2") as loading:
        run(opening(settings_for(quick, loading.port)), quick[1])
        address = f"127.0.0.1:{loading.port}"
    assert said == [f"waiting for the server at {address}: it answers that it is not live yet"]


@pytest.mark.parametrize("health_check", [True, False])
def test_a_port_that_answers_nothing_is_not_ready_in_time(quick, health_check):
    with socket.create_server(("localhost", 0)) as mute:
        started = time.monotonic()
        with pytest.raises(NotReadyError, match=r"no ready server at 127\.0\.0\.1"):
            asked(quick, mute.getsockname()[1], [], connect_timeout=0.4, health_check=health_check)
    assert time.monotonic() - started < 6


def test_what_is_cancelled_stays_open_with_what_had_come(server, way):
    async def cancelling(settings):
        target = make_target(settings)
        await target.open(lambda reason: None)
        exchange = Exchange()
        task = asyncio.create_task(target.ask(target.build(prompt("stuck")), exchange))
        await until(lambda: exchange.tokens >= 2)
        task.cancel()
        await asyncio.wait([task])
        await asyncio.sleep(0.05)
        other = Exchange()
        await target.ask(target.build(prompt("go")), other)
        found = task.cancelled(), exchange.status, exchange.ended, target.read(exchange), other
        await target.close()
        return found

    cancelled, status, ended, answer, other = run(
        cancelling(settings_for(way, server.port, connections=1)), way[1]
    )
    assert (cancelled, status, ended) == (True, None, None)
    assert [token for piece in answer.pieces for token in piece.token_ids] == [0, 1]
    assert other.status == "OK"


def test_every_loop_is_tried():
    assert {loop for _, loop in WAYS} == set(LOOPS)

"""The HTTP target against a server that does everything right, and everything wrong."""

import asyncio
import json
import socket
import time
import urllib.request
from pathlib import Path

import pytest
from client_rig import HTTP_SERVER, Link, serving
from scripted_http import PIECES, SCRIPTS
from target_rig import asking, prompt, run, summary, until

from client.errors import NotReadyError
from client.results.records import CountedBy
from client.targets.exchange import Exchange
from client.targets.open import make_target
from client.targets.settings import TargetSettings

CERTIFICATES = Path(__file__).parents[1] / "api" / "certificates"
TEXT = "".join(PIECES[index % 4] for index in range(8))
TWO = "".join(PIECES[:2])
DONE = ("completed", "")
USAGE, TOKENIZER, IDS = CountedBy.USAGE, CountedBy.TOKENIZER, CountedBy.TOKEN_IDS
BYTES = len(TEXT.encode())  # of the test's tokenizer
FAILURE = ("failed", "error in the stream")
LOST, MALFORMED, TIMEOUT = (
    ("failed", cause) for cause in ("connection lost", "malformed answer", "timeout")
)
# What each script must become: outcome, text, tokens, and who counted those of completed ones.
EXPECTED = {
    **dict.fromkeys(
        (
            "tokens", "cuts", "several", "crlf", "comments", "nodone", "usageeach", "timed",
            "toend", "closing", "continued", "drip", "twice", "document", "pretty",
        ),
        (DONE, TEXT, 8, USAGE),
    ),
    "nousage": (DONE, TEXT, BYTES, TOKENIZER),
    "usagenull": (DONE, TEXT, BYTES, TOKENIZER),
    "emptytext": (DONE, "é😀b" * 2, 8, USAGE),
    "ids": (DONE, TEXT, 16, IDS),
    "reasoning": (DONE, "hmhm" + TEXT, 4 + BYTES, TOKENIZER),
    "errorevent": (FAILURE, TWO, None, None),
    "errorobject": (FAILURE, TWO, None, None),
    "errorline": (FAILURE, TWO, None, None),
    "cutoff": (("failed", "truncated stream"), TWO, None, None),
    "toendcut": (MALFORMED, TWO, None, None),
    "nothing": (("failed", "empty stream"), "", None, None),
    "busy": (("failed", "HTTP 429"), "", None, None),
    "failing": (("failed", "HTTP 500"), "", None, None),
    "stranger": (("failed", "HTTP 401"), "", None, None),
    "elsewhere": (("failed", "HTTP 307"), "", None, None),
    "emptied": (("failed", "HTTP 204"), "", None, None),
    "page": (MALFORMED, "", None, None),
    "halfchunk": (LOST, TWO, None, None),
    "shortened": (LOST, TWO, None, None),
    "slammed": (LOST, TWO, None, None),
    "hangup": (LOST, "", None, None),
    "garbage": (MALFORMED, "", None, None),
    "badchunk": (MALFORMED, TWO, None, None),
    "badevent": (MALFORMED, TWO + PIECES[0], None, None),
    "badline": (MALFORMED, TEXT, None, None),
    "badids": (MALFORMED, TEXT, None, None),
    "deep": (MALFORMED, "", None, None),
    "switched": (MALFORMED, "", None, None),
    "zipped": (MALFORMED, "", None, None),
    "silent": (TIMEOUT, "", None, None),
    "headersonly": (TIMEOUT, "", None, None),
    "stuck": (TIMEOUT, TWO, None, None),
    "endless": (TIMEOUT, "", None, None),
}  # fmt: skip
DETAILS = {
    "errorevent": "out of memory",
    "errorobject": "out of memory",
    "errorline": "out of memory",
    "busy": "slow down",
    "failing": "<html><body>\nBad gateway\n</body></html>",
    "stranger": "who are you?",
    "elsewhere": "/v2/completions",
    "zipped": "the answer is encoded (gzip), which was not asked for",
    "switched": "another protocol",
    "halfchunk": "closed before the answer was whole",
    "silent": "no end within 1.5 s",
}
KINDS = ["openai", "openai-chat"]
TRANSPORTS = ["fast", "loop"]


@pytest.fixture(scope="module")
def web():
    """A server of scripts."""
    with serving(script=HTTP_SERVER) as running:
        yield running


def settings_for(port: int, kind: str = "openai", **changes) -> TargetSettings:
    usual = {"kind": kind, "server": "127.0.0.1", "port": port, "connections": 4}
    return TargetSettings(**usual | {"request_timeout": 20.0, "connect_timeout": 10.0} | changes)


def asked(port: int, prompts, meanwhile=None, loop="uvloop", **changes):
    return run(asking(settings_for(port, **changes), prompts, meanwhile), loop)


def test_every_script_is_expected():
    assert EXPECTED.keys() == SCRIPTS.keys() - {"told"}


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(("kind", "loop"), [("openai", "uvloop"), ("openai-chat", "asyncio")])
def test_every_script_ends_as_it_should_and_harms_no_other(web, kind, loop, transport):
    """All at once, each beside a good one, over connections that they share."""
    prompts = [prompt(f"{each} please") for script in EXPECTED for each in (script, "tokens")]
    changes = {"kind": kind, "request_timeout": 1.5, "transport": transport}
    records = asked(web.port, prompts, loop=loop, **changes)
    for record in records:
        name = record.prompt_id.split(" ")[0]
        outcome, text, tokens, counted_by = EXPECTED[name]
        assert (name, *summary(record)[:2]) == (name, *outcome), record.detail
        assert (name, record.text) == (name, text)
        if outcome == DONE:
            assert (name, record.tokens, record.counted_by) == (name, tokens, counted_by)
            assert record.finish in ("length", "stop")
        assert DETAILS.get(name, record.detail) == record.detail
        times = [record.sent, *(time for time, _ in record.arrivals), record.ended]
        assert times == sorted(times)
    by_name = {record.prompt_id.split(" ")[0]: record for record in records}
    assert by_name["ids"].token_ids == tuple(
        each for index in range(8) for each in (index, index + 100)
    )
    assert (by_name["timed"].server_queue, by_name["timed"].server_prefill) == (0.25, 0.5)
    assert by_name["tokens"].server_prompt_tokens == 3
    # Stamped as they came.
    assert len({time for time, _ in by_name["tokens"].arrivals}) > 1
    assert len({time for time, _ in by_name["several"].arrivals}) == 1


@pytest.mark.parametrize("script", [each for each in EXPECTED if each != "tokens"])
def test_a_connection_is_fit_for_the_next_request_whatever_came_before(web, script):
    """One after another on one connection, where it is still there."""

    async def in_turn():
        target = make_target(settings_for(web.port, connections=1, request_timeout=0.2))
        await target.open(lambda reason: None)
        statuses = []
        for text in (script, "tokens", "tokens"):
            exchange = Exchange()
            await target.ask(target.build(prompt(text)), exchange)
            statuses.append(exchange.status)
            # What these do after their answer takes a moment to arrive.
            await asyncio.sleep(0.06 if script in ("twice", "closing") else 0)
        held = len(target._pool._all), len(target._pool._idle)
        await target.close()
        await asyncio.sleep(0.01)
        return statuses, held, (len(target._pool._all), len(target._pool._idle))

    statuses, held, after = run(in_turn())
    assert statuses[1:] == ["OK", "OK"]
    assert held[0] <= 2
    assert held[1] <= held[0]
    assert after == (0, 0)


def test_connections_are_used_again_and_those_that_are_gone_are_not_kept(web):
    def opened() -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{web.port}/connections") as answer:
            return json.load(answer)

    async def many(script, count):
        target = make_target(settings_for(web.port, connections=2))
        await target.open(lambda reason: None)
        for _ in range(count):
            wave = [Exchange() for _ in range(2)]
            async with asyncio.TaskGroup() as group:
                for exchange in wave:
                    group.create_task(target.ask(target.build(prompt(script, 1)), exchange))
            assert {exchange.status for exchange in wave} == {"OK"}
        await asyncio.sleep(0.02)
        held = len(target._pool._all)
        await target.close()
        return held

    before = opened()
    assert run(many("several", 20)) == 2
    middle = opened()
    assert middle - before == 2 + 1  # and the one that asks
    assert run(many("toend", 20)) == 0
    assert opened() - middle == 2 * 20 + 1 + 0


def test_a_keep_alive_that_ends_between_requests_is_noticed():
    async def in_turn(port):
        target = make_target(settings_for(port, connections=3))
        await target.open(lambda reason: None)
        statuses = []
        for _ in range(3):
            exchange = Exchange()
            await target.ask(target.build(prompt("tokens", 2)), exchange)
            statuses.append(exchange.status)
            await until(lambda: not target._pool._all)
        await target.close()
        return statuses, len(target._pool._idle)

    with serving("--keep-alive", "0.1", script=HTTP_SERVER) as hasty:
        assert run(in_turn(hasty.port)) == (["OK"] * 3, 0)


@pytest.mark.parametrize("script", ["stuck", "silent"])
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_what_is_cancelled_stays_open_with_what_had_come(web, script, loop):
    async def cancelling():
        target = make_target(settings_for(web.port, connections=1))
        await target.open(lambda reason: None)
        exchange = Exchange()
        task = asyncio.create_task(target.ask(target.build(prompt(script)), exchange))
        await until(lambda: exchange.tokens >= 2 or (script == "silent" and exchange.sent))
        task.cancel()
        await asyncio.wait([task])
        await asyncio.sleep(0.05)  # the connection is told that it is lost
        found = exchange.status, exchange.ended, target.read(exchange)
        other = Exchange()
        await target.ask(target.build(prompt("tokens")), other)
        await target.close()
        return (*found, other)

    status, ended, answer, other = run(cancelling(), loop)
    assert (status, ended, answer.failure) == (None, None, None)
    assert "".join(piece.text for piece in answer.pieces) == (TWO if script == "stuck" else "")
    assert other.status == "OK"


def test_a_time_limit_ends_its_own_request_only(web):
    """Its timer fires in the same turn of the loop in which the connection got the next request."""

    async def racing():
        target = make_target(settings_for(web.port, connections=1))
        await target.open(lambda reason: None)
        (connection,) = target._pool._idle
        first, second = Exchange(), Exchange()
        await target.ask(target.build(prompt("tokens")), first)
        asking_second = asyncio.create_task(target.ask(target.build(prompt("drip")), second))
        await until(lambda: second.sent is not None)
        assert not target._pool._idle
        connection.give_up(first, "timeout", "too late to matter")
        connection.abandon(first)
        await asking_second
        await target.close()
        return first.status, second.status

    assert run(racing()) == ("OK", "OK")


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_port_that_nobody_accepts_on_takes_no_longer_than_the_request_may(loop):
    async def waiting(port):
        target = make_target(settings_for(port, request_timeout=0.5, connect_timeout=60.0))
        exchange = Exchange()
        await target.ask(b"GET / HTTP/1.1\r\n\r\n", exchange)
        await target.close()
        return exchange

    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        held = [socket.socket() for _ in range(4)]
        for each in held:  # nobody takes these up, so the next one waits
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        exchange = run(waiting(full.getsockname()[1]), loop)
        for each in held:
            each.close()
    assert (exchange.status, exchange.detail) == ("timeout", "no connection within 0.5 s")


@pytest.mark.parametrize("kind", ["openai", "jetstream"])
def test_no_timer_outlives_its_request(web, server, kind):
    """Whether a request ended, was refused, or was cancelled."""

    async def counting():
        port = web.port if kind == "openai" else server.port
        target = make_target(settings_for(port, kind, request_timeout=500.0))
        await target.open(lambda reason: None)
        for script in ("tokens", "busy", "refuse", "stuck"):
            task = asyncio.create_task(target.ask(target.build(prompt(script)), Exchange()))
            if script == "stuck":
                await asyncio.sleep(0.2)
                task.cancel()
            await asyncio.wait([task])
        # Only the stock loop can be asked. The test's own time limit is one of them.
        timers = asyncio.get_running_loop()._scheduled
        left = [timer for timer in timers if not timer.cancelled()]
        await target.close()
        now = asyncio.get_running_loop().time()
        return [timer for timer in left if timer.when() - now > 100]

    assert run(counting(), "asyncio") == []


@pytest.mark.parametrize(("broken", "cause"), [("half_close", LOST), ("freeze", TIMEOUT)])
def test_a_link_that_breaks(web, broken, cause):
    link = Link(web.port)

    async def meanwhile(target, exchanges):
        await until(lambda: all(exchange.tokens > 2 for exchange in exchanges))
        getattr(link, broken)()

    prompts = [prompt("tokens", 5000)] * 3
    records = asked(link.port, prompts, meanwhile, request_timeout=1.0)
    link.close()
    assert {summary(record)[:2] for record in records} == {cause}
    assert all(record.text.startswith(TWO) for record in records)


def test_a_server_that_dies_and_requests_after_it():
    with serving(script=HTTP_SERVER) as doomed:

        async def meanwhile(target, exchanges):
            await until(lambda: all(exchange.tokens > 2 for exchange in exchanges))
            doomed.process.kill()
            await until(lambda: all(exchange.status for exchange in exchanges))
            after = Exchange()
            await target.ask(target.build(prompt("tokens")), after)
            assert after.status == "connection lost"
            assert not target._pool._all

        records = asked(doomed.port, [prompt("tokens", 5000)] * 3, meanwhile)
    assert {summary(record)[:2] for record in records} == {LOST}


def test_500_at_once(web):
    records = asked(web.port, [prompt(f"several {n}") for n in range(500)], connections=500)
    assert {summary(record)[:2] for record in records} == {DONE}
    assert {record.text for record in records} == {TEXT}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_sent(web, kind):
    changes = {
        "temperature": 0.5, "top_k": 3, "top_p": 0.75, "ignore_eos": True,
        "extra_body": {"seed": 7, "temperature": 0.25}, "model": "mine",
    }  # fmt: skip
    (record,) = asked(web.port, [prompt("told é", 9)], kind=kind, **changes)
    said = {
        "openai": {"prompt": "told é"},
        "openai-chat": {"messages": [{"role": "user", "content": "told é"}]},
    }[kind]
    assert json.loads(record.text) == said | {
        "model": "mine", "max_tokens": 9, "stream": True,
        "stream_options": {"include_usage": True}, "temperature": 0.25, "top_p": 0.75,
        "top_k": 3, "ignore_eos": True, "seed": 7,
    }  # fmt: skip


def test_the_first_model_listed_beside_the_endpoint_is_asked(web):
    for path, listed in (
        ("", "/v1/models"),
        ("/some/where/v1/completions", "/some/where/v1/models"),
        ("/generate", "/v1/models"),
    ):
        (record,) = asked(web.port, [prompt("told")], path=path)
        assert json.loads(record.text)["model"] == f"model-at{listed}"


def test_headers_replace_ours_whatever_their_case():
    heard = []

    async def serve(reader, writer):
        heard.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n")

    async def opened():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        settings = settings_for(
            server.sockets[0].getsockname()[1], model="m", connections=1, api_key="k",
            headers={"user-AGENT": "us", "X-More": "a: b=c", "authorization": "Basic x"},
        )  # fmt: skip
        await asking(settings, [])
        server.close()

    run(opened())
    names = [line.split(":")[0].lower() for line in heard[0].split("\r\n")[1:-2]]
    assert len(names) == len(set(names))
    assert "user-AGENT: us\r\n" in heard[0]
    assert "X-More: a: b=c\r\n" in heard[0]
    assert "Bearer" not in heard[0]


def test_a_server_that_wants_a_key_says_so_at_once():
    with serving("--key", "right", script=HTTP_SERVER) as keyed:
        for wrong in ({}, {"api_key": "wr0ng-key"}):
            started = time.monotonic()
            with pytest.raises(NotReadyError, match="wants a key") as told:
                asked(keyed.port, [], **wrong)
            assert time.monotonic() - started < 8
            assert "wr0ng" not in str(told.value)
        assert asked(keyed.port, [], api_key="right") == []


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_tls_with_a_certificate_of_ones_own(loop):
    trusted = {"tls": True, "ca_file": CERTIFICATES / "certificate.pem"}
    with serving("--certificates", str(CERTIFICATES), script=HTTP_SERVER) as encrypted:
        prompts = [prompt(each) for each in ("tokens", "halfchunk", "busy", "toend", "cuts")]
        records = asked(encrypted.port, prompts, loop=loop, **trusted)
        causes = [record.cause for record in records]
        assert causes == ["", "connection lost", "HTTP 429", "", ""]
        for wrong in ({"tls": True}, {}):
            with pytest.raises(NotReadyError, match="no ready server"):
                asked(encrypted.port, [], loop=loop, connect_timeout=0.4, **wrong)


def test_a_server_that_lists_nothing_needs_a_name():
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    async def opened(**changes):
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            await asking(settings_for(port, connections=1, **changes), [])
        finally:
            server.close()

    with pytest.raises(NotReadyError, match="--served-model-name"):
        run(opened())
    run(opened(model="mine"))

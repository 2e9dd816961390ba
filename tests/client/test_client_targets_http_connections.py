"""Connections of the HTTP target: kept, used again, lost; and the limits of time on them."""

import asyncio
import json
import socket
import urllib.request

import pytest
from client_rig import HTTP_SERVER, Link, serving
from http_target_rig import DONE, LOST, TEXT, TIMEOUT, TWO, asked, settings_for
from target_rig import prompt, run, summary, until

from client.targets.exchange import Exchange
from client.targets.open import make_target


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
        await asyncio.sleep(0)  # one turn: it is sent, and no answer can have been read
        assert second.sent is not None and not target._pool._idle
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

"""Every gRPC transport against a server that writes any HTTP/2 it likes, right or wrong."""

import asyncio
import random

import pytest
from http2_answers import ALL, DONE, OURS, good, setting, token, u32
from hypothesis import given
from hypothesis import strategies as st
from raw_http2 import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    SETTINGS,
    WINDOW,
    answering,
    block,
    data,
    ending,
    opening,
)
from target_rig import asking, prompt, run, summary, until

from client.errors import NotReadyError
from client.targets.exchange import Exchange
from client.targets.grpc_wire import framed
from client.targets.http2 import Http2Connection
from client.targets.http2_frames import frame, read_frames
from client.targets.open import make_target
from client.targets.settings import TargetSettings

LOOP = {"fast": "uvloop", "loop": "uvloop", "grpcio": "asyncio"}
OWN = ("fast", "loop")


def settings_for(transport: str, port: int, **changes) -> TargetSettings:
    usual = {"transport": transport, "server": "127.0.0.1", "port": port, "connections": 1}
    usual |= {"health_check": False, "request_timeout": 10.0, "connect_timeout": 5.0}
    return TargetSettings(**usual | changes)


async def asked(transport: str, answer, settings: bytes = b"", **changes):
    async with answering(answer, settings) as port:
        (record,) = await asking(settings_for(transport, port, **changes), [prompt("go")])
    return record


@pytest.mark.parametrize("transport", LOOP)
@pytest.mark.parametrize("name", ALL)
def test_all_tell_what_a_server_did(transport, name):
    answer, expected = ALL[name]
    record = run(asked(transport, answer), LOOP[transport])
    assert summary(record)[:2] == expected, record.detail
    if expected == DONE:
        assert record.token_ids == (0,)


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("transport", OWN)
def test_ours_tells_more(name, loop, transport):
    answer, cause = OURS[name]
    record = run(asked(transport, answer), loop)
    assert record.cause == cause, record.detail
    if not cause:
        assert record.token_ids == (0,)


@pytest.mark.parametrize("transport", LOOP)
def test_a_status_that_is_no_text_is_shown_all_the_same(transport):
    fields = [(b"grpc-status", b"13"), (b"grpc-message", b"\xff bad")]
    last = block(fields)
    record = run(
        asked(
            transport,
            lambda n: [opening(n), frame(HEADERS, END_HEADERS | END_STREAM, n, last)],
        ),
        LOOP[transport],
    )
    assert record.cause == "INTERNAL"
    assert record.detail.endswith(" bad")


@pytest.mark.parametrize("transport", LOOP)
def test_a_server_without_room_for_headers_in_memory(transport):
    """It must be told, in the first headers, that nothing is kept; a strict server insists."""
    heard: list[bool] = []

    def answer(number: int) -> list[bytes]:
        heard.append(True)
        return good(number)

    record = run(asked(transport, answer, settings=setting(1, 0)), LOOP[transport])
    assert heard
    assert summary(record)[:2] == DONE


@pytest.mark.parametrize("transport", OWN)
def test_a_ping_is_answered_and_windows_of_the_server_are_kept(transport):
    """A server that opens its window a little at a time gets every byte, and never one too many."""
    answered, received = [], bytearray()

    async def serve(reader, writer):
        await reader.readexactly(24)
        writer.write(frame(SETTINGS, 0, 0, setting(4, 1000) + setting(5, 20_000)))
        writer.write(frame(PING, 0, 0, b"12345678"))
        rest, allowed = b"", 1000
        while more := await reader.read(65536):
            frames, at = read_frames(rest := rest + more)
            rest = rest[at:]
            for kind, flags, number, payload in frames:
                if kind == PING and flags & ACK:
                    answered.append(payload)
                if kind != DATA:
                    continue
                received.extend(payload)
                assert len(received) <= allowed
                if flags & END_STREAM:
                    writer.write(b"".join(good(number)))
                else:
                    writer.write(frame(WINDOW, 0, number, u32(700)))
                    writer.write(frame(WINDOW, 0, 0, u32(700)))
                    allowed += 700

    async def asked_slowly():
        server = await asyncio.start_server(serve, "localhost", 0)
        port = server.sockets[0].getsockname()[1]
        asked = [prompt("p" * 100_000)]
        (record,) = await asking(settings_for(transport, port), asked)
        server.close()
        return record, make_target(settings_for(transport, port)).build(asked[0])

    record, request = run(asked_slowly())
    assert record.cause == ""
    assert bytes(received) == request
    assert answered == [b"12345678"]


@pytest.mark.parametrize("transport", OWN)
def test_connections_that_are_gone_are_not_kept(transport):
    """Each answer closes its connection; nothing of them is left, and nothing is lost."""

    async def several():
        async with answering(lambda n: [*good(n), None]) as port:
            target = make_target(settings_for(transport, port))
            await target.open(lambda reason: None)
            causes = []
            for _ in range(20):
                exchange = Exchange()
                await target.ask(target.build(prompt("go")), exchange)
                causes.append(exchange.status)
                await until(lambda: not target._connections)
            await target.close()
            return causes

    assert run(several()) == ["OK"] * 20


@pytest.mark.parametrize("transport", OWN)
def test_a_connection_the_server_leaves_is_closed_when_its_last_call_has_ended(transport):
    async def leaving():
        async with answering(lambda n: [frame(GOAWAY, 0, 0, u32(n, 0)), *good(n)]) as port:
            target = make_target(settings_for(transport, port))
            await target.open(lambda reason: None)
            causes = []
            for _ in range(3):
                exchange = Exchange()
                await target.ask(target.build(prompt("go")), exchange)
                causes.append(exchange.status)
                await until(lambda: not target._connections)
            await target.close()
            return causes

    assert run(leaving()) == ["OK"] * 3


@pytest.mark.parametrize("garbage", [b"", b"\xff" * 50])
@pytest.mark.parametrize("transport", LOOP)
def test_a_health_check_that_makes_no_sense_is_not_ready(transport, garbage):
    async def opened():
        async with answering(
            lambda n: [opening(n), data(n, framed(b"\x08\xff" + garbage)), ending(n)]
        ) as port:
            settings = settings_for(transport, port, health_check=True, connect_timeout=0.5)
            await asking(settings, [])

    with pytest.raises(NotReadyError, match="cannot be read"):
        run(opened(), LOOP[transport])


def _frames(made: random.Random) -> bytes:
    """Frames of every kind with payloads of any kind, and now and then no frame at all."""
    parts = []
    for _ in range(made.randint(1, 12)):
        kind, number = made.randint(0, 10), made.choice([0, 1, 1, 3, 7])
        payload = made.choice(
            [
                made.randbytes(made.randint(0, 20)), token(1), u32(made.getrandbits(32)),
                block({":status": "200"}), setting(made.randint(0, 8), made.getrandbits(32)),
                block({"grpc-status": made.choice(["0", "7", "x"])}), b"",
            ]
        )  # fmt: skip
        parts.append(frame(kind, made.getrandbits(8), number, payload))
    if made.random() < 0.2:
        parts.append(made.randbytes(made.randint(1, 40)))
    return b"".join(parts)


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("transport", OWN)
def test_whatever_comes_every_call_ends_and_nothing_escapes(loop, transport):
    made = random.Random(20)

    async def many():
        async with answering(lambda n: [_frames(made), *([None] * (made.random() < 0.7))]) as port:
            settings = settings_for(transport, port, request_timeout=0.15, connect_timeout=1.0)
            target = make_target(settings)
            exchanges = []
            for _ in range(25):
                wave = [Exchange() for _ in range(12)]
                async with asyncio.TaskGroup() as group:
                    for exchange in wave:
                        group.create_task(target.ask(target.build(prompt("go")), exchange))
                exchanges += wave
            for exchange in exchanges:
                target.read(exchange)
            await target.close()
            return exchanges

    exchanges = run(many(), loop)
    assert all(each.status and each.sent <= each.ended for each in exchanges)
    # It was not all refused at the first byte.
    assert len({each.status for each in exchanges}) >= 4


class Wire(asyncio.Transport):
    """What a connection writes to when nobody is there."""

    def write(self, data):
        pass

    def abort(self):
        pass


@given(st.binary(max_size=200), st.data())
def test_no_bytes_make_a_connection_raise(garbage, drawn):
    async def fed():
        connection = Http2Connection(lambda gone: None)
        connection.connection_made(Wire())
        calls = [connection.call(b"", b"12345", Exchange()) for _ in range(3)]
        rest = good(1)[0] + garbage
        while rest:
            cut = drawn.draw(st.integers(1, len(rest)))
            connection.data_received(rest[:cut])
            rest = rest[cut:]
        connection.connection_lost(None)
        assert all(call.ended.done() and call.exchange.status for call in calls)

    asyncio.run(fed())

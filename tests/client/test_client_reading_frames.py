"""Connections of HTTP/2 that a thread in C reads: the same calls, pieces and ends as without it."""

import asyncio
import socket
import struct
import time
from contextlib import suppress
from itertools import pairwise

import hpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from raw_http2 import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PUSH,
    RST,
    SETTINGS,
    WINDOW,
    block,
    data,
    ending,
    opening,
)
from target_rig import run, until

from client.reading.library import load_library
from client.reading.pieces import Coming
from client.reading.reader import SocketReader
from client.reading.transport import ReadTransport
from client.targets.exchange import Exchange
from client.targets.http2 import Http2Connection
from client.targets.http2_frames import frame, read_frames
from client.targets.http2_read import ReadHttp2Connection
from native.build import CannotBuildError

try:
    LIBRARY = load_library(None)
except CannotBuildError as error:
    pytest.skip(f"no reader: {error}", allow_module_level=True)

CALLS = (1, 3, 5)


def u32(*numbers: int) -> bytes:
    return struct.pack(f">{len(numbers)}I", *numbers)


class Wire(asyncio.Transport):
    """What a connection writes to when nobody is there."""

    def __init__(self) -> None:
        self.written, self.aborted = b"", False

    def write(self, data):
        self.written += data

    def abort(self):
        self.aborted = True


def outcomes(exchanges: list[Exchange]) -> list[tuple]:
    return [(each.status, each.detail, [content for _, content in each.came]) for each in exchanges]


def controls(written: bytes) -> list[tuple]:
    """What was written after the calls were asked for, without windows."""
    frames, _ = read_frames(written[24:])
    return [each for each in frames if each[0] in (PING, RST) or each[:2] == (SETTINGS, ACK)]


async def read_by_loop(parts: list[bytes]) -> tuple[list[tuple], list[tuple]]:
    connection, wire = Http2Connection(lambda gone: None), Wire()
    connection.connection_made(wire)
    exchanges = [Exchange() for _ in CALLS]
    for exchange in exchanges:
        connection.call(b"", b"12345", exchange)
    for part in parts:
        if not wire.aborted:
            connection.data_received(part)
    connection.connection_lost(None)
    return outcomes(exchanges), controls(wire.written)


async def read_by_thread(parts: list[bytes], blocked: bool) -> tuple[list[tuple], list[tuple]]:
    reader, gone = SocketReader(LIBRARY), asyncio.Event()
    here, there = socket.socketpair()
    here.setblocking(False)
    connection = ReadHttp2Connection(lambda _: gone.set())
    connection.connection_made(ReadTransport(reader, here, connection, 2**20))
    exchanges = [Exchange() for _ in CALLS]
    for exchange in exchanges:
        connection.call(b"", b"12345", exchange)
    with suppress(ConnectionError):  # the client may have hung up
        for part in parts:
            there.sendall(part)
            if blocked:  # the thread runs ahead of the program
                time.sleep(0.0004)
            else:
                await asyncio.sleep(0.0004)
        there.shutdown(socket.SHUT_WR)
    async with asyncio.timeout(10):
        await gone.wait()
    await asyncio.sleep(0)
    reader.close()
    written = heard(there)
    there.close()
    return outcomes(exchanges), controls(written)


def heard(sock: socket.socket) -> bytes:
    """All that was sent to the end of this socket."""
    parts = [b""]
    while True:
        try:
            parts.append(sock.recv(65536))
        except ConnectionResetError:  # it closed before it had read all, which is told first
            continue
        if not parts[-1]:
            return b"".join(parts)


def cut(wire: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(wire), *(place % (len(wire) + 1) for place in places)})
    return [wire[start:end] for start, end in pairwise(edges)]


NUMBERS = st.sampled_from([*CALLS, *CALLS, 7, 0, 2])
CONTENT = st.binary(max_size=40) | st.just(b"x" * 700)
PLAIN = st.one_of(
    st.builds(data, NUMBERS, CONTENT),
    st.builds(data, NUMBERS, CONTENT),
    st.builds(data, NUMBERS, CONTENT),
    st.builds(opening, NUMBERS),
    st.builds(ending, NUMBERS, st.sampled_from(["0", "8", "99"])),
)
ODD = st.one_of(
    st.builds(lambda n, size, pad: frame(DATA, PADDED, n, bytes([pad]) + bytes(size)),
              NUMBERS, st.integers(0, 9), st.integers(0, 9)),
    st.builds(lambda n: frame(DATA, PADDED, n, b""), NUMBERS),
    st.builds(data, NUMBERS, CONTENT, st.just(END_STREAM)),
    st.builds(data, NUMBERS, CONTENT, st.just(0xF6)),
    st.builds(lambda n, code: frame(RST, 0, n, u32(code)), NUMBERS, st.integers(0, 9)),
    st.builds(lambda last: frame(GOAWAY, 0, 0, u32(last, 2)), st.integers(0, 6)),
    st.just(frame(PING, 0, 0, b"12345678")),
    st.just(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 70_000))),
    st.just(frame(SETTINGS, 0, 0, b"123")),
    st.builds(lambda n, more: frame(WINDOW, 0, n, u32(more)), NUMBERS, st.integers(0, 2**31 - 1)),
    st.builds(lambda n: frame(HEADERS, 0, n, block({"x": "y"})), NUMBERS),
    st.builds(lambda n: frame(CONTINUATION, END_HEADERS, n, b""), NUMBERS),
    st.builds(lambda n: frame(PUSH, END_HEADERS, n, u32(2)), NUMBERS),
    st.builds(lambda n: frame(77, 3, n, b"what"), NUMBERS),
    st.just(frame(HEADERS, END_HEADERS, 1, b"\xff" * 20)),
    st.just(frame(DATA, 0, 1, bytes(16_385))),
    st.binary(min_size=1, max_size=30),
)  # fmt: skip
LEAVING = frame(GOAWAY, 0, 0, u32(1, 2))
FRAMES = st.lists(st.one_of(PLAIN, PLAIN, PLAIN, ODD), max_size=25).map(b"".join)


@settings(max_examples=150)
@given(FRAMES, st.lists(st.integers(0, 4000), max_size=8), st.booleans())
@example(opening(1) + data(1, b"a") + ending(1) + data(1, b"late") + data(3, b"b"), [], True)
@example(data(1, b"a") + frame(SETTINGS, 0, 0, b"123") + data(1, b"after a fault"), [], True)
@example(data(3, b"a") + frame(GOAWAY, 0, 0, u32(1, 0)) + data(3, b"b") + data(1, b"c"), [], True)
@example(data(1, b"a") + frame(DATA, 0, 1, bytes(16_385)) + data(1, b"b"), [3, 12, 15], False)
@example(frame(DATA, PADDED, 1, b"\2ab\0\0") + frame(DATA, PADDED, 1, b"\4" + bytes(4)), [11], True)
@example(data(1, bytes(16_384)) + data(1, b"end"), [5000, 9000], False)
@example(LEAVING + data(1, b"x", END_STREAM) + frame(PING, 0, 0, b"12345678"), [], False)
def test_calls_are_what_they_are_without_the_thread(wire, places, blocked):
    parts = cut(wire, places)
    assert run(read_by_thread(parts, blocked)) == run(read_by_loop(parts))


class Server:
    """The other end of one connection that a thread reads."""

    def __init__(self, most_owed: int = 2**20) -> None:
        self.reader = SocketReader(LIBRARY)
        self.here, self.there = socket.socketpair()
        self.here.setblocking(False)
        self.there.setblocking(False)
        self.connection = ReadHttp2Connection(lambda gone: None, most_owed=most_owed)
        transport = ReadTransport(self.reader, self.here, self.connection, most_owed)
        self.connection.connection_made(transport)

    def call(self) -> Exchange:
        exchange = Exchange()
        self.connection.call(b"", b"12345", exchange)
        return exchange

    def heard(self) -> list[tuple]:
        """Frames since it was last asked."""
        content = self.there.recv(1 << 20).removeprefix(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        return read_frames(content)[0]

    async def send(self, content: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.there, content)

    async def close(self) -> None:
        self.connection.close()
        await asyncio.sleep(0.001)
        self.reader.close()
        self.there.close()


def test_tokens_are_stamped_and_counted_while_the_program_stands_still():
    async def work() -> float:
        server = Server()
        first, second = server.call(), server.call()
        sent = []
        for letter in b"abc":
            sent.append(time.perf_counter())
            server.there.sendall(data(1, bytes([letter])) + data(3, b"x"))
            time.sleep(0.02)
        assert isinstance(first.pieces, Coming)
        deadline = time.monotonic() + 5
        while (first.tokens, second.tokens) != (3, 3):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        assert first.arrivals == []
        server.there.sendall(ending(1))
        await until(lambda: first.status is not None)
        late = first.pieces.times - sent
        assert (late >= 0).all()
        assert first.pieces.body == b"abc"
        assert second.tokens == 3
        await server.close()
        assert (second.status, second.came.body) == ("connection lost", b"xxx")
        return late.max()

    # A standstill of the machine makes one of them late; a program that is asleep all of them.
    assert min(run(work()) for _ in range(3)) < 0.02


def test_windows_are_opened_again_for_what_was_kept_padding_included():
    async def work() -> None:
        server = Server(most_owed=10_000)
        exchange = server.call()
        server.heard()
        sent = opened = 0
        for number in range(200):
            payload = bytes(1 + number % 100)
            padded = b"\xc8" + payload + bytes(200)
            nobodys = data(9, payload)  # owed all the same
            await server.send(data(1, payload) + frame(DATA, PADDED, 1, padded) + nobodys)
            sent += 2 * len(payload) + len(padded)
        await until(lambda: exchange.tokens == 400)
        await asyncio.sleep(0.01)
        for kind, _, number, payload in server.heard():
            assert (kind, number) == (WINDOW, 0)
            more = struct.unpack(">I", payload)[0]
            assert more > 10_000
            opened += more
        assert sent - 20_000 <= opened <= sent
        await server.close()

    run(work())


def test_a_call_that_was_given_up_is_read_no_more_and_others_go_on():
    async def work() -> None:
        server = Server()
        first, second = server.call(), server.call()
        streams = list(server.connection.streams.values())
        server.there.sendall(data(1, b"a") + data(3, b"b"))
        await until(lambda: first.tokens + second.tokens == 2)
        await server.connection.wait(streams[0], 0.0, "too late")
        for _ in range(5):
            server.there.sendall(data(1, b"late") + data(3, b"b"))
            await asyncio.sleep(0.002)
        server.there.sendall(ending(1) + ending(3))
        await until(lambda: second.status is not None)
        assert (first.status, first.detail, first.pieces.body) == ("timeout", "too late", b"a")
        assert (second.status, second.pieces.body) == ("OK", b"b" * 6)
        await server.close()

    run(work())


def test_a_flood_on_one_call_is_kept_whole():
    async def work() -> None:
        server = Server(most_owed=2**20)
        exchange = server.call()
        parts = [bytes([number % 256]) * 16_384 for number in range(400)]
        for part in parts:
            await server.send(data(1, part))
        await server.send(ending(1))
        await until(lambda: exchange.status is not None)
        assert [content for _, content in exchange.pieces] == parts
        assert list(exchange.pieces.times) == sorted(exchange.pieces.times)
        await server.close()

    run(work())


def test_many_calls_of_many_connections_come_and_go():
    async def one(server: Server, number: int) -> bytes:
        exchange = server.call()
        own = server.connection._next - 2
        for _ in range(number % 5 + 1):
            server.there.sendall(data(own, b"%03d" % number))
            await asyncio.sleep(0)
        server.there.sendall(ending(own))
        await until(lambda: exchange.status is not None)
        return exchange.came.body

    async def work() -> None:
        servers = [Server() for _ in range(4)]
        for _ in range(3):
            bodies = await asyncio.gather(*(one(servers[n % 4], n) for n in range(300)))
            assert bodies == [b"%03d" % n * (n % 5 + 1) for n in range(300)]
        for server in servers:
            await server.close()

    run(work())


FIELDS = st.lists(
    st.tuples(st.sampled_from([b":status", b"a", b"grpc-status"]), st.sampled_from([b"1", b"2"])),
    min_size=1, max_size=3,
)  # fmt: skip


@given(st.lists(st.tuples(FIELDS, st.integers(0, 2), st.sampled_from([0, 64, 4096])), max_size=20))
def test_header_blocks_are_decoded_as_by_a_decoder_that_remembers_nothing(blocks):
    from client.targets.header_blocks import HeaderBlocks

    encoder, plain, ours = hpack.Encoder(), hpack.Decoder(), HeaderBlocks()
    for fields, how, size in blocks:
        if how == 2:
            encoder.header_table_size = size
        kinds = (hpack.HeaderTuple, hpack.NeverIndexedHeaderTuple)
        raw = encoder.encode([kinds[how == 1](*pair) for pair in fields])
        for _ in range(2):  # the same bytes again may mean something else
            try:
                expected = {bytes(n): str(v, "utf-8") for n, v in plain.decode(raw, raw=True)}
            except hpack.HPACKError:
                with pytest.raises(hpack.HPACKError):
                    ours.decode(raw)
                return
            assert ours.decode(raw) == expected

"""Sockets that a thread in C reads: chunked bodies as httptools reads them, stamps, ends."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import httptools
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from target_rig import run, until

from client.reading.library import load_library
from client.reading.pieces import Pieces
from client.reading.reader import ReadStream, SocketReader
from native.build import CannotBuildError

try:
    LIBRARY = load_library(None)
except CannotBuildError as error:
    pytest.skip(f"no reader: {error}", allow_module_level=True)

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Listener:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple] = []
        self.happened = asyncio.Event()
        self.stream: ReadStream | None = None

    def came(self, now: float, content: bytes) -> None:
        self.note("came", now, content)

    def ended(self, now: float, unasked: bool) -> None:
        self.note("ended", now, unasked)

    def broken(self) -> None:
        self.note("broken")

    def unasked(self) -> None:
        self.note("unasked")

    def closed(self, error: OSError | None) -> None:
        self.note("closed", error)

    def note(self, *what) -> None:
        self.events.append(what)
        self.happened.set()

    async def wait(self) -> str:
        """The name of what happens next."""
        async with asyncio.timeout(10):
            await self.happened.wait()
        self.happened.clear()
        return self.events[-1][0]


@asynccontextmanager
async def reading() -> AsyncIterator[tuple[socket.socket, Listener]]:
    """A socket to write to, and who listens at the other end."""
    reader = SocketReader(LIBRARY)
    here, there = socket.socketpair()
    here.setblocking(False)
    listener = Listener()
    listener.stream = reader.add(here, listener)
    listener.stream.expect()
    try:
        yield there, listener
    finally:
        listener.stream.remove()
        reader.close()
        here.close()
        there.close()


class Reference:
    """What httptools makes of a body."""

    def __init__(self, body: bytes) -> None:
        self.parts: list[bytes] = []
        self.whole = False
        parser = httptools.HttpResponseParser(self)
        parser.feed_data(HEAD)
        try:
            parser.feed_data(body)
            self.outcome = "ended" if self.whole else "open"
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            # What stands behind the end is no matter of the body.
            self.outcome = "ended" if self.whole else "broken"

    def on_body(self, part: bytes) -> None:
        self.parts.append(part)

    def on_message_complete(self) -> None:
        self.whole = True


async def read_in_pieces(body: bytes, places: list[int]) -> tuple[str, Pieces]:
    edges = sorted({0, len(body), *(min(place, len(body)) for place in places)})
    async with reading() as (there, listener):
        assert listener.stream is not None
        there.sendall(HEAD)
        for start, end in pairwise(edges):
            await asyncio.sleep(0.0005)
            there.sendall(body[start:end])
        there.shutdown(socket.SHUT_WR)
        while not any(event[0] == "closed" for event in listener.events):
            await listener.wait()
        outcomes = [event[0] for event in listener.events]
        return outcomes[0].replace("closed", "open"), listener.stream.take()


CHUNK = st.binary(min_size=1, max_size=40).map(lambda part: b"%x\r\n%s\r\n" % (len(part), part))
EXTENDED = st.binary(min_size=1, max_size=300).map(lambda p: b"%X;a=b\r\n%s\r\n" % (len(p), p))
END = st.sampled_from([b"0\r\n\r\n", b"0\r\nx: y\r\n\r\n", b"000\r\n\r\n", b""])
ODD = st.sampled_from([b"", b"\r\n", b"x", b"-1\r\n", b"g\r\n", b"5\r\nabc", b"1\r\nab\r\n", b"\n"])
PLACES = st.lists(st.integers(0, 400), max_size=6)


@settings(max_examples=60)
@given(st.lists(CHUNK | EXTENDED, max_size=5).map(b"".join), ODD, END, PLACES)
@example(b"", b"", b"0\r\n\r\n", [1, 2, 3, 4])
@example(b"3\r\nabc\r\n", b"fffffffff\r\n", b"", [])
@example(b"", b"fffffffffffffffff\r\n", b"", [])
@example(b"", b"1 ;x\r\na\r\n", b"0\r\n\r\n", [])
@example(b"", b"1 \r\na\r\n", b"0\r\n\r\n", [])
@example(b"", b"1;x\na\r\n", b"0\r\n\r\n", [])
@example(b"", b'1;x="y"\r\na\r\n', b"0;last\r\n\r\n", [])
def test_chunks_are_taken_apart_as_by_httptools(chunks, odd, end, places):
    body = chunks + odd + end
    reference = Reference(body)
    outcome, pieces = run(read_in_pieces(body, places))
    assert (outcome, body) == (reference.outcome, body)
    assert pieces.body == b"".join(reference.parts)
    assert [content for _, content in pieces if not content] == []
    assert list(pieces.times) == sorted(pieces.times)


def test_each_piece_is_stamped_when_it_came():
    async def work() -> float:
        async with reading() as (there, listener):
            assert listener.stream is not None
            there.sendall(HEAD + b"1\r\na\r\n")
            sent = []
            for letter in b"bcd":
                await asyncio.sleep(0.02)
                sent.append(time.perf_counter())
                there.sendall(b"1\r\n%c\r\n" % letter)
                # The program is not woken, and sees how far it is all the same.
            time.sleep(0.05)
            assert listener.events == []
            await until(lambda: len(listener.stream) == 4)
            there.sendall(b"0\r\n\r\n")
            assert await listener.wait() == "ended"
            pieces = listener.stream.take()
            assert pieces.body == b"abcd"
            late = pieces.times[1:] - sent
            assert (late >= 0).all()
            return late.max()

    # A standstill of the machine makes one of them late; a program that is asleep all of them.
    assert min(run(work()) for _ in range(3)) < 0.02


def test_what_follows_an_answer_is_told_and_a_second_answer_can_be_asked_for():
    async def work() -> None:
        async with reading() as (there, listener):
            assert listener.stream is not None
            for last in (b"x", b"yy"):
                there.sendall(HEAD + b"%x\r\n%s\r\n0\r\n\r\n" % (len(last), last))
                assert await listener.wait() == "ended"
                assert listener.events[-1][2] is False
                assert listener.stream.take().body == last
                listener.stream.expect()
            there.sendall(HEAD + b"0\r\n\r\nmore")
            await listener.wait()
            assert listener.events[-1] == ("ended", listener.events[-1][1], True)
            there.sendall(b"and more")
            assert await listener.wait() == "unasked"

    run(work())


def test_a_broken_answer_is_told_before_what_stands_behind_it():
    async def work() -> list[tuple]:
        async with reading() as (there, listener):
            there.sendall(HEAD + b"g\r\n")
            time.sleep(0.05)
            there.sendall(b"more")
            # Both have come when the program hears of the first.
            time.sleep(0.05)
            await listener.wait()
            return listener.events

    # Where the reader's thread stands still so long, there is no more than the first to tell.
    told = [run(work()) for _ in range(3)]
    assert {events[0] for events in told} == {("broken",)}
    assert [("broken",), ("unasked",)] in told


def test_a_lost_connection_is_told_with_its_reason():
    async def work() -> None:
        server = socket.create_server(("127.0.0.1", 0))
        here = socket.create_connection(server.getsockname())
        there, _ = server.accept()
        here.setblocking(False)
        reader, listener = SocketReader(LIBRARY), Listener()
        listener.stream = reader.add(here, listener)
        there.sendall(b"hello")
        assert await listener.wait() == "came"
        there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        there.close()  # with a reset
        assert await listener.wait() == "closed"
        assert isinstance(listener.events[-1][1], ConnectionResetError)
        listener.stream.remove()
        listener.stream.remove()
        reader.close()
        assert (len(listener.stream), listener.stream.take()) == (0, None)
        for each in (here, server):
            each.close()

    run(work())


def test_many_streams_come_and_go():
    async def one(reader: SocketReader, number: int) -> bytes:
        here, there = socket.socketpair()
        here.setblocking(False)
        listener = Listener()
        listener.stream = reader.add(here, listener)
        listener.stream.expect()
        there.sendall(HEAD)
        for _ in range(number % 7 + 1):
            await asyncio.sleep(0)
            there.sendall(b"4\r\n%04d\r\n" % number)
        there.sendall(b"0\r\n\r\n")
        await listener.wait()
        found = listener.stream.take().body
        listener.stream.remove()
        here.close()
        there.close()
        return found

    async def work() -> None:
        reader = SocketReader(LIBRARY)
        for _ in range(3):
            bodies = await asyncio.gather(*(one(reader, number) for number in range(200)))
            assert bodies == [b"%04d" % number * (number % 7 + 1) for number in range(200)]
        reader.close()

    run(work())

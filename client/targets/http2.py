"""gRPC over HTTP/2 for measuring: one request message out, a stream of messages in.

Only what a client of such calls needs of RFC 9113, with one callback a read, or with a thread in C
that reads (http2_read.py) one a frame but DATA: this is stamped and kept, and cut into messages
after the run. hpack reads the headers. grpc.aio, which
does all this and more, takes three times the processor time a message.
"""

import asyncio
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import unquote

import hpack

from client.targets.exchange import (
    CONNECTION_LOST,
    MALFORMED,
    OK,
    STREAM_REFUSED,
    STREAM_RESET,
    TIMEOUT,
    Exchange,
)
from client.targets.gathering import Gathering
from client.targets.grpc_wire import code_name
from client.targets.header_blocks import HeaderBlocks
from client.targets.http2_frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    LARGEST,
    PADDED,
    PING,
    PRIORITY,
    PUSH,
    RST_STREAM,
    SETTINGS,
    WINDOW,
    cut,
    frame,
)
from client.targets.http2_windows import Outgoing

_clock = time.perf_counter
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_LARGEST_BLOCK = 1 << 20  # of headers, in bytes
_REFUSED, _CANCEL = 7, 8
# What was read is told to the server when it is more than this, in bytes; twice as much must fit
# into a window, for a thread that reads may hold as much again.
MOST_OWED = LARGEST // 4


@dataclass(slots=True)
class Call:
    """A call under way. `ended` is done when its exchange has ended."""

    number: int
    exchange: Exchange
    ended: "asyncio.Future[None]"
    status: str = ""
    message: str = ""


class Http2Connection(asyncio.Protocol):
    """One connection with many calls at once. `gone` is called when it is closed."""

    def __init__(
        self,
        gone: Callable[["Http2Connection"], None],
        gathering: Gathering | None = None,
        most_owed: int = MOST_OWED,
    ) -> None:
        self._gone = gone
        self._most_owed = most_owed
        self._gathering = gathering or Gathering()
        self.open = False
        self.ready = asyncio.get_running_loop().create_future()
        self.most_streams = LARGEST
        self.streams: dict[int, Call] = {}
        self._next = 1
        self._rest = b""
        self._headers = HeaderBlocks()
        self._block: tuple[int, int, bytes] | None = None  # headers that go on in the next frame
        self._outgoing = Outgoing()
        self._owed = 0
        self._leaving = False  # the server takes no more calls here

    @property
    def room(self) -> bool:
        """Whether one more call may start."""
        fits = len(self.streams) < self.most_streams and self._next < LARGEST - 1
        return self.open and fits and not self._leaving

    def connection_made(self, transport: Any) -> None:
        """Part of asyncio.Protocol."""
        # Not checked: uvloop's transports are of no asyncio class.
        self._transport = cast(asyncio.Transport, transport)
        settings = struct.pack(">HIHI", 2, 0, 4, LARGEST)  # no push; windows never close
        windows = struct.pack(">I", LARGEST - 65_535)
        self._transport.write(
            _PREFACE + frame(SETTINGS, 0, 0, settings) + frame(WINDOW, 0, 0, windows)
        )
        self.open = True

    def call(self, headers: bytes, message: bytes, exchange: Exchange) -> Call:
        """Starts a call."""
        number, self._next = self._next, self._next + 2
        ended = asyncio.get_running_loop().create_future()
        stream = Call(number, exchange, ended)
        self.streams[number] = stream
        self._announce(stream)
        exchange.sent = _clock()
        head = frame(HEADERS, END_HEADERS, number, headers)
        self._outgoing.start(number, head, message, self._transport.write)
        return stream

    async def wait(self, call: Call, left: float, detail: str) -> None:
        """Returns when a call has ended; with `left` seconds gone it is given up as too late."""
        loop = asyncio.get_running_loop()
        limit = loop.call_later(left, self._time_out, call, detail)
        try:
            await call.ended
        except asyncio.CancelledError:
            self._reset(call)
            raise
        finally:
            limit.cancel()

    def _time_out(self, call: Call, detail: str) -> None:
        self._reset(call)
        call.exchange.end(_clock(), TIMEOUT, detail)
        if not call.ended.done():
            call.ended.set_result(None)

    def _reset(self, call: Call) -> None:
        if self.streams.pop(call.number, None) is None:
            return
        self._outgoing.drop(call.number)
        self._collect(call)
        if self.open:
            code = struct.pack(">I", _CANCEL)
            self._transport.write(frame(RST_STREAM, 0, call.number, code))
            self._leave()

    def close(self) -> None:
        """Drops the connection at once."""
        self.open = False
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Part of asyncio.Protocol."""
        self._fail(CONNECTION_LOST, str(exc or "closed by the server"))
        self._gone(self)

    def data_received(self, data: bytes) -> None:
        """Part of asyncio.Protocol."""
        now = _clock()
        self._gathering.read_at(now)
        self.received(now, data)

    def received(self, now: float, data: bytes) -> None:
        """What was read at `now`."""
        data = self._rest + data if self._rest else data
        frames, at, fault = cut(data)
        self._rest = data[at:]
        streams = self.streams
        for kind, flags, number, payload in frames:
            if kind != DATA:
                if not self._take(kind, flags, number, payload, now):
                    return
                continue
            self._owed += len(payload)
            stream = streams.get(number)
            if stream is not None:
                if flags & PADDED:
                    if not payload or payload[0] >= len(payload):
                        self._break("more padding than there is room for")
                        return
                    payload = payload[1 : len(payload) - payload[0]]
                if payload:
                    stream.exchange.arrivals.append((now, payload))
                if flags & END_STREAM:
                    self._finish(number, now)
                    if not self.open:  # it was the last one of a server that goes away
                        return
        if fault:
            self._break(fault)
        self.owed(0)

    def owed(self, size: int) -> None:
        """So many bytes more were read; the server is told when it needs to know."""
        self._owed += size
        if self._owed > self._most_owed and self.open:
            self._transport.write(frame(WINDOW, 0, 0, struct.pack(">I", self._owed)))
            self._owed = 0

    def _announce(self, call: Call) -> None:
        """Before a call is sent."""

    def _collect(self, call: Call) -> None:
        """When a call is over, before its exchange ends."""

    def _take(self, kind: int, flags: int, number: int, payload: bytes, now: float) -> bool:
        """Any frame but DATA. False when the connection is given up."""
        try:
            self._handle(kind, flags, number, payload, now)
        except (hpack.HPACKError, struct.error, IndexError, ValueError) as error:
            self._break(f"{type(error).__name__} in a frame of type {kind}")
        return self.open

    def _handle(self, kind: int, flags: int, number: int, payload: bytes, now: float) -> None:
        if kind == HEADERS:
            start = 1 if flags & PADDED else 0
            end = len(payload) - payload[0] if start else len(payload)
            start += 5 if flags & PRIORITY else 0
            self._take_headers(number, flags, payload[start:end], flags & END_STREAM, now)
        elif kind == CONTINUATION:
            if self._block is None:
                raise ValueError("headers that go on from nothing")
            begun, ends, before = self._block
            if number != begun or len(before) > _LARGEST_BLOCK:
                raise ValueError("headers that go on for ever, or on another stream")
            self._take_headers(number, flags, before + payload, ends, now)
        elif kind == SETTINGS:
            self._take_settings(flags, payload)
        elif kind == PING and not flags & ACK:
            self._transport.write(frame(PING, ACK, 0, payload))
        elif kind == WINDOW:
            self._outgoing.widen(number, struct.unpack(">I", payload)[0] & LARGEST)
            self._outgoing.send(self._transport.write)
        elif kind == RST_STREAM:
            code = struct.unpack(">I", payload)[0]
            self._end_reset(number, code, now)
        elif kind == GOAWAY:
            last, code = struct.unpack_from(">II", payload)
            self._go_away(last & LARGEST, code, payload[8:])
        elif kind == PUSH:
            raise ValueError("a push, which was not asked for")

    def _take_headers(self, number: int, flags: int, block: bytes, ends: int, now: float) -> None:
        if not flags & END_HEADERS:
            self._block = (number, ends, block)
            return
        self._block = None
        # Also for streams that are gone: the compression's state runs through all blocks.
        found = self._headers.decode(block)
        stream = self.streams.get(number)
        if stream is None:
            return
        http = found.get(b":status", "200")
        if http != "200" and not http.startswith("1") and not stream.status:
            stream.status, stream.message = f"HTTP {http}", ""
        if b"grpc-status" in found:
            stream.status = code_name(found[b"grpc-status"])
            stream.message = unquote(found.get(b"grpc-message", ""))
        if ends:
            self._finish(number, now)

    def _take_settings(self, flags: int, payload: bytes) -> None:
        if flags & ACK:
            return
        if len(payload) % 6:
            raise ValueError(f"settings of {len(payload)} bytes")
        for at in range(0, len(payload), 6):
            name, value = struct.unpack_from(">HI", payload, at)
            if name == 3:
                self.most_streams = value
            elif name == 4:
                self._outgoing.set_stream_window(value)
            elif name == 5:
                self._outgoing.set_frame_size(value)
        self._transport.write(frame(SETTINGS, ACK, 0, b""))
        if not self.ready.done():
            self.ready.set_result(None)
        self._outgoing.send(self._transport.write)

    def _end_reset(self, number: int, code: int, now: float) -> None:
        stream = self.streams.get(number)
        if stream is None:
            return
        if stream.status:  # a server may reset what it has answered in full
            self._finish(number, now)
        elif code == _REFUSED:
            self._end(number, STREAM_REFUSED, "the server takes no more streams here")
        elif code == _CANCEL:
            self._end(number, "CANCELLED", "reset by the server")
        else:
            self._end(number, STREAM_RESET, f"HTTP/2 error {code}")

    def _go_away(self, last: int, code: int, reason: bytes) -> None:
        self._leaving = True
        detail = f"the server goes away (HTTP/2 error {code}) {reason.decode('utf-8', 'replace')}"
        for number in [number for number in self.streams if number > last]:
            self._end(number, CONNECTION_LOST, detail.strip())
        self._leave()

    def _leave(self) -> None:
        if self._leaving and not self.streams:
            self.close()

    def _finish(self, number: int, now: float) -> None:
        stream = self.streams[number]
        if stream.status:
            self._end(number, stream.status, stream.message, now)
        else:
            self._end(number, STREAM_RESET, "the stream ended without a status", now)

    def _end(self, number: int, status: str, detail: str, now: float | None = None) -> None:
        stream = self.streams.pop(number, None)
        if stream is None:
            return
        self._outgoing.drop(number)
        self._collect(stream)
        stream.exchange.end(now or _clock(), status, "" if status == OK else detail)
        if not stream.ended.done():
            stream.ended.set_result(None)
        self._leave()

    def _break(self, what: str) -> None:
        self._fail(MALFORMED, f"not HTTP/2: {what}")
        self.close()

    def _fail(self, status: str, detail: str) -> None:
        self.open = False
        for number in list(self.streams):
            self._end(number, status, detail)
        if not self.ready.done():
            self.ready.set_exception(ConnectionError(detail))
            self.ready.exception()  # seen, also when nobody waits for it

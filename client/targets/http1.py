"""HTTP/1.1 for measuring: connections opened before the clock starts, one callback a read.

Plain clients wake a coroutine for every token and decode it while the next one waits. Here a read
is stamped and kept; it is decoded after the run. httptools does the framing.
"""

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

import httptools

from client.targets.connecting import failure_of, open_many
from client.targets.exchange import CONNECTION_LOST, MALFORMED, OK, TIMEOUT, Exchange

_clock = time.perf_counter
Told = Callable[["HttpConnection"], None]


class HttpConnection(asyncio.Protocol):
    """One connection, one request at a time.

    `made`, `free` and `gone` are called when it is open, each time it can take the next request,
    and when it is closed.
    """

    def __init__(self, made: Told, free: Told, gone: Told) -> None:
        self._made, self._free, self._gone = made, free, gone
        self._exchange: Exchange | None = None
        self._ended: asyncio.Future[None] | None = None
        self._feed: Callable[[bytes], None] = self._unasked
        self._keep: Callable[[tuple[float, bytes]], None] = _ignore
        self._now = 0.0
        self.open = False

    def connection_made(self, transport: Any) -> None:
        """Part of asyncio.Protocol."""
        # Not checked: uvloop's transports are of no asyncio class.
        self._transport = cast(asyncio.Transport, transport)
        self.open = True
        self._made(self)

    def send(self, request: bytes, exchange: Exchange) -> "asyncio.Future[None]":
        """Writes a request; the future is done when the exchange has ended."""
        self._ended = asyncio.get_running_loop().create_future()
        self._exchange = exchange
        self._parser = httptools.HttpResponseParser(self)
        # Bound once a request and not once a read: these two are the hot path.
        self._feed, self._keep = self._parser.feed_data, exchange.arrivals.append
        self._status, self._framed = 0, False
        self._coding, self._location = b"", b""
        exchange.sent = _clock()
        self._transport.write(request)
        return self._ended

    def give_up(self, exchange: Exchange, status: str, detail: str) -> None:
        """Ends the exchange from this side and drops the connection, unless both are through."""
        if self._exchange is exchange:
            self._end(_clock(), status, detail)
            self.close()

    def abandon(self, exchange: Exchange) -> None:
        """Leaves the exchange open and drops the connection, unless both are through."""
        if self._exchange is exchange:
            self._rest()
            self.close()

    def close(self) -> None:
        """Drops the connection at once."""
        self.open = False
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Part of asyncio.Protocol."""
        self.received(_clock(), data)

    def received(self, now: float, data: bytes) -> None:
        """What was read at `now`."""
        self._now = now
        try:
            self._feed(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if self._exchange is None:
                self.close()
                return
            what = "another protocol" if self._status == 101 else f"not HTTP: {error}"
            self.give_up(self._exchange, MALFORMED, what)

    def connection_lost(self, exc: Exception | None) -> None:
        """Part of asyncio.Protocol."""
        self.open = False
        self._gone(self)
        if self._exchange is None:
            return
        if exc is None and self._status >= 200 and not self._framed:
            self._end(_clock(), *self._outcome())  # an answer that ends with its connection
        else:
            self._end(_clock(), CONNECTION_LOST, str(exc or "closed before the answer was whole"))

    def on_message_begin(self) -> None:
        """Part of httptools' protocol, as the four below."""
        self._framed = False
        if self._exchange is None:
            self.close()  # a second answer, right after the one asked for

    def on_header(self, name: bytes, value: bytes) -> None:
        """How the body is framed, and what it is."""
        name = name.lower()
        if name in (b"content-length", b"transfer-encoding"):
            self._framed = True
        elif name == b"content-encoding":
            self._coding = value
        elif name == b"location":
            self._location = value

    def on_headers_complete(self) -> None:
        """The status is known."""
        self._status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        """A chunk, or as much of it as came."""
        self._keep((self._now, body))

    def on_message_complete(self) -> None:
        """The answer is whole."""
        if self._exchange is None or self._status < 200:
            return
        self._end(self._now, *self._outcome())
        if self.open and self._parser.should_keep_alive():
            self._free(self)
        else:
            self.close()

    def _rest(self) -> None:
        self._exchange = self._ended = None
        self._feed, self._keep = self._unasked, _ignore

    def _unasked(self, data: bytes) -> None:
        # Bytes that nobody asked for would be taken for the start of the next answer.
        self.close()

    def _outcome(self) -> tuple[str, str]:
        if self._status != 200:
            return f"HTTP {self._status}", self._location.decode("utf-8", "replace")
        coding = self._coding.decode("utf-8", "replace")
        if coding.lower() not in ("", "identity"):
            return MALFORMED, f"the answer is encoded ({coding}), which was not asked for"
        return OK, ""

    def _end(self, now: float, status: str, detail: str) -> None:
        exchange, ended = self._exchange, self._ended
        self._rest()
        if exchange is not None:
            exchange.end(now, status, detail)
        if ended is not None and not ended.done():
            ended.set_result(None)


@dataclass(frozen=True)
class HttpAddress:
    """Where a server listens. `context` None: no encryption."""

    host: str
    port: int
    context: ssl.SSLContext | None = None


# Address, made, free, gone -> a connection that is open. Raises OSError.
Connect = Callable[[HttpAddress, Told, Told, Told], Awaitable[HttpConnection]]


class HttpPool:
    """Connections to one server, opened by `connect`; one more is opened when all are busy."""

    def __init__(self, address: HttpAddress, connect_timeout: float, connect: Connect) -> None:
        self._address = address
        self._connect_timeout = connect_timeout
        self._open = connect
        # In order: the one that was free last is taken first. The others may go stale.
        self._idle: dict[HttpConnection, None] = {}
        self._all: set[HttpConnection] = set()

    async def fill(self, count: int) -> None:
        """Opens connections until there are `count`. Raises OSError."""

        async def one() -> None:
            self._idle[await self._connect(self._connect_timeout)] = None

        await open_many(one, count - len(self._all))

    async def ask(self, request: bytes, exchange: Exchange, timeout: float) -> None:
        """Sends a request and returns when its exchange has ended, at most `timeout` later."""
        loop = asyncio.get_running_loop()
        connection = self._take()
        left = timeout
        if connection is not None:
            ended = connection.send(request, exchange)
        else:
            started = exchange.sent = _clock()
            try:
                connection = await self._connect(min(self._connect_timeout, timeout))
            except OSError as error:
                exchange.end(_clock(), *failure_of(error, self._connect_timeout, timeout))
                return
            ended = connection.send(request, exchange)
            exchange.sent = started  # connecting is part of what this request took
            left = max(0.0, started + timeout - _clock())
        detail = f"no end within {timeout:g} s"
        limit = loop.call_later(left, connection.give_up, exchange, TIMEOUT, detail)
        try:
            await ended
        except asyncio.CancelledError:
            connection.abandon(exchange)
            raise
        finally:
            limit.cancel()

    def close(self) -> None:
        """Drops every connection."""
        for connection in list(self._all):
            connection.close()

    def _take(self) -> HttpConnection | None:
        while self._idle:
            connection, _ = self._idle.popitem()
            if connection.open:
                return connection
        return None

    async def _connect(self, timeout: float) -> HttpConnection:
        async with asyncio.timeout(timeout):
            connection = await self._open(self._address, self._all.add, self._freed, self._gone)
        if not connection.open:
            raise ConnectionResetError("closed by the server as soon as it was open")
        return connection

    def _freed(self, connection: HttpConnection) -> None:
        self._idle[connection] = None

    def _gone(self, connection: HttpConnection) -> None:
        self._all.discard(connection)
        self._idle.pop(connection, None)


async def connect_on_loop(
    address: HttpAddress, made: Told, free: Told, gone: Told
) -> HttpConnection:
    """A connection that the event loop reads. Raises OSError."""
    _, connection = await asyncio.get_running_loop().create_connection(
        lambda: HttpConnection(made, free, gone), address.host, address.port, ssl=address.context
    )
    return connection


def _ignore(arrival: tuple[float, bytes]) -> None:
    """What comes after the end of an exchange."""

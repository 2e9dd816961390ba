"""HTTP/1.1 for measuring: connections opened before the clock starts, one callback a read.

Plain clients wake a coroutine for every token and decode it while the next one waits. Here a read
is stamped and kept; it is decoded after the run. httptools does the framing.
"""

import asyncio
import errno
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import httptools

from client.targets.exchange import (
    CLIENT_LIMIT,
    CONNECTION_LOST,
    MALFORMED,
    OK,
    TIMEOUT,
    Exchange,
)

_clock = time.perf_counter
# Too many open files, here or in the system; no free port.
_OWN_LIMITS = (errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL)


class HttpConnection(asyncio.Protocol):
    """One connection, one request at a time. `free` is called when it can take the next one."""

    def __init__(self, free: Callable[["HttpConnection"], None]) -> None:
        self._free = free
        self._exchange: Exchange | None = None
        self._ended: asyncio.Future[None] | None = None
        self._now = 0.0
        self.open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of asyncio.Protocol."""
        # Not checked: uvloop's transports are of no asyncio class.
        self._transport = cast(asyncio.Transport, transport)
        self.open = True

    def send(self, request: bytes, exchange: Exchange) -> "asyncio.Future[None]":
        """Writes a request; the future is done when the exchange has ended."""
        self._ended = asyncio.get_running_loop().create_future()
        self._exchange = exchange
        self._parser = httptools.HttpResponseParser(self)
        self._status, self._framed = 0, False
        exchange.sent = _clock()
        self._transport.write(request)
        return self._ended

    def give_up(self, status: str, detail: str = "") -> None:
        """Ends the exchange from this side and drops the connection."""
        self._end(_clock(), status, detail)
        self.close()

    def close(self) -> None:
        """Drops the connection at once."""
        self.open = False
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Part of asyncio.Protocol."""
        self._now = _clock()
        if self._exchange is None:
            # Bytes that nobody asked for would be taken for the start of the next answer.
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.give_up(MALFORMED, f"not HTTP: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        """Part of asyncio.Protocol."""
        self.open = False
        if self._exchange is None:
            return
        if exc is None and self._status and not self._framed:
            self._end(_clock(), *self._outcome())  # an answer that ends with its connection
        else:
            self._end(_clock(), CONNECTION_LOST, str(exc or "closed before the answer was whole"))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Part of httptools' protocol, as the three below."""
        self._framed = self._framed or name.lower() in (b"content-length", b"transfer-encoding")

    def on_headers_complete(self) -> None:
        """The status is known."""
        self._status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        """A chunk, or as much of it as came."""
        exchange = self._exchange
        if exchange is not None:
            exchange.arrivals.append((self._now, body))
            exchange.tokens += body.count(b"data:")

    def on_message_complete(self) -> None:
        """The answer is whole."""
        if self._exchange is None or self._status < 200:
            return
        self._end(self._now, *self._outcome())
        if self.open and self._parser.should_keep_alive():
            self._free(self)
        else:
            self.close()

    def _outcome(self) -> tuple[str, str]:
        return (OK, "") if self._status == 200 else (f"HTTP {self._status}", "")

    def _end(self, now: float, status: str, detail: str) -> None:
        exchange, ended = self._exchange, self._ended
        self._exchange = self._ended = None
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

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class HttpPool:
    """Connections to one server; one more is opened when all are busy."""

    def __init__(self, address: HttpAddress, connect_timeout: float) -> None:
        self._address = address
        self._connect_timeout = connect_timeout
        self._idle: list[HttpConnection] = []
        self._all: set[HttpConnection] = set()

    async def fill(self, count: int) -> None:
        """Opens connections until there are `count`. Raises OSError or TimeoutError."""
        # Few at a time: a listener's queue of connections is often 100 or so.
        gate = asyncio.Semaphore(32)

        async def one() -> None:
            async with gate:
                self._idle.append(await self._connect())

        missing = count - len(self._all)
        await asyncio.gather(*(one() for _ in range(missing)))

    async def ask(self, request: bytes, exchange: Exchange, timeout: float) -> None:
        """Sends a request and returns when its exchange has ended, at most `timeout` later."""
        loop = asyncio.get_running_loop()
        connection = self._take()
        if connection is None:
            exchange.sent = _clock()
            try:
                connection = await self._connect()
            except TimeoutError:
                exchange.end(_clock(), CONNECTION_LOST, "no connection in time")
                return
            except OSError as error:
                exchange.end(_clock(), cause_of(error), str(error))
                return
            waited = exchange.sent
            ended = connection.send(request, exchange)
            exchange.sent = waited  # connecting is part of what this request took
        else:
            ended = connection.send(request, exchange)
        limit = loop.call_later(timeout, connection.give_up, TIMEOUT, f"no end in {timeout:g} s")
        try:
            await ended
        except asyncio.CancelledError:
            connection.close()
            raise
        finally:
            limit.cancel()

    def close(self) -> None:
        """Drops every connection."""
        for connection in self._all:
            connection.close()
        self._all.clear()
        self._idle.clear()

    def _take(self) -> HttpConnection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.open:
                return connection
            self._all.discard(connection)
        return None

    async def _connect(self) -> HttpConnection:
        address, loop = self._address, asyncio.get_running_loop()
        async with asyncio.timeout(self._connect_timeout):
            _, connection = await loop.create_connection(
                lambda: HttpConnection(self._idle.append),
                address.host,
                address.port,
                ssl=address.context,
            )
        self._all.add(connection)
        return connection


def cause_of(error: OSError) -> str:
    """Whose fault a failed connect is: the client's own limits are told apart."""
    return CLIENT_LIMIT if error.errno in _OWN_LIMITS else CONNECTION_LOST

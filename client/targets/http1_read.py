"""HTTP/1.1 whose sockets a thread in C reads: nothing runs in Python for a token of a stream."""

import asyncio

from client.reading.pieces import Coming
from client.reading.transport import ReadTransport
from client.targets.exchange import MALFORMED, Exchange
from client.targets.http1 import HttpConnection

_LAST_CHUNK = b"0\r\n\r\n"


class ReadConnection(HttpConnection):
    """As HttpConnection; the chunks of a good answer were taken apart by its ReadTransport.

    Of such an answer httptools sees the head and the last chunk, when it has ended; of any other
    all of it, as it comes.
    """

    _transport: ReadTransport  # type: ignore[assignment]

    def send(self, request: bytes, exchange: Exchange) -> "asyncio.Future[None]":
        """See HttpConnection."""
        self._transport.expect()
        ended = super().send(request, exchange)
        exchange.pieces = Coming(self._transport.pieces)
        return ended

    def owed(self, size: int) -> None:
        """HTTP/1.1 has no windows."""

    def answer_ended(self, now: float, head: bytes) -> None:
        """Its head says whether the connection stays."""
        self.received(now, head)
        self.received(now, _LAST_CHUNK)

    def answer_broken(self) -> None:
        """The chunks are not what RFC 9112 says."""
        if self._exchange is not None:
            self.give_up(self._exchange, MALFORMED, "not HTTP: its chunks are out of step")

    def connection_lost(self, exc: Exception | None) -> None:
        """Before the end of an answer, or after it."""
        head = self._transport.head
        if head and self._exchange is not None:
            self.received(self._now, head)
        super().connection_lost(exc)

    def _rest(self) -> None:
        if self._exchange is not None:
            self._exchange.pieces = self._transport.take()
        super()._rest()

"""HTTP/1.1 whose sockets a thread in C reads: nothing runs in Python for a token of a stream."""

from client.reading.pieces import Coming
from client.reading.transport import ReadTransport
from client.targets.exchange import MALFORMED
from client.targets.http1 import HttpConnection

_END_OF_HEAD = b"\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"


class ReadConnection(HttpConnection):
    """As HttpConnection; the chunks of a good answer are taken apart by its ReadTransport.

    The head, and every answer that is not 200 in plain chunks, goes through httptools as there.
    """

    _transport: ReadTransport  # type: ignore[assignment]

    def received(self, now: float, data: bytes) -> None:
        """A head that comes whole is read by itself, to know what its body is."""
        end = data.find(_END_OF_HEAD) + len(_END_OF_HEAD)
        if self._exchange is None or self._status or end < len(_END_OF_HEAD):
            super().received(now, data)
            return
        super().received(now, data[:end])
        if self._exchange is not None and self._chunked and self._outcome()[0] == "OK":
            self._transport.unchunk(now, data[end:])
            self._exchange.arrivals = Coming(self._transport.pieces)
            self._apart = True
        elif end < len(data):
            super().received(now, data[end:])

    def body_ended(self, now: float) -> None:
        """The rest of the answer, for httptools to say whether the connection stays."""
        super().received(now, _LAST_CHUNK)

    def body_broken(self) -> None:
        """The chunks are not what RFC 9112 says."""
        if self._exchange is not None:
            self.give_up(self._exchange, MALFORMED, "not HTTP: its chunks are out of step")

    def _rest(self) -> None:
        if self._exchange is not None and self._apart:
            self._exchange.arrivals = self._transport.take()
        self._apart = False
        super()._rest()

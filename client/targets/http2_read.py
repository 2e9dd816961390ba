"""HTTP/2 whose sockets a thread in C reads: nothing runs in Python for a message of a stream."""

from functools import partial

from client.reading.pieces import Coming
from client.reading.reader import ALL
from client.reading.transport import ReadTransport
from client.targets.http2 import Call, Http2Connection


class ReadHttp2Connection(Http2Connection):
    """As Http2Connection, which still judges every frame but the DATA that a call gets before its
    last: its ReadTransport keeps that.
    """

    _transport: ReadTransport  # type: ignore[assignment]
    _frames = 0  # that were told
    _last = ALL  # how many of them count for what is collected now

    def received(self, now: float, data: bytes) -> None:
        """One whole frame."""
        self._last = self._frames
        super().received(now, data)
        self._frames += 1
        self._last = ALL

    def answer_ended(self, now: float, head: bytes) -> None:
        """None is expected."""

    def answer_broken(self) -> None:
        """As above."""

    def _announce(self, call: Call) -> None:
        if self._transport.announce(call.number):
            call.exchange.pieces = Coming(partial(self._transport.pieces_of, call.number))

    def _collect(self, call: Call) -> None:
        exchange = call.exchange
        if exchange.pieces is None:
            return
        # The thread may be ahead: what came behind the frame that ends a call is no part of it.
        exchange.pieces = self._transport.take_call(call.number, self._last)
        if exchange.arrivals:  # content in the call's last frame, which the thread passed
            exchange.arrivals[:0] = exchange.pieces or ()
            exchange.pieces = None

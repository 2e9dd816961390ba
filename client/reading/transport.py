"""A connection that a SocketReader reads, as far as a client of HTTP needs one."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Protocol

from client.reading.pieces import Pieces
from client.reading.reader import ReadStream, SocketReader


class Reading(Protocol):
    """Who uses the connection. The two about answers are for those who expect any, and `owed` is
    for those who announce calls."""

    def connection_made(self, transport: Any) -> None:
        """As in asyncio.Protocol."""

    def received(self, now: float, data: bytes) -> None:
        """A read, with its time (`time.perf_counter()`)."""

    def owed(self, size: int) -> None:
        """See `Reads`."""

    def answer_ended(self, now: float, head: bytes) -> None:
        """An answer that the reader took apart is whole."""

    def answer_broken(self) -> None:
        """Its chunks break the rules of HTTP."""

    def connection_lost(self, exc: Exception | None) -> None:
        """As in asyncio.Protocol."""


class ReadTransport:
    """Writes at once what the socket takes, the rest when it can."""

    def __init__(
        self, reader: SocketReader, sock: socket.socket, user: Reading, most_owed: int = 0
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket, self._user = sock, user
        self._unsent = bytearray()
        self._lost = False
        self._stream: ReadStream = reader.add(sock, self, most_owed)

    def expect(self) -> None:
        """See `ReadStream`."""
        self._stream.expect()

    def is_closing(self) -> bool:
        """Whether it is closed or about to be."""
        return self._lost

    def write(self, data: bytes) -> None:
        """Sends in order."""
        if self._unsent:
            self._unsent += data
            return
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._lose(error)
            return
        if sent < len(data):
            self._unsent += data[sent:]
            self._loop.add_writer(self._socket, self._send_rest)

    def abort(self) -> None:
        """Drops the connection."""
        self._lose(None)

    @property
    def head(self) -> bytes:
        """See `ReadStream`."""
        return self._stream.head

    def pieces(self) -> int:
        """How many pieces came so far of an answer that is taken apart."""
        return len(self._stream)

    def take(self) -> Pieces | None:
        """See `ReadStream`."""
        return self._stream.take()

    def announce(self, call: int) -> bool:
        """See `ReadStream`, as the two below."""
        return self._stream.announce(call)

    def pieces_of(self, call: int) -> int:
        """As above."""
        return self._stream.pieces_of(call)

    def take_call(self, call: int, last: int) -> Pieces | None:
        """As above."""
        return self._stream.take_call(call, last)

    def came(self, time: float, content: bytes) -> None:
        """Part of Reads, as the five below."""
        if not self._lost:
            self._user.received(time, content)

    def owed(self, size: int) -> None:
        """Windows close."""
        if not self._lost:
            self._user.owed(size)

    def ended(self, time: float, unasked: bool) -> None:
        """Whatever stands behind an answer makes the connection useless."""
        if not self._lost:
            self._user.answer_ended(time, self._stream.head)
        if unasked:
            self._lose(None)

    def broken(self) -> None:
        """Chunks out of step."""
        if not self._lost:
            self._user.answer_broken()

    def unasked(self) -> None:
        """Something after an answer."""
        self._lose(None)

    def closed(self, error: OSError | None) -> None:
        """By the other side."""
        self._lose(error)

    def _send_rest(self) -> None:
        try:
            del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(error)
            return
        if not self._unsent:
            self._loop.remove_writer(self._socket)

    def _lose(self, error: OSError | None) -> None:
        if self._lost:
            return
        self._lost = True
        if self._unsent:
            self._loop.remove_writer(self._socket)
        self._loop.call_soon(self._close, error)

    def _close(self, error: OSError | None) -> None:
        # Now, not before: what had come of an answer can be taken until its user knows of the end.
        self._user.connection_lost(error)
        self._stream.remove()
        self._socket.close()


class Listener:
    """Takes connections of clients on a free port of this host; `make` makes the user of each.

    `most_owed`: see `SocketReader.add`.
    """

    def __init__(
        self, reader: SocketReader, make: Callable[[], Reading], most_owed: int = 0
    ) -> None:
        self._reader, self._make, self._most_owed = reader, make, most_owed
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self._socket.setblocking(False)
        self.port: int = self._socket.getsockname()[1]
        asyncio.get_running_loop().add_reader(self._socket, self._accept)

    def _accept(self) -> None:
        try:
            sock, _ = self._socket.accept()
        except OSError:  # it went before it was taken
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        user = self._make()
        user.connection_made(ReadTransport(self._reader, sock, user, self._most_owed))


async def connect(
    reader: SocketReader, host: str, port: int, user: Reading, most_owed: int = 0
) -> ReadTransport:
    """Opens a connection to the first address that takes it. Raises OSError.

    `most_owed`: see `SocketReader.add`.
    """
    loop = asyncio.get_running_loop()
    fault: OSError = OSError(f"no address of {host}")
    for family, kind, protocol, _, address in await loop.getaddrinfo(
        host, port, type=socket.SOCK_STREAM
    ):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(sock, address)
            return ReadTransport(reader, sock, user, most_owed)
        except OSError as error:
            sock.close()
            fault = error
        except asyncio.CancelledError:
            sock.close()
            raise
    raise fault

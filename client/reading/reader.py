"""Sockets that a thread in C reads, for one event loop."""

import asyncio
import ctypes
import errno
import os
import socket
from collections import deque
from typing import Protocol

import numpy as np

from client.reading.pieces import Pieces

_CAME, _ENDED, _CLOSED, _BROKEN, _UNASKED = 1, 2, 4, 8, 16


class Reads(Protocol):
    """Who is told of a stream. All are called on the event loop."""

    def came(self, time: float, content: bytes) -> None:
        """What was passed. May call `ReadStream.unchunk`."""

    def ended(self, time: float, unasked: bool) -> None:
        """A chunked body is whole; `unasked`: more came behind it."""

    def broken(self) -> None:
        """A chunked body breaks the rules."""

    def unasked(self) -> None:
        """Something came after the end."""

    def closed(self, error: OSError | None) -> None:
        """The other side closed, or the connection is lost."""


class SocketReader:
    """Made on the event loop that it tells. `close` before the loop ends."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._handle = library.reader_open(self._event)
        if not self._handle:
            os.close(self._event)
            raise OSError(errno.EMFILE, "no thread or no files for the reader")
        self._streams: dict[int, ReadStream] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._event, self._tell)

    def add(self, sock: socket.socket, reads: Reads) -> "ReadStream":
        """Reads a non-blocking socket from now on. Raises OSError."""
        stream = self._library.reader_add(self._handle, sock.fileno())
        if not stream:
            raise OSError(errno.EMFILE, "no memory or no files to read one more socket")
        self._streams[stream] = ReadStream(self, stream, reads)
        return self._streams[stream]

    def close(self) -> None:
        """Reads nothing more, and forgets all streams."""
        self._streams.clear()
        self._loop.remove_reader(self._event)
        self._library.reader_close(self._handle)
        os.close(self._event)

    def _tell(self) -> None:
        try:
            os.eventfd_read(self._event)
        except BlockingIOError:
            return
        told, error, ended = ctypes.c_int(), ctypes.c_int(), ctypes.c_double()
        out = (ctypes.byref(told), ctypes.byref(error), ctypes.byref(ended))
        while number := self._library.reader_told(self._handle, *out):
            stream = self._streams.get(number)
            if stream is not None:
                stream._hear(told.value, error.value, ended.value)


class ReadStream:
    """One socket's reading. `chunked`: the reader takes the body apart, and tells of its end."""

    def __init__(self, reader: SocketReader, number: int, reads: Reads) -> None:
        self._reader, self._number, self._reads = reader, number, reads
        self._library, self._handle = reader._library, reader._handle
        self.chunked = False
        self._start: list[tuple[float, bytes]] = []

    def unchunk(self, time: float, body: bytes) -> None:
        """What `came` was just told ends with `body`, the start of a chunked body: the rest of it
        is taken apart, and kept until `take`."""
        self.chunked = True
        self._start = [(time, body)] if body else []

    def __len__(self) -> int:
        """Pieces held."""
        if self._removed:
            return 0
        return int(self._library.reader_pieces(self._handle, self._number))

    def restart(self) -> None:
        """Passes what comes, as at first: before the next request."""
        if self.chunked and not self._removed:
            self.chunked = False
            self._library.reader_pass(self._handle, self._number)

    def take(self) -> Pieces:
        """All pieces held, which are then forgotten; none when the stream was removed."""
        if self._removed:
            return Pieces(np.empty(0), np.empty(0, np.uint64), b"")
        pieces, used = ctypes.c_size_t(16), ctypes.c_size_t(4096)
        while True:
            times = np.empty(pieces.value, np.float64)
            ends = np.empty(pieces.value, np.uint64)
            body = np.empty(used.value, np.uint8)
            whole = self._library.reader_take(
                *(self._handle, self._number, ctypes.byref(pieces), ctypes.byref(used)),
                *(times.ctypes.data, ends.ctypes.data, body.ctypes.data),
            )
            if whole:
                count = pieces.value
                return Pieces(times[:count], ends[:count], body[: used.value].tobytes())

    def remove(self) -> None:
        """Stops reading; to be called before the socket is closed."""
        if not self._removed:
            del self._reader._streams[self._number]
            self._library.reader_remove(self._handle, self._number)

    @property
    def _removed(self) -> bool:
        return self._number not in self._reader._streams

    def _hear(self, told: int, error: int, ended: float) -> None:
        if told & _CAME and not self.chunked:
            rest = self._pass_on()
            if self.chunked and not self._removed:
                found, ended = self._unchunk([*self._start, *rest])
                told |= found
        if told & _ENDED:
            self._reads.ended(ended, bool(told & _UNASKED))
        elif told & _UNASKED:
            self._reads.unasked()
        if told & _BROKEN:
            self._reads.broken()
        if told & _CLOSED:
            self._reads.closed(OSError(error, os.strerror(error)) if error else None)

    def _pass_on(self) -> deque[tuple[float, bytes]]:
        """Returns what came after the start of a chunked body."""
        rest = deque(self.take())
        while rest and not self.chunked:
            self._reads.came(*rest.popleft())
        return rest

    def _unchunk(self, pieces: list[tuple[float, bytes]]) -> tuple[int, float]:
        times = np.array([time for time, _ in pieces], np.float64)
        ends = np.cumsum([len(content) for _, content in pieces], dtype=np.uint64)
        ended = ctypes.c_double()
        told = self._library.reader_unchunk(
            *(self._handle, self._number, len(pieces), times.ctypes.data, ends.ctypes.data),
            *(b"".join(content for _, content in pieces), ctypes.byref(ended)),
        )
        return told, ended.value

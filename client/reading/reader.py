"""Sockets that a thread in C reads, for one event loop."""

import asyncio
import ctypes
import errno
import os
import socket
from typing import Protocol

import numpy as np

from client.reading.pieces import Pieces

_MOST_HEAD = 1 << 16  # bytes that are read at once
_CAME, _ENDED, _CLOSED, _BROKEN, _UNASKED, _OWED = 1, 2, 4, 8, 16, 32
_ITSELF = 0  # in place of a call's number
ALL = 2**64 - 1  # frames, and more than ever come


class Reads(Protocol):
    """Who is told of a stream. All are called on the event loop."""

    def came(self, time: float, content: bytes) -> None:
        """What was not taken apart, as it came; of a framed connection one whole frame."""

    def owed(self, size: int) -> None:
        """So many bytes were kept for calls since it was last told; their sender waits for it."""

    def ended(self, time: float, unasked: bool) -> None:
        """An answer that was taken apart is whole; `unasked`: more came behind it."""

    def broken(self) -> None:
        """Its chunks break the rules of HTTP."""

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
        self._room = _Room(library)
        self._told, self._error, self._ended = ctypes.c_int(), ctypes.c_int(), ctypes.c_double()
        told = (self._told, self._error, self._ended)
        self._out = tuple(ctypes.byref(each) for each in told)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._event, self._tell)

    def add(self, sock: socket.socket, reads: Reads, most_owed: int = 0) -> "ReadStream":
        """Reads a non-blocking socket from now on. Raises OSError.

        With `most_owed` what comes are frames of HTTP/2: DATA of the calls that are announced is
        kept, all other frames are told, and when more bytes were kept than that, their number.
        """
        stream = self._library.reader_add(self._handle, sock.fileno(), most_owed)
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
        while number := self._library.reader_told(self._handle, *self._out):
            stream = self._streams.get(number)
            if stream is not None:
                stream._hear(self._told.value, self._error.value, self._ended.value)


class _Room:
    """Where pieces are copied to first: to make it for each stream takes longer than to fill it."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._head = ctypes.create_string_buffer(_MOST_HEAD)
        self._pieces, self._used = ctypes.c_size_t(1 << 10), ctypes.c_size_t(1 << 16)
        self._make()

    def head(self, handle: int, number: int) -> bytes:
        """The head of an answer."""
        size = self._library.reader_head(handle, number, self._head, _MOST_HEAD)
        return self._head.raw[:size]

    def taken(self, handle: int, number: int, call: int = _ITSELF, last: int = ALL) -> Pieces:
        """All pieces of a stream, or those of a call that came before more than `last` frames."""
        self._pieces.value, self._used.value = len(self._times), len(self._body)
        if not self._library.reader_take(handle, number, call, last, *self._out):
            self._make()
            return self.taken(handle, number, call, last)
        count = self._pieces.value
        body = self._body[: self._used.value].tobytes()
        return Pieces(self._times[:count].copy(), self._ends[:count].copy(), body)

    def _make(self) -> None:
        # Twice what is wanted, for more may have come by then.
        self._times = np.empty(2 * self._pieces.value, np.float64)
        self._ends = np.empty(2 * self._pieces.value, np.uint64)
        self._body = np.empty(2 * self._used.value, np.uint8)
        arrays = (self._times, self._ends, self._body)
        counts = (ctypes.byref(self._pieces), ctypes.byref(self._used))
        self._out = (*counts, *(array.ctypes.data for array in arrays))


class ReadStream:
    """One socket's reading."""

    def __init__(self, reader: SocketReader, number: int, reads: Reads) -> None:
        self._reader, self._number, self._reads = reader, number, reads
        self._library, self._handle = reader._library, reader._handle

    def expect(self) -> None:
        """What comes next is an answer of HTTP/1.1: taken apart if it is 200 in plain chunks."""
        if not self._removed:
            self._library.reader_expect(self._handle, self._number)

    def __len__(self) -> int:
        """Pieces so far of an answer that is taken apart."""
        return self.pieces_of(_ITSELF)

    @property
    def head(self) -> bytes:
        """The head of an answer that is taken apart; empty for none."""
        return b"" if self._removed else self._reader._room.head(self._handle, self._number)

    def take(self) -> Pieces | None:
        """The pieces of an answer that is taken apart, which are then forgotten; None for none."""
        return self._reader._room.taken(self._handle, self._number) if self.head else None

    def announce(self, call: int) -> bool:
        """Before a call is sent, on a framed connection: whether its DATA will be kept."""
        if self._removed:
            return False
        return bool(self._library.reader_call(self._handle, self._number, call))

    def pieces_of(self, call: int) -> int:
        """How many pieces came so far of a call."""
        if self._removed:
            return 0
        return int(self._library.reader_pieces(self._handle, self._number, call))

    def take_call(self, call: int, last: int) -> Pieces | None:
        """What came of a call before more than `last` frames were told. It is then forgotten, and
        what still comes of it is told. None: the stream was removed."""
        if self._removed:
            return None
        return self._reader._room.taken(self._handle, self._number, call, last)

    def remove(self) -> None:
        """Stops reading; to be called before the socket is closed."""
        if not self._removed:
            del self._reader._streams[self._number]
            self._library.reader_remove(self._handle, self._number)

    @property
    def _removed(self) -> bool:
        return self._number not in self._reader._streams

    def _hear(self, told: int, error: int, ended: float) -> None:
        if told & _CAME:
            for time, content in self._reader._room.taken(self._handle, self._number):
                self._reads.came(time, content)
        if told & _OWED and not self._removed:
            self._reads.owed(int(self._library.reader_owed(self._handle, self._number)))
        # Before what stood behind it: that loses the connection, and the reason with it.
        if told & _BROKEN:
            self._reads.broken()
        if told & _ENDED:
            self._reads.ended(ended, bool(told & _UNASKED))
        elif told & _UNASKED:
            self._reads.unasked()
        if told & _CLOSED:
            self._reads.closed(OSError(error, os.strerror(error)) if error else None)

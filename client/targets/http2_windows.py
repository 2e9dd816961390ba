"""What a connection of HTTP/2 may send of its request messages: flow control (RFC 9113, 5.2)."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from client.targets.http2_frames import DATA, END_STREAM, LARGEST, LARGEST_FRAME, frame

_FIRST_WINDOW = 65_535
_FRAME_SIZES = range(LARGEST_FRAME, 2**24)


@dataclass(slots=True)
class _Message:
    """What its stream takes more, in bytes, and what is not sent yet."""

    window: int
    unsent: memoryview


class Outgoing:
    """Request messages by their stream; each goes out as the server's windows allow."""

    def __init__(self) -> None:
        self._messages: dict[int, _Message] = {}
        self._window = _FIRST_WINDOW
        self._stream_window = _FIRST_WINDOW
        self._frame_size = LARGEST_FRAME
        self._waiting: deque[int] = deque()

    def start(
        self, number: int, head: bytes, message: bytes, write: Callable[[bytes], None]
    ) -> None:
        """Sends the headers of a stream, and of its message what may go at once."""
        held = _Message(self._stream_window, memoryview(message))
        self._messages[number] = held
        whole = len(message)
        if whole <= min(self._window, held.window, self._frame_size) and not self._waiting:
            self._window -= whole
            held.window -= whole
            held.unsent = held.unsent[whole:]
            write(head + frame(DATA, END_STREAM, number, message))
        else:
            write(head)
            self._waiting.append(number)
            self.send(write)

    def drop(self, number: int) -> None:
        """The stream is over; what is unsent of its message stays so."""
        self._messages.pop(number, None)

    def set_stream_window(self, size: int) -> None:
        """The server's setting, which counts for open streams too. Raises ValueError."""
        if size > LARGEST:
            raise ValueError(f"a window of {size} bytes")
        for held in self._messages.values():
            held.window += size - self._stream_window
        self._stream_window = size

    def set_frame_size(self, size: int) -> None:
        """The server's setting. Raises ValueError."""
        if size not in _FRAME_SIZES:
            raise ValueError(f"frames of {size} bytes")
        self._frame_size = size

    def widen(self, number: int, more: int) -> None:
        """The server takes so many bytes more, stream 0 being the connection. Raises ValueError."""
        held = self._messages.get(number)
        before = self._window if number == 0 else held.window if held else 0
        if before + more > LARGEST:
            raise ValueError(f"a window of {before + more} bytes")
        if number == 0:
            self._window += more
        elif held is not None:
            held.window += more

    def send(self, write: Callable[[bytes], None]) -> None:
        """Sends what the windows allow of the messages that wait, in turn."""
        for _ in range(len(self._waiting)):
            number = self._waiting.popleft()
            held = self._messages.get(number)
            if held is None:
                continue
            while held.unsent:
                room = min(self._window, held.window, self._frame_size, len(held.unsent))
                if room <= 0:
                    break
                part, held.unsent = bytes(held.unsent[:room]), held.unsent[room:]
                self._window -= room
                held.window -= room
                write(frame(DATA, 0 if held.unsent else END_STREAM, number, part))
            if held.unsent:
                self._waiting.append(number)

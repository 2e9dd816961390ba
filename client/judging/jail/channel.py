"""Messages between two processes: JSON after its length, over a pair of pipes."""

import json
import os
import struct
from typing import Any

MOST_BYTES = 16 * 1024 * 1024


class Channel:
    """Reads from one pipe and writes to another; both are file descriptors."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        self._incoming = incoming
        self._outgoing = outgoing

    def send(self, message: Any) -> None:
        """ValueError, and nothing is sent, for a message that is no JSON or over MOST_BYTES."""
        data = json.dumps(message).encode()
        if len(data) > MOST_BYTES:
            raise ValueError(f"a message of {len(data)} bytes; at most {MOST_BYTES}")
        rest = memoryview(struct.pack("<I", len(data)) + data)
        while rest:
            rest = rest[os.write(self._outgoing, rest) :]

    def receive(self) -> Any:
        """The next message. EOFError when the other side is gone, ValueError for nonsense."""
        (length,) = struct.unpack("<I", self._read(4))
        if length > MOST_BYTES:
            raise ValueError(f"a message of {length} bytes; at most {MOST_BYTES}")
        return json.loads(self._read(length))

    def _read(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            part = os.read(self._incoming, min(count - len(data), 1 << 20))
            if not part:
                raise EOFError("the other side is gone")
            data += part
        return bytes(data)

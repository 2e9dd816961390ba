"""Pipes between processes."""

import os
import select
import time
from types import TracebackType
from typing import NamedTuple, Self

_SLICE_SECONDS = 0.25


class Pipe(NamedTuple):
    """Two file descriptors."""

    reader: int
    writer: int


class Pipes:
    """Makes pipes; every end is closed once, at the end of the block if not before."""

    def __init__(self) -> None:
        self._open: set[int] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(*self._open)

    def make(self) -> Pipe:
        """A new one. Children inherit an end only when they are given it."""
        pipe = Pipe(*os.pipe())
        self._open.update(pipe)
        return pipe

    def close(self, *ends: int) -> None:
        """Those of them that are open."""
        for end in self._open.intersection(ends):
            self._open.remove(end)
            os.close(end)


def read_to_end(reader: int, seconds: float, most: int) -> tuple[bytes, bool]:
    """What comes until the last writer is gone, and whether that was within so many seconds and
    bytes. Time in which this process itself stood still does not count."""
    data, left = bytearray(), seconds
    while left > 0 and len(data) <= most:
        started = time.monotonic()
        ready, _, _ = select.select([reader], [], [], min(_SLICE_SECONDS, left))
        left -= min(time.monotonic() - started, 2 * _SLICE_SECONDS)
        if ready:
            part = os.read(reader, 65536)
            if not part:
                return bytes(data), True
            data += part
    return bytes(data), False

"""Lets what comes in quick succession come together, so that one read brings several messages."""

import asyncio
import time

# Reads closer than this to each other are many: five thousand a second and more.
_CLOSE_SECONDS = 0.0002
# How long the next read then waits, and so how late a message can be seen.
_WAIT_SECONDS = 0.0002


class Gathering:
    """One for all connections of a target. `read_at` is told of every read.

    A read costs the system more than what is in it. With many messages on few connections, waiting
    a moment between reads saves a quarter to a half of each message. At a low rate nothing waits.
    """

    def __init__(self) -> None:
        self._last = 0.0
        self._waits = False

    def read_at(self, now: float) -> None:
        """Notes a read; the event loop waits before its next one if they come thick and fast."""
        if now - self._last < _CLOSE_SECONDS and not self._waits:
            self._waits = True
            # After all that can be read now has been read.
            asyncio.get_running_loop().call_soon(self._wait)
        self._last = now

    def _wait(self) -> None:
        self._waits = False
        time.sleep(_WAIT_SECONDS)

"""The event loop that the server runs in."""

import asyncio
import sys


def new_event_loop() -> asyncio.AbstractEventLoop:
    """uvloop's, which serves more messages a core; asyncio's own where there is none (Windows)."""
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop

    return uvloop.new_event_loop()

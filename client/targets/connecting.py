"""Opening connections, and whose fault it is when that fails."""

import asyncio
import errno
from collections.abc import Awaitable, Callable
from typing import Any

from client.targets.exchange import CLIENT_LIMIT, CONNECTION_LOST, TIMEOUT

# Too many open files, here or in the system; no free port.
_OWN_LIMITS = (errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL)
# Few at a time: a listener's queue of connections is often 100 or so.
_AT_ONCE = 32


async def open_many(connect: Callable[[], Awaitable[Any]], count: int) -> None:
    """Calls `connect` so many times. Raises the first OSError when all have come to an end."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one() -> None:
        async with gate:
            await connect()

    for fault in await asyncio.gather(*(one() for _ in range(count)), return_exceptions=True):
        if fault is not None:
            raise fault


def failure_of(error: OSError, connect_timeout: float, timeout: float) -> tuple[str, str]:
    """(cause, detail) of a request that got no connection.

    A connect is given up after the shorter of `connect_timeout` and the request's own `timeout`.
    """
    if error.errno in _OWN_LIMITS:
        return CLIENT_LIMIT, str(error)
    # The system's own timeout has a number; ours has none.
    if not isinstance(error, TimeoutError) or error.errno is not None:
        return CONNECTION_LOST, str(error)
    if timeout <= connect_timeout:
        return TIMEOUT, f"no connection within {timeout:g} s"
    return CONNECTION_LOST, f"no connection within {connect_timeout:g} s"

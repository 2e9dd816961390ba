"""Whether, and how, a thread in C reads the sockets of a target."""

import asyncio
from pathlib import Path

from client.reading.library import load_library
from client.reading.reader import SocketReader
from client.reading.transport import connect
from client.targets.http1 import HttpAddress, HttpConnection, Told
from client.targets.http1_read import ReadConnection
from client.targets.settings import ENDPOINTS, TargetSettings
from native.build import CannotBuildError

CACHE = Path.home() / ".cache" / "loadstone"


def possible_transport(kind: str, transport: str, tls: bool) -> str:
    """`transport`, or "loop" for an OpenAI server where no thread can read.

    The thread reads plain sockets and needs Linux and a C compiler; what it compiles is kept.
    """
    if kind not in ENDPOINTS or transport != "fast":
        return transport
    try:
        load_library(CACHE)
    except CannotBuildError:
        return "loop"
    return "loop" if tls else "fast"


class Reading:
    """Opens connections that a thread reads. Raises `CannotBuildError` where none can."""

    def __init__(self, settings: TargetSettings) -> None:
        self._library = load_library(settings.cache_dir)
        self._reader: SocketReader | None = None

    async def connect(
        self, address: HttpAddress, made: Told, free: Told, gone: Told
    ) -> HttpConnection:
        """Part of HttpPool."""
        if self._reader is None:
            self._reader = SocketReader(self._library)
        connection = ReadConnection(made, free, gone)
        connection.connection_made(
            await connect(self._reader, address.host, address.port, connection)
        )
        return connection

    async def close(self) -> None:
        """After all connections were dropped."""
        if self._reader is not None:
            await asyncio.sleep(0)  # in which they close their sockets
            self._reader.close()
            self._reader = None

"""Whether, and how, a thread in C reads the sockets of a target."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from client.reading.library import load_library
from client.reading.reader import SocketReader
from client.reading.transport import connect
from client.targets.http1 import HttpAddress, HttpConnection, Told
from client.targets.http1_read import ReadConnection
from client.targets.http2 import MOST_OWED, Http2Connection
from client.targets.http2_read import ReadHttp2Connection
from client.targets.settings import TargetSettings
from native.build import CannotBuildError

CACHE = Path.home() / ".cache" / "loadstone"


def possible_transport(kind: str, transport: str, tls: bool) -> str:
    """`transport`, or "loop" for a server where no thread can read.

    The thread reads plain sockets and needs Linux and a C compiler; what it compiles is kept.
    """
    if kind == "in-process" or transport != "fast":
        return transport
    try:
        load_library(CACHE)
    except CannotBuildError:
        return "loop"
    return "loop" if tls else "fast"


def open_reading(settings: TargetSettings) -> "tuple[Reading | None, str]":
    """The thread that reads, or None and why there is none though it was wanted."""
    if settings.transport != "fast" or settings.tls:
        return None, ""
    try:
        return Reading(settings), ""
    except CannotBuildError as error:  # on a machine other than the one that chose it
        return None, f"Python's event loop reads, not a thread in C: {error}"


class Reading:
    """Opens connections that a thread reads. Raises `CannotBuildError` where none can."""

    def __init__(self, settings: TargetSettings) -> None:
        self.library = load_library(settings.cache_dir)
        self._reader: SocketReader | None = None

    async def connect(
        self, address: HttpAddress, made: Told, free: Told, gone: Told
    ) -> HttpConnection:
        """Part of HttpPool."""
        connection = ReadConnection(made, free, gone)
        connection.connection_made(
            await connect(self._open(), address.host, address.port, connection)
        )
        return connection

    async def connect_http2(
        self, host: str, port: int, gone: Callable[[Http2Connection], None]
    ) -> Http2Connection:
        """A connection of HTTP/2. Raises OSError."""
        connection = ReadHttp2Connection(gone)
        connection.connection_made(await connect(self._open(), host, port, connection, MOST_OWED))
        return connection

    async def close(self) -> None:
        """After all connections were dropped."""
        if self._reader is not None:
            await asyncio.sleep(0)  # in which they close their sockets
            self._reader.close()
            self._reader = None

    def _open(self) -> SocketReader:
        if self._reader is None:
            self._reader = SocketReader(self.library)
        return self._reader

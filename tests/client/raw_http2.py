"""An HTTP/2 server that answers each call with bytes as given, right or wrong."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress

import hpack

from client.targets.http2_frames import frame, read_frames

DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITIZED = 0x1, 0x1, 0x4, 0x8, 0x20
_PREFACE = 24

# What to write for a call on a stream; None closes the connection.
Answer = Callable[[int], Sequence[bytes | None]]
_OPENING = {":status": "200", "content-type": "application/grpc"}


@asynccontextmanager
async def answering(answer: Answer, settings: bytes = b"") -> AsyncIterator[int]:
    """The port of a server until the block ends."""
    writers = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await _serve(reader, writer, answer, settings)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()


async def _serve(reader, writer, answer: Answer, settings: bytes) -> None:
    await reader.readexactly(_PREFACE)
    writer.write(frame(SETTINGS, 0, 0, settings))
    data = b""
    while more := await reader.read(65536):
        frames, at = read_frames(data := data + more)
        data = data[at:]
        for kind, flags, number, payload in frames:
            if kind == SETTINGS and not flags & ACK:
                writer.write(frame(SETTINGS, ACK, 0, b""))
            elif kind == PING and not flags & ACK:
                writer.write(frame(PING, ACK, 0, payload))
            elif kind == DATA and flags & END_STREAM:
                for part in answer(number):
                    if part is None:
                        await writer.drain()
                        writer.close()
                        return
                    writer.write(part)


def block(fields: dict[str, str] | Iterable[tuple[bytes, bytes]]) -> bytes:
    """A header block that needs no memory."""
    pairs = fields.items() if isinstance(fields, dict) else fields
    return hpack.Encoder().encode([hpack.NeverIndexedHeaderTuple(*pair) for pair in pairs])


def opening(number: int, **more: str) -> bytes:
    """The headers before the first message."""
    return frame(HEADERS, END_HEADERS, number, block(_OPENING | more))


def ending(number: int, status: str = "0", **more: str) -> bytes:
    """The headers after the last one."""
    fields = {"grpc-status": status} | {name.replace("_", "-"): more[name] for name in more}
    return frame(HEADERS, END_HEADERS | END_STREAM, number, block(fields))


def data(number: int, payload: bytes, flags: int = 0) -> bytes:
    """A part of the stream of messages."""
    return frame(DATA, flags, number, payload)

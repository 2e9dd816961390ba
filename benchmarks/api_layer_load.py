"""Streams opened against a server at once, as cheaply as can be, and when their tokens came."""

import asyncio
import json
import time
from dataclasses import dataclass

import grpc

from protos import orchestrator_pb2 as pb

PROMPT = "What does a layer of an API cost?"
LIMIT_SECONDS = 120.0
_END = b"0\r\n\r\n"  # of a chunked body


@dataclass(frozen=True)
class Arrival:
    """Token ids that came together, at seconds of time.monotonic()."""

    time: float
    ids: tuple[int, ...]


Stream = list[Arrival]


async def stream_http(port: int, streams: int, tokens: int) -> list[Stream]:
    """Opens the connections first, then asks on all of them."""
    loop = asyncio.get_running_loop()
    body = json.dumps(
        {
            "model": "model",
            "prompt": PROMPT,
            "max_tokens": tokens,
            "stream": True,
            "return_token_ids": True,
        }
    )
    head = f"POST /v1/completions HTTP/1.1\r\nHost: here\r\nContent-Length: {len(body)}\r\n\r\n"
    readers = [_Reader(loop) for _ in range(streams)]
    for reader in readers:
        await loop.create_connection(lambda reader=reader: reader, "127.0.0.1", port)
    for reader in readers:
        reader.transport.write((head + body).encode())
    await asyncio.wait_for(asyncio.gather(*(reader.ended for reader in readers)), LIMIT_SECONDS)
    return [_events(reader.received) for reader in readers]


async def stream_grpc(port: int, streams: int, tokens: int) -> list[Stream]:
    """All streams on a few channels."""
    asked = pb.DecodeRequest(
        text_content=pb.DecodeRequest.TextContent(text=PROMPT),
        max_tokens=tokens,
    ).SerializeToString()
    # An option that differs keeps gRPC from sharing one connection between the channels.
    channels = [
        grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=[("loadstone.number", number)])
        for number in range(4)
    ]
    calls = [channel.unary_stream("/jetstream_proto.Orchestrator/Decode") for channel in channels]
    for channel in channels:
        await asyncio.wait_for(channel.channel_ready(), LIMIT_SECONDS)

    async def one(number: int) -> list[tuple[float, bytes]]:
        call = calls[number % len(calls)](asked, timeout=LIMIT_SECONDS)
        return [(time.monotonic(), message) async for message in call]

    received = await asyncio.gather(*(one(number) for number in range(streams)))
    for channel in channels:
        await channel.close()
    return [[_message(*one) for one in stream] for stream in received]


class _Reader(asyncio.Protocol):
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.ended = loop.create_future()
        self.received: list[tuple[float, bytes]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.received.append((time.monotonic(), data))
        if data.endswith(_END) and not self.ended.done():
            self.ended.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(ConnectionError(f"the server hung up: {error}"))


def _events(received: list[tuple[float, bytes]]) -> Stream:
    # A read may end inside an event: an event came when its last byte did.
    found: Stream = []
    text = b""
    for at, data in received:
        *lines, text = (text + data).split(b"\n\n")
        for line in lines:
            start = line.find(b'"token_ids":[')
            if start >= 0:
                ids = line[start + 13 : line.index(b"]", start)].split(b",")
                found.append(Arrival(at, tuple(map(int, ids))))
    return found


def _message(at: float, data: bytes) -> Arrival:
    (sample,) = pb.DecodeResponse.FromString(data).stream_content.samples
    return Arrival(at, tuple(sample.token_ids))

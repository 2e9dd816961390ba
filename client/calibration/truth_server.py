"""A server that knows the truth: it sends tokens on a schedule and logs when each one left.

`python -m client.calibration.truth_server --ttft-ms 100 --itl-ms 25` prints the ports it listens
on as JSON. OpenAI completions and chat over HTTP/1.1, JetStream's Decode over gRPC; one token a
chunk or message, one write a token. Token k of a request is due at received + ttft + k * itl,
whatever became of the ones before. GET /truth gives a JSON line for each request, times by
CLOCK_MONOTONIC, which `time.perf_counter()` of another process on this machine reads too.
"""

import argparse
import asyncio
import gc
import json
import os
import signal
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import hpack
import httptools

from client.load.event_loop import run_on_fastest_loop
from client.reading.library import load_library
from client.reading.reader import SocketReader
from client.reading.transport import Listener, ReadTransport
from client.targets.grpc_wire import framed
from client.targets.http2 import MOST_OWED
from client.targets.http2_frames import frame, read_frames
from client.targets.reading import CACHE
from native.build import CannotBuildError
from protos import orchestrator_pb2 as pb

_clock = time.perf_counter
_WORD = " truth"


@dataclass(slots=True)
class Told:
    """One request: who asked, when it was received, and when each of its tokens left."""

    prompt: str
    received: float
    sends: list[float] = field(default_factory=list)


@dataclass
class Script:
    """When tokens leave. `stall_at` and `stall` seconds: once, that long after the first request,
    the whole server stands still."""

    ttft: float
    itl: float
    stall_at: float
    stall: float
    told: list[Told] = field(default_factory=list)

    def play(
        self, prompt: str, count: int, send: Callable[[int, Told], bool], received: float
    ) -> None:
        """Calls `send(k, told)` for each token when it is due, until it returns False.

        It writes the token and adds to `told.sends` when it does.
        """
        told = Told(prompt, received)
        if not self.told and self.stall:
            asyncio.get_running_loop().call_later(self.stall_at, time.sleep, self.stall)
        self.told.append(told)
        loop = asyncio.get_running_loop()
        # The loop's clock counts from elsewhere.
        base = loop.time() + (received - _clock()) + self.ttft

        def step(k: int) -> None:
            if send(k, told) and k + 1 < count:
                loop.call_at(base + (k + 1) * self.itl, step, k + 1)

        loop.call_at(base, step, 0)


class Side(asyncio.Protocol):
    """One connection. A thread in C reads it where there is one, else the event loop does."""

    _transport: asyncio.Transport | ReadTransport

    def connection_made(self, transport: Any) -> None:
        """Part of asyncio.Protocol."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Part of asyncio.Protocol."""
        self.received(_clock(), data)

    def received(self, now: float, data: bytes) -> None:
        """What came, and when."""
        raise NotImplementedError

    def owed(self, size: int) -> None:
        """No calls are announced here."""

    def answer_ended(self, now: float, head: bytes) -> None:
        """No answers come here."""

    def answer_broken(self) -> None:
        """As above."""


class HttpSide(Side):
    """Completions, streamed only, and the truth."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._url, self._body = b"", b""

    def connection_made(self, transport: Any) -> None:
        """Part of Side."""
        super().connection_made(transport)
        self._parser = httptools.HttpRequestParser(self)

    def received(self, now: float, data: bytes) -> None:
        """Part of Side."""
        self._received = now
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()

    def on_url(self, url: bytes) -> None:
        """Part of httptools' protocol, as the two below."""
        self._url, self._body = url, b""

    def on_body(self, body: bytes) -> None:
        """More of a request."""
        self._body += body

    def on_message_complete(self) -> None:
        """A request is whole."""
        path = self._url.decode()
        if path == "/truth":
            lines = [json.dumps([t.prompt, t.received, t.sends]) for t in self._script.told]
            self._answer("\n".join(lines).encode())
        elif path == "/v1/models":
            self._answer(b'{"object":"list","data":[{"id":"truth","object":"model"}]}')
        elif path.endswith("/completions"):
            self._stream(json.loads(self._body), "/chat/" in path)
        else:
            self._answer(b"{}")

    def _answer(self, body: bytes) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        self._transport.write(head % len(body) + body)

    def _stream(self, asked: dict[str, Any], chat: bool) -> None:
        count = int(asked["max_tokens"])
        prompt = asked["messages"][-1]["content"] if chat else str(asked["prompt"])
        token, last = (_event(chat, reason) for reason in (None, "length"))
        usage = {"prompt_tokens": 1, "completion_tokens": count, "total_tokens": count + 1}
        end = _chunk({"choices": [], "usage": usage}) + _raw(b"data: [DONE]\n\n") + b"0\r\n\r\n"

        def send(k: int, told: Told) -> bool:
            if self._transport.is_closing():
                return False
            data = last + end if k + 1 == count else token
            told.sends.append(_clock())
            self._transport.write(_HEAD + data if k == 0 else data)
            return True

        self._script.play(prompt, count, send, self._received)


class GrpcSide(Side):
    """Any method is Decode, but HealthCheck by the shape of its request: an empty message."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._rest = b""
        self._greeted = False
        self._bodies: dict[int, bytes] = {}
        self._window, self._stream_window = 65_535, 65_535
        self._windows: dict[int, int] = {}
        self._blocked: deque[tuple[int, bytes, bytes, Told | None]] = deque()

    def connection_made(self, transport: Any) -> None:
        """Part of Side."""
        super().connection_made(transport)
        settings = struct.pack(">HIHI", 3, 100_000, 4, 2**24)
        self._transport.write(frame(4, 0, 0, settings) + frame(8, 0, 0, struct.pack(">I", 2**30)))

    def received(self, now: float, data: bytes) -> None:
        """Part of Side."""
        data = self._rest + data
        at = 0
        if not self._greeted:
            if len(data) < 24:
                self._rest = data
                return
            at, self._greeted = 24, True
        frames, at = read_frames(data, at)
        self._rest = data[at:]
        for kind, flags, number, payload in frames:
            if kind == 0:
                self._bodies[number] = self._bodies.get(number, b"") + payload
                if flags & 1:
                    self._call(number, now)
            elif kind == 3:
                self._windows.pop(number, None)
            elif kind == 4 and not flags & 1:
                self._take_settings(payload)
            elif kind == 6 and not flags & 1:
                self._transport.write(frame(6, 1, 0, payload))
            elif kind == 8:
                self._widen(number, struct.unpack(">I", payload)[0])

    def _take_settings(self, payload: bytes) -> None:
        for at in range(0, len(payload) - 5, 6):
            name, value = struct.unpack_from(">HI", payload, at)
            if name == 4:
                self._stream_window = value
        self._transport.write(frame(4, 1, 0, b""))

    def _widen(self, number: int, more: int) -> None:
        if number == 0:
            self._window += more
        elif number in self._windows:
            self._windows[number] += more
        for _ in range(len(self._blocked)):
            self._write(*self._blocked.popleft())

    def _call(self, number: int, received: float) -> None:
        body = self._bodies.pop(number)
        self._windows[number] = self._stream_window
        if len(body) <= 5:  # HealthCheckRequest
            live = framed(pb.HealthCheckResponse(is_live=True).SerializeToString())
            self._write(number, live, _TRAILERS, None, opening=True)
            return
        asked = pb.DecodeRequest.FromString(body[5:])

        def send(k: int, told: Told) -> bool:
            last = k + 1 == asked.max_tokens
            message, trailers = (_LAST, _TRAILERS) if last else (_TOKEN, b"")
            self._write(number, message, trailers, told, opening=k == 0)
            return number in self._windows

        self._script.play(asked.text_content.text, asked.max_tokens, send, received)

    def _write(
        self,
        number: int,
        message: bytes,
        trailers: bytes,
        told: Told | None,
        opening: bool = False,
    ) -> None:
        if self._transport.is_closing():
            self._windows.clear()
        if number not in self._windows:
            return
        head = frame(1, 4, number, _OPENING) if opening else b""
        size = len(message)
        if size > min(self._window, self._windows[number]):
            if head:
                self._transport.write(head)
            self._blocked.append((number, message, trailers, told))
            return
        if told is not None:
            told.sends.append(_clock())
        self._window -= size
        self._windows[number] -= size
        data = head + frame(0, 0, number, message)
        if trailers:
            data += frame(1, 5, number, trailers)
            del self._windows[number]
        self._transport.write(data)


def _raw(content: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(content), content)


def _chunk(value: dict[str, Any]) -> bytes:
    return _raw(b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n")


def _event(chat: bool, reason: str | None) -> bytes:
    content = {"delta": {"content": _WORD}} if chat else {"text": _WORD}
    kind = "chat.completion.chunk" if chat else "text_completion"
    choice = {"index": 0, **content, "logprobs": None, "finish_reason": reason}
    return _chunk({"id": "truth-1", "object": kind, "model": "truth", "choices": [choice]})


def _message(reason: pb.FinishReason) -> bytes:
    sample = pb.DecodeResponse.StreamContent.Sample(
        text=_WORD, token_ids=[1000], finish_reason=reason
    )
    content = pb.DecodeResponse.StreamContent(samples=[sample])
    return framed(pb.DecodeResponse(stream_content=content).SerializeToString())


def _headers(*pairs: tuple[str, str]) -> bytes:
    return hpack.Encoder().encode([hpack.NeverIndexedHeaderTuple(*pair) for pair in pairs])


_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
_OPENING = _headers((":status", "200"), ("content-type", "application/grpc"))
_TRAILERS = _headers(("grpc-status", "0"))
_TOKEN = _message(pb.FINISH_REASON_UNSPECIFIED)
_LAST = _message(pb.FINISH_REASON_LENGTH)


async def serve(script: Script, seconds: float) -> None:
    """Listens on two free ports of this host, prints them, and ends on SIGTERM or in time."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    sides: dict[str, Callable[[Script], Side]] = {"http": HttpSide, "grpc": GrpcSide}
    try:
        # Stamped by the system: a burst of tokens on its way out makes no request look late.
        reader = SocketReader(load_library(CACHE))
        # As frames, or requests of one connection that come together would share the last one's
        # stamp. A client's first bytes are none, so all is passed as it comes, a little at a time.
        fine = {"http": 0, "grpc": MOST_OWED}
        ports = {
            name: Listener(reader, partial(side, script), fine[name]).port
            for name, side in sides.items()
        }
    except CannotBuildError:
        ports = {name: await _listen(partial(side, script)) for name, side in sides.items()}
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    print(json.dumps(ports), flush=True)
    gc.disable()
    loop.call_later(seconds, stop.set)
    await stop.wait()


async def _listen(make: Callable[[], Side]) -> int:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(make, "127.0.0.1", 0, backlog=4096)
    sock: socket.socket = server.sockets[0]
    return int(sock.getsockname()[1])


def main() -> int:
    """Runs the server."""
    parser = argparse.ArgumentParser(prog="python -m client.calibration.truth_server")
    parser.add_argument("--ttft-ms", type=float, default=100.0)
    parser.add_argument("--itl-ms", type=float, default=25.0)
    parser.add_argument("--stall-at", type=float, default=0.0, help="seconds after a request")
    parser.add_argument("--stall", type=float, default=0.0, help="seconds without any token")
    parser.add_argument("--core", type=int, help="run on this one")
    parser.add_argument("--max-seconds", type=float, default=600.0)
    given = parser.parse_args()
    if given.core is not None:
        os.sched_setaffinity(0, {given.core})
    script = Script(given.ttft_ms / 1e3, given.itl_ms / 1e3, given.stall_at, given.stall)
    run_on_fastest_loop(serve(script, given.max_seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main())

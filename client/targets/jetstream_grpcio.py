"""A server that speaks JetStream's Orchestrator service, over grpc.aio."""

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from client.errors import NotReadyError
from client.targets.exchange import (
    CONNECTION_LOST,
    MALFORMED,
    OK,
    STREAM_REFUSED,
    STREAM_RESET,
    TIMEOUT,
    Answer,
    Exchange,
)
from client.targets.orchestrator import (
    DECODE,
    HEALTH_CHECK,
    WANTS_KEY,
    build_request,
    read_answer,
    read_health,
)
from client.targets.settings import TargetSettings
from client.targets.target import wait_until_ready
from client.workloads.prompt import Prompt
from protos import orchestrator_pb2 as pb

# Instead of gRPC's details, which change from one try to the next.
_STATES = {
    grpc.StatusCode.UNAVAILABLE: "nothing answers there",
    grpc.StatusCode.DEADLINE_EXCEEDED: "it does not answer",
}
# How grpc words a failure below itself, the first that fits; a server may also answer UNAVAILABLE.
_TRANSPORT = {
    "failed parsing http/2": MALFORMED,
    "compression bit set": MALFORMED,
    "rst_stream with error code 7": STREAM_REFUSED,
    "rst_stream": STREAM_RESET,
    "data frame with end_stream": STREAM_RESET,
    "no status received": STREAM_RESET,
} | dict.fromkeys(
    (
        "socket closed", "connection reset", "broken pipe", "recvmsg", "goaway",
        "failed to connect", "connection refused", "end of tcp stream", "ping timeout",
    ),
    CONNECTION_LOST,
)  # fmt: skip
_NO_GRPC = re.compile(r"Received http2 header with status: (\d+)")
_OPTIONS = [
    # Channels to one address would otherwise share one connection.
    ("grpc.use_local_subchannel_pool", 1),
    # A proxy on the way would be measured too.
    ("grpc.enable_http_proxy", 0),
    # Nothing is sent a second time, also not what the server refused to look at.
    ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A server that is still starting is found soon after it listens.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


@dataclass(slots=True)
class _Lane:
    channel: grpc.aio.Channel
    decode: Callable[..., Any]
    in_flight: int = 0


class GrpcioTarget:
    """Requests go to whichever of a few warmed channels has the fewest in flight."""

    def __init__(self, settings: TargetSettings) -> None:
        settings.ssl_context()  # a file that is no certificate is found here, not by gRPC's log
        self._settings = settings
        self._lanes: list[_Lane] = []
        self._metadata = tuple((name.lower(), value) for name, value in settings.headers.items())
        if settings.api_key:
            self._metadata += (("authorization", f"Bearer {settings.api_key}"),)

    async def open(self, report: Callable[[str], None]) -> None:
        """Opens every channel and waits for HealthCheck; see `Target.open`."""
        settings = self._settings
        self._lanes = [_open_lane(settings) for _ in range(settings.connections)]
        await wait_until_ready(self._ready, settings.address, settings.connect_timeout, report)

    def build(self, prompt: Prompt) -> pb.DecodeRequest:
        """The DecodeRequest."""
        return build_request(prompt, self._settings)

    async def ask(self, request: pb.DecodeRequest, exchange: Exchange) -> None:
        """One Decode call; see `Target.ask`."""
        lane = min(self._lanes, key=_load)
        lane.in_flight += 1
        clock, arrivals = time.perf_counter, exchange.arrivals
        exchange.sent = clock()
        timeout = self._settings.request_timeout
        call = lane.decode(request, timeout=timeout, metadata=self._metadata)
        try:
            async for message in call:
                arrivals.append((clock(), message))
            exchange.end(clock(), OK)
        except grpc.aio.AioRpcError as error:
            exchange.end(clock(), *self._cause(error, clock() - exchange.sent))
        finally:
            lane.in_flight -= 1

    def read(self, exchange: Exchange, text: bool = True) -> Answer:
        """Parses the messages; see `Target.read`."""
        return read_answer(exchange.arrivals)

    async def close(self) -> None:
        """Closes the channels; calls still under way are cancelled."""
        await asyncio.gather(*(lane.channel.close() for lane in self._lanes))

    def _cause(self, error: grpc.aio.AioRpcError, elapsed: float) -> tuple[str, str]:
        code, detail = error.code(), error.details() or ""
        # The server may answer DEADLINE_EXCEEDED for reasons of its own, earlier.
        own_deadline = elapsed >= 0.99 * self._settings.request_timeout
        if code is grpc.StatusCode.DEADLINE_EXCEEDED and own_deadline:
            return TIMEOUT, f"no end within {self._settings.request_timeout:g} s"
        if answer := _NO_GRPC.search(detail):
            return f"HTTP {answer[1]}", ""
        if code is grpc.StatusCode.CANCELLED:  # also when the server resets the stream with it
            return code.name, detail
        found = (cause for words, cause in _TRANSPORT.items() if words in detail.lower())
        return next(found, code.name), detail

    async def _ready(self) -> str:
        if self._settings.health_check:
            reason = await self._health()
            if reason:
                return reason
        await asyncio.gather(*(lane.channel.channel_ready() for lane in self._lanes))
        return ""

    async def _health(self) -> str:
        check = self._lanes[0].channel.unary_unary(HEALTH_CHECK)
        request = pb.HealthCheckRequest().SerializeToString()
        try:
            answer = await check(request, timeout=5, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            cause, detail = self._cause(error, 0.0)
            if cause in ("UNAUTHENTICATED", "HTTP 401", "HTTP 403"):
                raise NotReadyError(WANTS_KEY.format(self._settings.address)) from None
            # JetStream before HealthCheck existed; it answers, so it is up.
            if cause == "UNIMPLEMENTED":
                return ""
            return f"{cause} ({_STATES.get(error.code(), detail)})"
        return read_health(answer)


def _open_lane(settings: TargetSettings) -> _Lane:
    if settings.tls:
        roots = Path(settings.ca_file).read_bytes() if settings.ca_file else None
        credentials = grpc.ssl_channel_credentials(roots)
        channel = grpc.aio.secure_channel(settings.address, credentials, options=_OPTIONS)
    else:
        channel = grpc.aio.insecure_channel(settings.address, options=_OPTIONS)
    # No deserializer: messages stay bytes until the run is over.
    decode = channel.unary_stream(DECODE, request_serializer=pb.DecodeRequest.SerializeToString)
    return _Lane(channel, decode)


def _load(lane: _Lane) -> int:
    return lane.in_flight

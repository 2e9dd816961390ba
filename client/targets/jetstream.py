"""A server that speaks JetStream's Orchestrator service over gRPC."""

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from client.errors import NotReadyError, UsageError
from client.targets.exchange import (
    CONNECTION_LOST,
    OK,
    STREAM_REFUSED,
    STREAM_RESET,
    TIMEOUT,
    Answer,
    Exchange,
    Piece,
)
from client.workloads.prompt import Prompt
from protos import orchestrator_pb2 as pb
from protos.orchestrator_pb2_grpc import OrchestratorStub

_DECODE = "/jetstream_proto.Orchestrator/Decode"
_ANY_ADDRESS = {"0.0.0.0", "::", "[::]", ""}
# Instead of gRPC's details, which change from one try to the next.
_STATES = {
    grpc.StatusCode.UNAVAILABLE: "nothing answers there",
    grpc.StatusCode.DEADLINE_EXCEEDED: "it does not answer",
}
_FINISH = {pb.FINISH_REASON_STOP: "stop", pb.FINISH_REASON_LENGTH: "length"}
# How grpc words a failure below itself, the first that fits; a server may also answer UNAVAILABLE.
_TRANSPORT = {
    "rst_stream with error code 7": STREAM_REFUSED,
    "rst_stream": STREAM_RESET,
} | dict.fromkeys(
    (
        "socket closed", "connection reset", "broken pipe", "recvmsg", "goaway",
        "failed to connect", "connection refused", "end of tcp stream", "ping timeout",
    ),
    CONNECTION_LOST,
)  # fmt: skip
_OPTIONS = [
    # Channels to one address would otherwise share one connection.
    ("grpc.use_local_subchannel_pool", 1),
    # A proxy on the way would be measured too.
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A server that is still starting is found soon after it listens.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


@dataclass(frozen=True)
class JetStreamSettings:
    """Where the server is and how to ask.

    `request_timeout` and `connect_timeout` in seconds. `send`: "text" or "tokens". Temperature 0 is
    greedy; top_k 0 and top_p 1 are no limit.
    """

    server: str = "0.0.0.0"
    port: int = 9000
    channels: int = 4
    request_timeout: float = 600.0
    connect_timeout: float = 120.0
    health_check: bool = True
    send: str = "text"
    ignore_eos: bool = False
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        rules = (
            ("port", 1 <= self.port <= 65535, "1 to 65535"),
            ("channels", self.channels >= 1, "1 or more"),
            ("request_timeout", 0 < self.request_timeout < math.inf, "seconds above 0"),
            ("connect_timeout", 0 < self.connect_timeout < math.inf, "seconds above 0"),
            ("send", self.send in ("text", "tokens"), "text or tokens"),
            ("temperature", 0 <= self.temperature < math.inf, "0 (greedy) or more"),
            ("top_k", self.top_k >= 0, "0 (no limit) or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0, up to 1 (no limit)"),
        )
        for name, held, allowed in rules:
            if not held:
                raise UsageError(f"{name}: {allowed}; got {getattr(self, name)!r}")

    @property
    def address(self) -> str:
        """host:port to connect to. The any-address, which a server listens on, is this host."""
        host = "localhost" if self.server in _ANY_ADDRESS else self.server
        if ":" in host and not host.startswith("["):
            host = f"[{host}]"
        return f"{host}:{self.port}"


@dataclass(slots=True)
class _Lane:
    channel: grpc.aio.Channel
    decode: Callable[..., Any]
    in_flight: int = 0


class JetStreamTarget:
    """Requests go to whichever of a few warmed channels has the fewest in flight."""

    def __init__(self, settings: JetStreamSettings) -> None:
        self._settings = settings
        self._lanes: list[_Lane] = []

    async def open(self, report: Callable[[str], None]) -> None:
        """Opens every channel and waits for HealthCheck; see `Target.open`."""
        self._lanes = [_open_lane(self._settings.address) for _ in range(self._settings.channels)]
        try:
            async with asyncio.timeout(self._settings.connect_timeout):
                await self._wait_until_ready(report)
        except TimeoutError:
            raise NotReadyError(
                f"no ready server at {self._settings.address} within "
                f"{self._settings.connect_timeout:g} s; is it running, and on this port? "
                "(--connect-timeout waits longer)"
            ) from None

    async def ask(self, prompt: Prompt, exchange: Exchange) -> None:
        """One Decode call; see `Target.ask`."""
        request = build_request(prompt, self._settings)
        lane = min(self._lanes, key=_load)
        lane.in_flight += 1
        clock, arrivals = time.perf_counter, exchange.arrivals
        exchange.sent = clock()
        request.metadata.start_time = exchange.sent
        call = lane.decode(request, timeout=self._settings.request_timeout)
        try:
            async for message in call:
                arrivals.append((clock(), message))
                exchange.tokens += _count(message)
            exchange.end(clock(), OK)
        except grpc.aio.AioRpcError as error:
            exchange.end(clock(), *self._cause(error, clock() - exchange.sent))
        finally:
            lane.in_flight -= 1

    def read(self, exchange: Exchange) -> Answer:
        """Parses the messages; see `Target.read`."""
        return read_answer(exchange)

    async def close(self) -> None:
        """Closes the channels; calls still under way are cancelled."""
        await asyncio.gather(*(lane.channel.close() for lane in self._lanes))

    def _cause(self, error: grpc.aio.AioRpcError, elapsed: float) -> tuple[str, str]:
        code, detail = error.code(), error.details() or ""
        # The server may answer DEADLINE_EXCEEDED for reasons of its own, earlier.
        own_deadline = elapsed >= 0.99 * self._settings.request_timeout
        if code is grpc.StatusCode.DEADLINE_EXCEEDED and own_deadline:
            return TIMEOUT, f"no end within {self._settings.request_timeout:g} s"
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL):
            found = (cause for words, cause in _TRANSPORT.items() if words in detail.lower())
            return next(found, code.name), detail
        return code.name, detail

    async def _wait_until_ready(self, report: Callable[[str], None]) -> None:
        if self._settings.health_check:
            await _wait_until_live(self._lanes[0].channel, self._settings.address, report)
        await asyncio.gather(*(lane.channel.channel_ready() for lane in self._lanes))


def build_request(prompt: Prompt, settings: JetStreamSettings) -> pb.DecodeRequest:
    """The DecodeRequest for a prompt."""
    request = pb.DecodeRequest(max_tokens=prompt.max_tokens, ignore_eos=settings.ignore_eos)
    if settings.send == "tokens":
        request.token_content.token_ids.extend(prompt.token_ids)
        request.has_bos = prompt.ids_have_bos
    else:
        request.text_content.text = prompt.text
        request.has_bos = prompt.text_has_bos
    if settings.temperature > 0:
        request.sampling.temperature = settings.temperature
        request.sampling.top_k = settings.top_k
        request.sampling.top_p = settings.top_p
    return request


def read_answer(exchange: Exchange) -> Answer:
    """Parses what arrived. Messages without text and tokens are kept as empty pieces."""
    pieces: list[Piece] = []
    finish: str | None = None
    usage: pb.Usage | None = None
    timing: pb.Timing | None = None
    for arrived, raw in exchange.arrivals:
        message = pb.DecodeResponse.FromString(raw)
        samples = message.stream_content.samples
        token_ids = tuple(token for sample in samples for token in sample.token_ids)
        pieces.append(Piece(arrived, token_ids, "".join(sample.text for sample in samples)))
        for sample in samples:
            finish = _FINISH.get(sample.finish_reason, finish)
        usage = message.usage if message.HasField("usage") else usage
        timing = message.timing if message.HasField("timing") else timing
    return Answer(
        pieces=pieces,
        finish=finish,
        prompt_tokens=usage.prompt_tokens if usage else None,
        completion_tokens=usage.completion_tokens if usage else None,
        queue=timing.queue_seconds if timing else None,
        prefill=timing.prefill_seconds if timing else None,
    )


def _open_lane(address: str) -> _Lane:
    channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
    # No deserializer: messages stay bytes until the run is over.
    decode = channel.unary_stream(_DECODE, request_serializer=pb.DecodeRequest.SerializeToString)
    return _Lane(channel, decode)


def _load(lane: _Lane) -> int:
    return lane.in_flight


def _count(raw: bytes) -> int:
    """Tokens in a message for the progress line; about 1 us. Text alone counts as one."""
    total = 0
    for sample in pb.DecodeResponse.FromString(raw).stream_content.samples:
        total += len(sample.token_ids) or bool(sample.text)
    return total


async def _wait_until_live(
    channel: grpc.aio.Channel, address: str, report: Callable[[str], None]
) -> None:
    check = OrchestratorStub(channel).HealthCheck
    said = ""
    while True:
        try:
            answer = await check(pb.HealthCheckRequest(), timeout=5)
        except grpc.aio.AioRpcError as error:
            # JetStream before HealthCheck existed; it answers, so it is up.
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return
            state = f"{error.code().name} ({_STATES.get(error.code(), error.details())})"
        else:
            if answer.is_live:
                return
            state = "it answers that it is not live yet"
        if state != said:
            report(f"waiting for the server at {address}: {state}")
            said = state
        await asyncio.sleep(0.3)

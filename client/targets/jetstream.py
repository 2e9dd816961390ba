"""A server that speaks JetStream's Orchestrator service, over a lean gRPC of our own."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

from client.errors import NotReadyError
from client.reading.pieces import Pieces
from client.targets.connecting import failure_of, open_many
from client.targets.exchange import MALFORMED, OK, TIMEOUT, Answer, Exchange
from client.targets.gathering import Gathering
from client.targets.grpc_wire import framed, messages, request_headers
from client.targets.http2 import Http2Connection
from client.targets.orchestrator import (
    DECODE,
    HEALTH_CHECK,
    WANTS_KEY,
    build_request,
    read_answer,
    read_health,
)
from client.targets.orchestrator_columns import read_columns
from client.targets.reading import open_reading
from client.targets.settings import TargetSettings
from client.targets.target import wait_until_ready
from client.workloads.prompt import Prompt
from protos import orchestrator_pb2 as pb

_PROBE_SECONDS = 5.0


class JetStreamTarget:
    """Requests go to whichever open connection has the fewest in flight."""

    def __init__(self, settings: TargetSettings) -> None:
        self._settings = settings
        self._context = settings.ssl_context("h2")
        self._gathering = Gathering()
        self._reading, self._no_reading = open_reading(settings)
        # A set that keeps its order.
        self._connections: dict[Http2Connection, None] = {}
        self._headers = self._head(DECODE, settings.request_timeout)

    async def open(self, report: Callable[[str], None]) -> None:
        """Opens every connection and waits for HealthCheck; see `Target.open`."""
        settings = self._settings
        if self._no_reading:
            report(self._no_reading)
        await wait_until_ready(self._ready, settings.address, settings.connect_timeout, report)

    def build(self, prompt: Prompt) -> bytes:
        """The framed DecodeRequest."""
        return framed(build_request(prompt, self._settings).SerializeToString())

    async def ask(self, request: bytes, exchange: Exchange) -> None:
        """One Decode call; see `Target.ask`."""
        await self._call(self._headers, request, exchange, self._settings.request_timeout)

    def read(self, exchange: Exchange, text: bool = True) -> Answer:
        """Parses the messages; see `Target.read`."""
        if self._reading is not None and isinstance(exchange.came, Pieces) and not text:
            counted = read_columns(exchange.came, self._reading.library)
            if counted is not None:
                return counted
        found, problem = messages(exchange.came)
        answer = read_answer(found)
        if problem and exchange.status == OK and answer.failure is None:
            return replace(answer, failure=(MALFORMED, problem))
        return answer

    async def close(self) -> None:
        """Closes the connections; the server cancels what is under way."""
        for connection in list(self._connections):
            connection.close()
        if self._reading is not None:
            await self._reading.close()

    async def _call(
        self, headers: bytes, request: bytes, exchange: Exchange, timeout: float
    ) -> None:
        started = time.perf_counter()
        connection = min((each for each in self._connections if each.room), key=_load, default=None)
        if connection is not None:
            call, left = connection.call(headers, request, exchange), timeout
        else:
            exchange.sent = started
            connect_timeout = self._settings.connect_timeout
            try:
                connection = await self._connect(min(connect_timeout, timeout))
            except OSError as error:
                cause, detail = failure_of(error, connect_timeout, timeout)
                exchange.end(time.perf_counter(), cause, detail)
                return
            call = connection.call(headers, request, exchange)
            exchange.sent = started  # connecting is part of what this request took
            left = max(0.0, started + timeout - time.perf_counter())
        too_late = f"no end within {timeout:g} s"
        await connection.wait(call, left, too_late)
        # The server may answer DEADLINE_EXCEEDED for reasons of its own, earlier.
        late = time.perf_counter() - started >= 0.99 * timeout
        if exchange.status == "DEADLINE_EXCEEDED" and late:
            exchange.status, exchange.detail = TIMEOUT, too_late

    async def _connect(self, timeout: float) -> Http2Connection:
        settings, loop = self._settings, asyncio.get_running_loop()
        async with asyncio.timeout(timeout):
            if self._reading is not None:
                connection = await self._reading.connect_http2(
                    settings.host, settings.port, self._gone
                )
            else:
                _, connection = await loop.create_connection(
                    lambda: Http2Connection(self._gone, self._gathering),
                    settings.host,
                    settings.port,
                    ssl=self._context,
                )
            try:
                await connection.ready
            except BaseException:
                connection.close()
                raise
        if not connection.room:
            connection.close()
            raise ConnectionResetError("the server takes no calls on a new connection")
        self._connections[connection] = None
        return connection

    def _gone(self, connection: Http2Connection) -> None:
        self._connections.pop(connection, None)

    async def _ready(self) -> str:
        settings = self._settings

        async def connect() -> None:
            await self._connect(settings.connect_timeout)

        try:
            if not self._connections:
                await connect()
            reason = await self._health() if settings.health_check else ""
            if reason:
                return reason
            await open_many(connect, self._wanted() - len(self._connections))
        except OSError as error:
            return f"cannot connect ({str(error) or 'no answer'})"
        return ""

    def _wanted(self) -> int:
        """As many as asked for, and as many as the expected streams need by the server's limit."""
        allowed = min((each.most_streams for each in self._connections), default=1)
        return max(self._settings.connections, -(-self._settings.streams // max(allowed, 1)))

    async def _health(self) -> str:
        exchange = Exchange()
        request = framed(pb.HealthCheckRequest().SerializeToString())
        await self._call(
            self._head(HEALTH_CHECK, _PROBE_SECONDS), request, exchange, _PROBE_SECONDS
        )
        if exchange.status in ("UNAUTHENTICATED", "HTTP 401", "HTTP 403"):
            raise NotReadyError(WANTS_KEY.format(self._settings.address))
        # JetStream before HealthCheck existed; it answers, so it is up.
        if exchange.status == "UNIMPLEMENTED":
            return ""
        if exchange.status != OK:
            return f"{exchange.status} ({exchange.detail})"
        found, problem = messages(exchange.came)
        if problem or len(found) != 1:
            return f"its answer to HealthCheck cannot be read ({problem or 'not one message'})"
        return read_health(found[0][1])

    def _head(self, path: str, timeout: float) -> bytes:
        settings = self._settings
        metadata = dict(settings.headers)
        if settings.api_key:
            metadata["authorization"] = f"Bearer {settings.api_key}"
        return request_headers(settings.address, path, settings.tls, timeout, metadata)


def _load(connection: Http2Connection) -> int:
    return len(connection.streams)

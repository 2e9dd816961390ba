"""A server that speaks JetStream's Orchestrator service, over a lean gRPC of our own."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

from client.targets.exchange import CONNECTION_LOST, MALFORMED, OK, TIMEOUT, Answer, Exchange
from client.targets.grpc_wire import framed, messages, request_headers
from client.targets.http1 import cause_of
from client.targets.http2 import Http2Connection
from client.targets.orchestrator import DECODE, HEALTH_CHECK, build_request, read_answer
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
        self._connections: list[Http2Connection] = []
        self._headers = self._head(DECODE, settings.request_timeout)

    async def open(self, report: Callable[[str], None]) -> None:
        """Opens every connection and waits for HealthCheck; see `Target.open`."""
        settings = self._settings
        await wait_until_ready(self._ready, settings.address, settings.connect_timeout, report)

    def build(self, prompt: Prompt) -> bytes:
        """The framed DecodeRequest."""
        return framed(build_request(prompt, self._settings).SerializeToString())

    async def ask(self, request: bytes, exchange: Exchange) -> None:
        """One Decode call; see `Target.ask`."""
        await self._call(self._headers, request, exchange, self._settings.request_timeout)

    def read(self, exchange: Exchange) -> Answer:
        """Parses the messages; see `Target.read`."""
        found, problem = messages(exchange.arrivals)
        answer = read_answer(found)
        if problem and exchange.status == OK and answer.failure is None:
            return replace(answer, failure=(MALFORMED, problem))
        return answer

    async def close(self) -> None:
        """Closes the connections; the server cancels what is under way."""
        for connection in self._connections:
            connection.close()
        self._connections.clear()

    async def _call(
        self, headers: bytes, request: bytes, exchange: Exchange, timeout: float
    ) -> None:
        started = time.perf_counter()
        connection = min((each for each in self._connections if each.room), key=_load, default=None)
        if connection is None:
            connection = await self._connect_for(exchange)
            if connection is None:
                return
            call = connection.call(headers, request, exchange)
            exchange.sent = started  # connecting is part of what this request took
        else:
            call = connection.call(headers, request, exchange)
        await connection.wait(call, timeout)
        # The server may answer DEADLINE_EXCEEDED for reasons of its own, earlier.
        late = time.perf_counter() - started >= 0.99 * timeout
        if exchange.status == "DEADLINE_EXCEEDED" and late:
            exchange.status, exchange.detail = TIMEOUT, f"no end within {timeout:g} s"

    async def _connect_for(self, exchange: Exchange) -> Http2Connection | None:
        exchange.sent = time.perf_counter()
        try:
            return await self._connect()
        except TimeoutError:
            exchange.end(time.perf_counter(), CONNECTION_LOST, "no connection in time")
        except OSError as error:
            exchange.end(time.perf_counter(), cause_of(error), str(error))
        return None

    async def _connect(self) -> Http2Connection:
        settings, loop = self._settings, asyncio.get_running_loop()
        async with asyncio.timeout(settings.connect_timeout):
            _, connection = await loop.create_connection(
                Http2Connection, settings.host, settings.port, ssl=self._context
            )
            try:
                await connection.ready
            except BaseException:
                connection.close()
                raise
        self._connections.append(connection)
        return connection

    async def _ready(self) -> str:
        try:
            if not self._connections:
                await self._connect()
            reason = await self._health() if self._settings.health_check else ""
            if reason:
                return reason
            missing = self._settings.connections - len(self._connections)
            await asyncio.gather(*(self._connect() for _ in range(missing)))
        except (OSError, TimeoutError) as error:
            return f"cannot connect ({error or 'no answer'})"
        return ""

    async def _health(self) -> str:
        exchange = Exchange()
        request = framed(pb.HealthCheckRequest().SerializeToString())
        await self._call(
            self._head(HEALTH_CHECK, _PROBE_SECONDS), request, exchange, _PROBE_SECONDS
        )
        self._connections = [each for each in self._connections if each.open]
        # JetStream before HealthCheck existed; it answers, so it is up.
        if exchange.status == "UNIMPLEMENTED":
            return ""
        if exchange.status != OK:
            return f"{exchange.status} ({exchange.detail})"
        found, problem = messages(exchange.arrivals)
        if problem or len(found) != 1:
            return f"its answer to HealthCheck cannot be read ({problem or 'not one message'})"
        live = pb.HealthCheckResponse.FromString(found[0][1]).is_live
        return "" if live else "it answers that it is not live yet"

    def _head(self, path: str, timeout: float) -> bytes:
        settings = self._settings
        metadata = dict(settings.headers)
        if settings.api_key:
            metadata["authorization"] = f"Bearer {settings.api_key}"
        return request_headers(settings.address, path, settings.tls, timeout, metadata)


def _load(connection: Http2Connection) -> int:
    return len(connection.streams)

"""The server as a whole: gRPC, HTTP, health, metrics, and the engine loop behind them."""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from threading import Thread
from wsgiref.simple_server import WSGIServer

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import start_http_server

from protos import orchestrator_pb2 as pb
from protos import orchestrator_pb2_grpc as pb_grpc
from server.api.completions import Completions
from server.api.config import ServerConfig
from server.api.http import HttpService
from server.api.key_check import KeyCheck
from server.api.metrics import Metrics
from server.api.orchestrator import Orchestrator
from server.api.streams import Streams
from server.scheduler import Engine, EngineLoop, Policy
from tokenization import Tokenizer

_logger = logging.getLogger(__name__)

SERVICE = pb.DESCRIPTOR.services_by_name["Orchestrator"].full_name
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
# For streams that ended to send their last message, and for health watchers to hang up.
_GOODBYE_SECONDS = 1.0
_PENDING = 1_000_000


class Server:
    """Serves an engine. Make and use it inside a running event loop.

    `tokenizer` None (as with dummy weights) serves token ids only.
    """

    def __init__(
        self, engine: Engine, tokenizer: Tokenizer | None, config: ServerConfig | None = None
    ) -> None:
        self.config = config or ServerConfig()
        self.metrics = Metrics()
        self.port = self.config.port
        self.http_port = self.config.http_port
        self.metrics_port = self.config.metrics_port
        self._loop = asyncio.get_running_loop()
        self._streams = Streams(self._loop, self.metrics.count)
        policy = Policy(self.config.queue_limit, self.config.prefills_per_decode)
        self.engine_loop = EngineLoop(engine, self._streams.sink, policy, self._on_lost)
        self.metrics.watch(self.engine_loop.stats, lambda: self.engine_loop.lost is not None)
        self._executor = ThreadPoolExecutor(max_workers=2, thread_name_prefix="encode")
        self._health = health.aio.HealthServicer()
        self._tasks: set[asyncio.Task[None]] = set()
        self._metrics_http: tuple[WSGIServer, Thread] | None = None
        self._stopped = asyncio.Event()
        self._completions = Completions(
            self.engine_loop,
            engine.shape,
            self._streams,
            tokenizer,
            self.config,
            self.metrics,
            self._executor,
        )
        self._grpc = self._make_grpc()
        self._http: HttpService | None = None

    async def start(self) -> None:
        """Opens the ports and starts the engine loop. `port`, `http_port` and `metrics_port` tell
        the real ports afterwards. Raises OSError when a port cannot be had.
        """
        await self._set_health(_SERVING)
        self.port = self._bind(self.config.host, self.config.port)
        if self.config.metrics_port is not None:
            self._start_metrics(self.config.metrics_host, self.config.metrics_port)
        if self.config.http_port is not None:
            await self._start_http(self.config.host, self.config.http_port)
        self.engine_loop.start()
        await self._grpc.start()
        _logger.info("listening on %s", self.address)

    @property
    def address(self) -> str:
        """host:port of the gRPC server."""
        return _join(self.config.host, self.port)

    @property
    def http_url(self) -> str | None:
        """Where HTTP is served, or None."""
        if self.http_port is None:
            return None
        scheme = "http" if self.config.certificate is None else "https"
        return f"{scheme}://{_join(self.config.host, self.http_port)}"

    async def wait(self) -> None:
        """Returns once `stop` is done."""
        await self._stopped.wait()

    async def stop(self, drain_seconds: float = 30.0) -> bool:
        """Turns unready, refuses new requests, lets those taken in finish for `drain_seconds`,
        fails the rest (UNAVAILABLE) and closes. True when all of them finished.
        """
        self.engine_loop.refuse_new()
        await self._set_health(_NOT_SERVING)
        drained = await asyncio.to_thread(self.engine_loop.drain, drain_seconds)
        if not await asyncio.to_thread(self.engine_loop.stop):
            _logger.error("the device does not answer; its thread is left behind")
        goodbyes = [self._grpc.stop(_GOODBYE_SECONDS)]
        if self._http is not None:
            goodbyes.append(self._http.stop())
        await asyncio.gather(*goodbyes)
        if self._metrics_http is not None:
            http, thread = self._metrics_http
            await asyncio.to_thread(http.shutdown)
            http.server_close()
            thread.join(_GOODBYE_SECONDS)
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._stopped.set()
        return drained

    def _make_grpc(self) -> grpc.aio.Server:
        keys = self.config.keys
        server = grpc.aio.server(
            interceptors=[KeyCheck(keys, self.metrics)] if keys is not None else [],
            options=[
                ("grpc.max_receive_message_length", self.config.max_message_bytes),
                # Otherwise a second server on the same port starts and takes half of the calls.
                ("grpc.so_reuseport", 0),
                # By default gRPC cancels, unseen by us and at random, calls that come in bursts of
                # over 1000; our own bounded queue answers them with a reason.
                ("grpc.server.max_pending_requests", _PENDING),
                ("grpc.server.max_pending_requests_hard_limit", _PENDING),
            ],
        )
        pb_grpc.add_OrchestratorServicer_to_server(Orchestrator(self._completions), server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
        return server

    def _bind(self, host: str, port: int) -> int:
        address = _join(host, port)
        try:
            if self.config.certificate is None:
                return self._grpc.add_insecure_port(address)
            return self._grpc.add_secure_port(address, self.config.certificate.for_grpc())
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}; is the port taken? ({error})") from error

    async def _start_http(self, host: str, port: int) -> None:
        self._http = HttpService(self._completions)
        try:
            self.http_port = await self._http.start(host, port)
        except OSError as error:
            address = _join(host, port)
            raise OSError(f"cannot serve HTTP on {address}: {error.strerror}") from error

    def _start_metrics(self, host: str, port: int) -> None:
        try:
            self._metrics_http = start_http_server(port, host, self.metrics.registry)
        except OSError as error:
            address = _join(host, port)
            raise OSError(f"cannot serve metrics on {address}: {error}") from error
        self.metrics_port = self._metrics_http[0].server_port

    def _on_lost(self, reason: str) -> None:
        # Called from the engine thread.
        self._loop.call_soon_threadsafe(self._turn_unready)

    def _turn_unready(self) -> None:
        task = self._loop.create_task(self._set_health(_NOT_SERVING))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _set_health(self, status: int) -> None:
        for name in ("", SERVICE):
            await self._health.set(name, status)


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

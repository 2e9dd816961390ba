"""JetStream's Orchestrator service."""

import logging
import secrets
import time
from concurrent.futures import Executor
from itertools import count

import grpc

from protos import orchestrator_pb2 as pb
from server.api.config import ServerConfig
from server.api.metrics import Metrics
from server.api.prompt import fit_prompt, read_prompt
from server.api.refusal import Refusal, failed, not_admitted
from server.api.reply import Reply, Want
from server.api.streams import Stream, Streams
from server.api.validation import check_request, read_sampling
from server.scheduler import EngineLoop, EngineShape, Finish, QueueFull, Refused, Request
from tokenization import Tokenizer

_logger = logging.getLogger(__name__)


class Orchestrator:
    """Validates, admits, streams. One coroutine a call; all of them share one event loop."""

    def __init__(
        self,
        engine: EngineLoop,
        shape: EngineShape,
        streams: Streams,
        tokenizer: Tokenizer | None,
        config: ServerConfig,
        metrics: Metrics,
        executor: Executor,
    ) -> None:
        self._engine = engine
        self._shape = shape
        self._streams = streams
        self._tokenizer = tokenizer
        self._config = config
        self._metrics = metrics
        self._executor = executor
        self._ids = count()
        self._encoding = 0

    async def Decode(self, wire: pb.DecodeRequest, context: grpc.aio.ServicerContext) -> None:
        """Generates tokens for one prompt and writes them as they are made."""
        try:
            request, reply = await self._read(wire, context)
            await self._serve(request, reply, context)
        except Refusal as refusal:
            await context.abort(refusal.status, refusal.message)
        except Exception as error:
            _logger.exception("a Decode call failed")
            message = f"the server failed on this request: {type(error).__name__}: {error}"
            await context.abort(grpc.StatusCode.INTERNAL, message)

    async def HealthCheck(
        self, wire: pb.HealthCheckRequest, context: grpc.aio.ServicerContext
    ) -> pb.HealthCheckResponse:
        """Tells whether the engine works."""
        return pb.HealthCheckResponse(is_live=self._engine.lost is None)

    async def _read(
        self, wire: pb.DecodeRequest, context: grpc.aio.ServicerContext
    ) -> tuple[Request, Reply]:
        try:
            check_request(wire, self._config, self._shape, self._tokenizer is not None)
            sampling = read_sampling(wire, self._shape, secrets.randbits(63))
            remaining = context.time_remaining()
            deadline = None if remaining is None else time.monotonic() + remaining
            ids = await self._encode(wire)
            prompt = fit_prompt(ids, wire, self._tokenizer, self._config, self._shape)
        except Refusal as refusal:
            self._metrics.refuse(refusal.cause)
            raise
        request = Request(
            id=next(self._ids),
            prompt=prompt.tokens,
            max_tokens=wire.max_tokens,
            sampling=sampling,
            ignore_eos=wire.ignore_eos,
            logprobs=wire.logprobs,
            deadline=deadline,
        )
        want = Want(
            text=wire.WhichOneof("content") == "text_content",
            logprobs=wire.logprobs,
            stops=tuple(wire.stop),
            truncated=prompt.truncated,
        )
        return request, Reply(request, want, self._tokenizer)

    async def _encode(self, wire: pb.DecodeRequest) -> list[int]:
        # Prompts that wait for the encoder count as queued: that work has a bound too.
        limit = self._config.queue_limit
        if self._encoding and self._encoding + self._engine.stats().queued >= limit:
            full = QueueFull(f"the queue holds {limit} requests; try again later")
            raise not_admitted(full)
        self._encoding += 1
        try:
            return await read_prompt(wire, self._tokenizer, self._executor)
        finally:
            self._encoding -= 1

    async def _serve(
        self, request: Request, reply: Reply, context: grpc.aio.ServicerContext
    ) -> None:
        stream = self._streams.open(request)
        try:
            self._submit(request)
            await self._write(stream, reply, context)
            if reply.finish is Finish.STOP:
                self._engine.finish(request)
        finally:
            # Also when the client went away: this coroutine is cancelled then. No effect on a
            # request that has ended.
            self._engine.cancel(request)
            self._streams.close(request)

    def _submit(self, request: Request) -> None:
        try:
            self._engine.submit(request)
        except Refused as error:
            refusal = not_admitted(error)
            self._metrics.refuse(refusal.cause)
            raise refusal from error

    async def _write(self, stream: Stream, reply: Reply, context: grpc.aio.ServicerContext) -> None:
        while reply.finish is None:
            message = reply.take(await stream.take())
            if message is not None:
                await context.write(message)
            if reply.failure is not None:
                raise failed(reply.failure)

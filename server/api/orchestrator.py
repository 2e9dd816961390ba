"""JetStream's Orchestrator service."""

import logging
import time

import grpc

from protos import orchestrator_pb2 as pb
from server.api.completions import Completions
from server.api.messages import read_ask, write_piece
from server.api.refusal import Kind, Refusal

_logger = logging.getLogger(__name__)

_STATUS = {
    Kind.INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    Kind.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    Kind.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Kind.TOO_LARGE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Kind.QUEUE_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Kind.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Kind.CANCELLED: grpc.StatusCode.CANCELLED,
    Kind.DEADLINE: grpc.StatusCode.DEADLINE_EXCEEDED,
    Kind.FAILED: grpc.StatusCode.INTERNAL,
}


class Orchestrator:
    """One coroutine a call; all of them share one event loop."""

    def __init__(self, completions: Completions) -> None:
        self._completions = completions

    async def Decode(self, wire: pb.DecodeRequest, context: grpc.aio.ServicerContext) -> None:
        """Generates tokens for one prompt and writes them as they are made."""
        try:
            await self._serve(wire, context)
        except Refusal as refusal:
            await context.abort(_STATUS[refusal.kind], refusal.message)
        except Exception as error:
            _logger.exception("a Decode call failed")
            message = f"the server failed on this request: {type(error).__name__}: {error}"
            await context.abort(grpc.StatusCode.INTERNAL, message)

    async def HealthCheck(
        self, wire: pb.HealthCheckRequest, context: grpc.aio.ServicerContext
    ) -> pb.HealthCheckResponse:
        """Tells whether the engine works."""
        return pb.HealthCheckResponse(is_live=self._completions.engine.lost is None)

    async def _serve(self, wire: pb.DecodeRequest, context: grpc.aio.ServicerContext) -> None:
        remaining = context.time_remaining()
        deadline = None if remaining is None else time.monotonic() + remaining
        try:
            ask = read_ask(wire, deadline)
        except Refusal as refusal:
            self._completions.metrics.refuse(refusal.cause)
            raise
        prompt = await self._completions.read(ask)
        # Closed also when the client went away: this coroutine is cancelled then.
        with self._completions.start(ask, prompt) as completion:
            while (piece := await completion.take()).finish is None:
                await context.write(write_piece(piece, ask, completion))
            await context.write(write_piece(piece, ask, completion))

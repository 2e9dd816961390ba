"""Bearer keys on gRPC calls."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from server.api.credentials import Keys
from server.api.metrics import Metrics

NEEDS_KEY = "this server needs a key; send 'authorization: Bearer KEY'"
WRONG_KEY = "the key is not one of this server's"
# Load balancers have no key.
_OPEN = ("/grpc.health.v1.Health/", "/jetstream_proto.Orchestrator/HealthCheck")


class KeyCheck(grpc.aio.ServerInterceptor):
    """Ends calls without one of `keys` as UNAUTHENTICATED; health checks stay open."""

    def __init__(self, keys: Keys, metrics: Metrics) -> None:
        self._keys = keys
        self._metrics = metrics

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        """Passes the call on, or gives one that refuses it."""
        if details.method.startswith(_OPEN):
            return await continuation(details)
        shown = dict(details.invocation_metadata or ()).get("authorization")
        if self._keys.allow(shown if isinstance(shown, str) else None):
            return await continuation(details)
        self._metrics.refuse("unauthenticated")
        return _refusing(WRONG_KEY if shown else NEEDS_KEY)


def _refusing(message: str) -> grpc.RpcMethodHandler:
    # Stream to stream fits every kind of call: it asks for no message first.
    async def refuse(
        requests: AsyncIterator[Any], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[Any]:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, message)
        yield  # makes this a stream; never reached

    return grpc.stream_stream_rpc_method_handler(refuse)

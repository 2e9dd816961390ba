"""A real Orchestrator server that does what the first word of the prompt says.

Run as a process of its own, so that it can be killed and shares no interpreter with the client:
`python scripted_orchestrator.py --ttft 0.05 --itl 0.01`; prints its port when it listens.
"""

import argparse
import asyncio
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import grpc.aio

from protos import orchestrator_pb2 as pb
from protos.orchestrator_pb2_grpc import (
    OrchestratorServicer,
    add_OrchestratorServicer_to_server,
)

Responses = AsyncIterator[pb.DecodeResponse]


class Scripted(OrchestratorServicer):
    """Token k of a request leaves `ttft + k * itl` seconds after the request came."""

    def __init__(self, given: argparse.Namespace) -> None:
        self._given = given
        self._health_checks = 0

    async def HealthCheck(self, request, context):
        if self._given.key and ("authorization", f"Bearer {self._given.key}") not in tuple(
            context.invocation_metadata()
        ):
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "no key")
        self._health_checks += 1
        return pb.HealthCheckResponse(is_live=self._health_checks > self._given.not_live)

    async def Decode(self, request, context) -> Responses:
        script = request.text_content.text.split(" ")[0]
        behave = getattr(self, f"_{script}", self._tokens)
        async for response in behave(request, context):
            yield response

    async def _tokens(self, request, context) -> Responses:
        """JetStream's manner: an empty message first, and with --jetstream an empty one last."""
        yield pb.DecodeResponse(initial_content=pb.DecodeResponse.InitialContent())
        async for index in self._paced(request.max_tokens):
            yield self._message([index], last=index == request.max_tokens - 1, request=request)
        if self._given.jetstream:
            yield _samples(pb.DecodeResponse.StreamContent.Sample())

    async def _burst(self, request, context) -> Responses:
        """Four tokens a message."""
        async for index in self._paced(request.max_tokens // 4):
            ids = range(4 * index, 4 * index + 4)
            yield self._message(ids, last=ids[-1] == request.max_tokens - 1, request=request)

    async def _textual(self, request, context) -> Responses:
        """Text without token ids, two letters a message."""
        async for index in self._paced(request.max_tokens // 2):
            sample = pb.DecodeResponse.StreamContent.Sample(text="ab")
            if 2 * index + 2 >= request.max_tokens:
                sample.finish_reason = pb.FINISH_REASON_LENGTH
            yield _samples(sample)

    async def _early(self, request, context) -> Responses:
        """An end-of-sequence token after three, unless it is to be ignored."""
        length = request.max_tokens if request.ignore_eos else 3
        async for index in self._paced(length):
            yield self._message([index], last=index == length - 1, request=request)

    async def _refuse(self, request, context) -> Responses:
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full")
        yield pb.DecodeResponse()

    async def _unwell(self, request, context) -> Responses:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "the engine is lost")
        yield pb.DecodeResponse()

    async def _cancelled(self, request, context) -> Responses:
        await context.abort(grpc.StatusCode.CANCELLED, "not wanted")
        yield pb.DecodeResponse()

    async def _hurried(self, request, context) -> Responses:
        await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the server's own: 1 % & \u00fc")
        yield pb.DecodeResponse()

    async def _told(self, request, context) -> Responses:
        """What came with the call, as text."""
        said = dict(context.invocation_metadata())
        named = [f"{name}={said.get(name)}" for name in request.text_content.text.split(" ")[1:]]
        yield _samples(pb.DecodeResponse.StreamContent.Sample(text=";".join(named)))

    async def _long(self, request, context) -> Responses:
        """A megabyte of text a token."""
        for index in range(request.max_tokens):
            text = chr(ord("a") + index % 26) * 2**20
            yield _samples(pb.DecodeResponse.StreamContent.Sample(text=text, token_ids=[index]))

    async def _break(self, request, context) -> Responses:
        async for index in self._paced(2):
            yield self._message([index], last=False, request=request)
        await context.abort(grpc.StatusCode.INTERNAL, "the step failed")

    async def _cut(self, request, context) -> Responses:
        async for index in self._paced(2):
            yield self._message([index], last=False, request=request)

    async def _nothing(self, request, context) -> Responses:
        yield pb.DecodeResponse(initial_content=pb.DecodeResponse.InitialContent())
        yield _samples(pb.DecodeResponse.StreamContent.Sample())

    async def _silent(self, request, context) -> Responses:
        await asyncio.sleep(3600)
        yield pb.DecodeResponse()

    async def _stuck(self, request, context) -> Responses:
        async for index in self._paced(2):
            yield self._message([index], last=False, request=request)
        await asyncio.sleep(3600)

    async def _paced(self, count: int) -> AsyncIterator[int]:
        start = time.perf_counter() + self._given.ttft
        for index in range(count):
            await asyncio.sleep(max(0.0, start + index * self._given.itl - time.perf_counter()))
            yield index

    def _message(self, ids, last: bool, request) -> pb.DecodeResponse:
        sample = pb.DecodeResponse.StreamContent.Sample(text="x" * len(ids), token_ids=ids)
        if self._given.jetstream or not last:
            return _samples(sample)
        sample.finish_reason = pb.FINISH_REASON_LENGTH
        prompt = request.token_content.token_ids or request.text_content.text.encode()
        return pb.DecodeResponse(
            stream_content=pb.DecodeResponse.StreamContent(samples=[sample]),
            usage=pb.Usage(
                # The test tokenizer: a token a byte, and a beginning-of-sequence token.
                prompt_tokens=len(prompt) + (not request.has_bos),
                completion_tokens=ids[-1] + 1,
            ),
            timing=pb.Timing(queue_seconds=0.25, prefill_seconds=0.5),
        )


def _samples(sample) -> pb.DecodeResponse:
    return pb.DecodeResponse(stream_content=pb.DecodeResponse.StreamContent(samples=[sample]))


async def _serve(given: argparse.Namespace) -> None:
    server, port = _bound(given)
    while port is None:
        server, port = _bound(given)
    await server.start()
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    print(port, flush=True)
    # A test that dies leaves no server behind.
    with suppress(TimeoutError):
        await asyncio.wait_for(stopping.wait(), 1800)
    # What is under way may end.
    await server.stop(10)


def _bound(given: argparse.Namespace) -> tuple[grpc.aio.Server, int | None]:
    """A server, and the port it has on both addresses of localhost; no port if one was taken."""
    # By default gRPC cancels some of more than 1,000 calls that come at once.
    waiting = ("max_pending_requests", "max_pending_requests_hard_limit")
    options = [(f"grpc.server.{name}", 10_000) for name in waiting]
    options += [("grpc.max_concurrent_streams", given.streams), ("grpc.so_reuseport", 0)]
    server = grpc.aio.server(options=options)
    add_OrchestratorServicer_to_server(Scripted(given), server)
    add = server.add_insecure_port
    if given.certificates:
        pair = [(given.certificates / name).read_bytes() for name in ("key.pem", "certificate.pem")]
        add = partial(
            server.add_secure_port, server_credentials=grpc.ssl_server_credentials([tuple(pair)])
        )
    port = add("127.0.0.1:0")
    if _has_ipv6():
        # Another program may have this number there; a client of localhost would find that one.
        try:
            add(f"[::1]:{port}")
        except RuntimeError:
            return server, None
    return server, port


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--ttft", type=float, default=0.05)
    parser.add_argument("--itl", type=float, default=0.005)
    parser.add_argument("--not-live", type=int, default=0, help="health checks that say not live")
    parser.add_argument("--streams", type=int, default=10_000, help="most streams a connection")
    parser.add_argument("--jetstream", action="store_true", help="none of our own fields")
    parser.add_argument("--certificates", type=Path, help="folder; serve with TLS")
    parser.add_argument("--key", help="that HealthCheck wants")
    asyncio.run(_serve(parser.parse_args()))

"""A server of our own over a real socket, and the tokenizer it speaks."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import grpc

from protos import orchestrator_pb2 as pb
from protos import orchestrator_pb2_grpc as pb_grpc
from server.api import Server, ServerConfig
from server.scheduler import Engine
from tokenization import Tokenizer
from tokenization.pieces import Pieces

BOS, EOS = 256, 257
VOCAB = 300
PATIENCE = 20.0

BYTES = Tokenizer(
    encode_text=lambda text: list(text.encode()),
    pieces=Pieces([bytes([byte]) for byte in range(256)] + [b"<bos>", b"<eos>"]),
    bos_id=BOS,
    eos_ids=frozenset({EOS}),
    add_bos=True,
)
LOCAL = ServerConfig(host="127.0.0.1", port=0, metrics_host="127.0.0.1")


@dataclass
class Served:
    """Where a server listens and what it allows. Any server can be wrapped in one."""

    address: str
    vocab: int
    max_prompt_length: int
    max_tokens: int
    cache_length: int
    rolling: bool
    has_tokenizer: bool
    max_message_bytes: int = 4 * 1024 * 1024
    credentials: grpc.ChannelCredentials | None = None
    channel: grpc.Channel = field(init=False)

    def __post_init__(self) -> None:
        if self.credentials is None:
            self.channel = grpc.insecure_channel(self.address)
        else:
            self.channel = grpc.secure_channel(self.address, self.credentials)
        self.stub = pb_grpc.OrchestratorStub(self.channel)

    def decode(self, request: pb.DecodeRequest, timeout: float = PATIENCE) -> "Answer":
        """The whole stream. Raises grpc.RpcError."""
        return Answer(list(self.stub.Decode(request, timeout=timeout)))


@dataclass
class Answer:
    """The messages of one stream."""

    messages: list[pb.DecodeResponse]

    @property
    def samples(self) -> list[pb.DecodeResponse.StreamContent.Sample]:
        return [m.stream_content.samples[0] for m in self.messages if m.stream_content.samples]

    @property
    def ids(self) -> list[int]:
        return [token_id for sample in self.samples for token_id in sample.token_ids]

    @property
    def text(self) -> str:
        return "".join(sample.text for sample in self.samples)

    @property
    def logprobs(self) -> list[float]:
        return [logprob for sample in self.samples for logprob in sample.logprobs]

    @property
    def finish(self) -> int:
        return self.samples[-1].finish_reason

    @property
    def usage(self) -> pb.Usage:
        return self.messages[-1].usage


class ServerThread:
    """Runs a Server in an event loop of its own thread, so that tests can block."""

    def __init__(
        self, engine: Engine, tokenizer: Tokenizer | None, config: ServerConfig = LOCAL
    ) -> None:
        self.engine = engine
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.server = self.run(self._start(engine, tokenizer, config))
        self.stopped = False

    def run(self, coroutine):
        """Runs a coroutine in the server's loop and returns its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(60)

    def stop(self, drain_seconds: float = 0.0) -> bool:
        self.stopped = True
        return self.run(self.server.stop(drain_seconds))

    def close(self) -> None:
        if not self.stopped:
            self.stop()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(PATIENCE)
        self.loop.close()

    async def _start(self, engine, tokenizer, config) -> Server:
        server = Server(engine, tokenizer, config)
        await server.start()
        return server


@contextmanager
def serving(
    engine: Engine, tokenizer: Tokenizer | None = BYTES, **settings
) -> Iterator[tuple[Served, ServerThread]]:
    """A running server over `engine`, and where to reach it."""
    config = replace(LOCAL, **settings)
    thread = ServerThread(engine, tokenizer, config)
    served = Served(
        address=thread.server.address,
        vocab=engine.shape.vocab,
        max_prompt_length=config.max_prompt_length,
        max_tokens=config.max_tokens,
        cache_length=engine.shape.cache_length,
        rolling=config.rolling,
        has_tokenizer=tokenizer is not None,
        max_message_bytes=config.max_message_bytes,
    )
    try:
        yield served, thread
    finally:
        if hasattr(engine, "gate"):
            engine.gate.set()
        thread.close()
        served.channel.close()


def wait_until(holds, what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, f"it never happened: {what}"
        time.sleep(0.002)


def by_ids(ids: list[int], max_tokens: int = 4, **fields) -> pb.DecodeRequest:
    content = pb.DecodeRequest.TokenContent(token_ids=ids)
    return pb.DecodeRequest(token_content=content, max_tokens=max_tokens, **fields)


def by_text(text: str, max_tokens: int = 4, **fields) -> pb.DecodeRequest:
    content = pb.DecodeRequest.TextContent(text=text)
    return pb.DecodeRequest(text_content=content, max_tokens=max_tokens, **fields)


async def burst(address: str, count: int, timeout: float = 100.0) -> Counter:
    """The outcome of `count` calls made at once."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = pb_grpc.OrchestratorStub(channel)

        async def one(number: int) -> str:
            try:
                call = stub.Decode(by_ids([number % 97], 1, ignore_eos=True), timeout=timeout)
                made = [m async for m in call]
            except grpc.aio.AioRpcError as error:
                return error.code().name
            return "OK" if len(made) == 1 else f"{len(made)} messages"

        return Counter(await asyncio.gather(*(one(number) for number in range(count))))

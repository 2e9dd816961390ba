"""The way from a question to its tokens that every wire shares."""

import secrets
from concurrent.futures import Executor
from itertools import count
from types import TracebackType
from typing import Self

from server.api.ask import Ask
from server.api.config import ServerConfig
from server.api.metrics import Metrics
from server.api.prompt import Prompt, fit_prompt, read_prompt
from server.api.refusal import Refusal, failed, not_admitted
from server.api.reply import Piece, Reply, Timing, Usage
from server.api.streams import Streams
from server.api.validation import check_ask, read_sampling
from server.scheduler import EngineLoop, EngineShape, Finish, QueueFull, Refused, Request
from tokenization import Tokenizer


class Completions:
    """Validates, admits, submits. Used from one event loop."""

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
        self.engine = engine
        self.config = config
        self.metrics = metrics
        self.tokenizer = tokenizer
        self.streams = streams
        self._shape = shape
        self._executor = executor
        self._ids = count()
        self._encoding = 0

    async def read(self, ask: Ask) -> Prompt:
        """Checks an ask and encodes its prompt. Raises Refusal."""
        try:
            check_ask(ask, self.config, self._shape, self.tokenizer is not None)
            ids = await self._encode(ask)
            return fit_prompt(ids, ask, self.tokenizer, self.config, self._shape)
        except Refusal as refusal:
            self.metrics.refuse(refusal.cause)
            raise

    def start(self, ask: Ask, prompt: Prompt) -> "Completion":
        """Hands a prompt that was read to the scheduler. Raises Refusal when it has no room.

        The Completion must be closed, or used in a `with` statement.
        """
        request = Request(
            id=next(self._ids),
            prompt=prompt.tokens,
            max_tokens=prompt.max_tokens,
            sampling=read_sampling(ask, self._shape, secrets.randbits(63)),
            ignore_eos=ask.ignore_eos,
            logprobs=ask.logprobs,
            deadline=ask.deadline,
        )
        completion = Completion(self, request, Reply(request, ask, prompt, self.tokenizer))
        try:
            self.engine.submit(request)
        except Refused as error:
            completion.close()
            refusal = not_admitted(error)
            self.metrics.refuse(refusal.cause)
            raise refusal from error
        return completion

    async def _encode(self, ask: Ask) -> list[int]:
        # Prompts that wait for the encoder count as queued: that work has a bound too.
        limit = self.config.queue_limit
        if self._encoding and self._encoding + self.engine.stats().queued >= limit:
            full = QueueFull(f"the queue holds {limit} requests; try again later")
            raise not_admitted(full)
        self._encoding += 1
        try:
            return await read_prompt(ask, self.tokenizer, self._executor)
        finally:
            self._encoding -= 1


class Completion:
    """A request under way. Closing it early, as when its client went away, frees its slot."""

    def __init__(self, owner: Completions, request: Request, reply: Reply) -> None:
        self._engine = owner.engine
        self._streams = owner.streams
        self._request = request
        self._reply = reply
        self._stream = owner.streams.open(request)

    async def take(self) -> Piece:
        """What came since the last call; waits for some. Raises Refusal when the request failed.

        Not to be called again after the piece with `finish`.
        """
        while True:
            if self._reply.failure is not None:
                raise failed(self._reply.failure)
            piece = self._reply.take(await self._stream.take())
            if piece is not None:
                return piece

    @property
    def usage(self) -> Usage:
        """The counts of tokens so far."""
        return self._reply.usage

    @property
    def timing(self) -> Timing:
        """Known from the first piece on."""
        return self._reply.timing

    def close(self) -> None:
        """Gives the request up if it has not ended."""
        if self._reply.finish is Finish.STOP:
            self._engine.finish(self._request)
        # No effect on a request that has ended.
        self._engine.cancel(self._request)
        self._streams.close(self._request)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

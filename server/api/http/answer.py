"""From a question to the response of one request."""

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from contextlib import ExitStack, suppress
from typing import Any

from aiohttp import web

from server.api.ask import Ask
from server.api.completions import Completion, Completions
from server.api.http.errors import error_text
from server.api.http.event_stream import EventStream
from server.api.http.form import Form
from server.api.http.question import Question
from server.api.http.writer import (
    DONE,
    ChoiceWriter,
    ChunkWriter,
    Head,
    usage_chunk,
    whole_answer,
)
from server.api.prompt import Prompt
from server.api.refusal import Kind, Refusal

_logger = logging.getLogger(__name__)


class Answer:
    """Admits the completions of a question, all or none, and writes what they say."""

    def __init__(
        self, completions: Completions, question: Question, form: Form, model: str
    ) -> None:
        self._completions = completions
        self._question = question
        self._form = form
        self._head = Head(form, model)

    async def respond(self, request: web.Request) -> web.StreamResponse:
        """The response, finished. Raises Refusal while nothing was sent.

        Cancelled, as when the client goes away, it gives the completions up.
        """
        question = self._question
        prompts = [await self._read(ask) for ask in question.asks]
        with ExitStack() as stack:
            under_way = [
                stack.enter_context(self._completions.start(question.choice(ask, number), prompt))
                for ask, prompt in zip(question.asks, prompts, strict=True)
                for number in range(question.choices)
            ]
            if question.stream:
                return await self._stream(request, under_way)
            return await self._whole(under_way)

    async def _read(self, ask: Ask) -> Prompt:
        if len(self._question.asks) > 1:
            # Running streams get their turn between the prompts of a long list.
            await asyncio.sleep(0)
        return await self._completions.read(ask)

    async def _whole(self, under_way: Sequence[Completion]) -> web.Response:
        tokenizer = self._completions.tokenizer
        writers = [
            ChoiceWriter(self._form, index, self._question, tokenizer)
            for index in range(len(under_way))
        ]
        await _together([_gather(*pair) for pair in zip(under_way, writers, strict=True)])
        choices = self._question.choices
        body = whole_answer(self._form, self._head, writers, under_way, choices)
        return web.Response(body=body, content_type="application/json")

    async def _stream(
        self, request: web.Request, under_way: Sequence[Completion]
    ) -> web.StreamResponse:
        question, tokenizer = self._question, self._completions.tokenizer
        events = EventStream(request, self._completions.config.stall_seconds)
        parts = (
            (one, ChunkWriter(self._form, self._head, index, question, one, tokenizer), events)
            for index, one in enumerate(under_way)
        )
        try:
            await _together([_send(*part) for part in parts])
            end = DONE
            if question.usage_at_end:
                end = usage_chunk(self._form, self._head, under_way, question.choices) + DONE
            await events.end(end)
        except (ConnectionError, TimeoutError):
            pass  # nobody is there to be told
        except Exception as error:
            if not events.begun:
                raise
            await _tell(events, error)
        return events.response


async def _gather(completion: Completion, writer: ChoiceWriter) -> None:
    while (piece := await completion.take()).finish is None:
        writer.add(piece)
    writer.add(piece)


async def _send(completion: Completion, writer: ChunkWriter, events: EventStream) -> None:
    while (piece := await completion.take()).finish is None:
        await events.write(writer.write(piece))
    await events.write(writer.write(piece))


async def _together(work: Sequence[Coroutine[Any, Any, None]]) -> None:
    if len(work) == 1:
        return await work[0]
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return None


async def _tell(events: EventStream, error: Exception) -> None:
    """An error in the midst of a stream; that no [DONE] follows says that it is not whole."""
    if not isinstance(error, Refusal):
        _logger.error("a stream failed", exc_info=error)
        message = f"the server failed on this request: {type(error).__name__}: {error}"
        error = Refusal(Kind.FAILED, message, "failed")
    with suppress(ConnectionError, TimeoutError):  # nobody is there to be told
        await events.end(f"data: {error_text(error)}\n\n".encode("ascii"))

"""Asks a target for many answers, some at a time, and ends each as soon as it is long enough."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from client.errors import NotReadyError
from client.targets.exchange import OK, Answer, Exchange
from client.targets.target import Target
from client.workloads.prompt import Prompt
from tokenization import Detokenizer, Tokenizer

_LOOK_SECONDS = 0.2
_END_SECONDS = 10.0  # for a target to let go of a request


@dataclass(frozen=True)
class Text:
    """All that an answer said. `finish` None: it was ended from here."""

    text: str
    tokens: int
    finish: str | None


@dataclass(frozen=True)
class Question:
    """`is_over`: whether the text so far is enough."""

    prompt: Prompt
    is_over: Callable[[str], bool]
    done: Callable[[Text], None]


async def ask_all(
    target: Target, questions: Iterable[Question], at_once: int, tokenizer: Tokenizer
) -> None:
    """Asks all of them, calling `done` of each when it is. The target is open.

    Raises `NotReadyError` for the first request that fails, when the others have been let go.
    """
    waiting = iter(questions)
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(_work(target, waiting, tokenizer))
    except ExceptionGroup as group:
        raise group.exceptions[0] from None


async def _work(target: Target, waiting: Iterator[Question], tokenizer: Tokenizer) -> None:
    for question in waiting:
        question.done(await _ask(target, question, tokenizer))


async def _ask(target: Target, question: Question, tokenizer: Tokenizer) -> Text:
    exchange = Exchange()
    asking = asyncio.create_task(target.ask(target.build(question.prompt), exchange))
    try:
        while not asking.done():
            await asyncio.wait({asking}, timeout=_LOOK_SECONDS)
            found = _text(target.read(exchange), tokenizer)
            if not asking.done() and question.is_over(found.text):
                return Text(found.text, found.tokens, None)
        asking.result()
    finally:
        await _let_go(asking)
    answer = target.read(exchange)
    failure = answer.failure or (exchange.status, exchange.detail)
    if answer.failure is not None or exchange.status != OK:
        raise NotReadyError(f"{question.prompt.id}: no answer: {failure[0]} {failure[1]}".strip())
    return _text(answer, tokenizer)


async def _let_go(asking: "asyncio.Task[Any]") -> None:
    asking.cancel()
    await asyncio.wait({asking}, timeout=_END_SECONDS)


def _text(answer: Answer, tokenizer: Tokenizer) -> Text:
    text = "".join(piece.text for piece in answer.pieces)
    ids = [token for piece in answer.pieces for token in piece.token_ids]
    if ids and not text:
        detokenizer = Detokenizer(tokenizer, continues=True)
        text = detokenizer.push(ids) + detokenizer.flush()
    count = len(ids) or answer.completion_tokens or len(answer.pieces)
    return Text(text, count, answer.finish)

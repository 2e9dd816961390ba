"""Many questions, some at a time, each ended when enough has come."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from client.errors import NotReadyError
from client.grading.asking import Question, Text, ask_all
from client.targets.exchange import OK, Answer, Exchange, Piece
from client.workloads.prompt import Prompt
from tokenization import Tokenizer


class Slow:
    """A target that says the words of the prompt one after another, for ever if it ends in "..".

    With `ids` it says token ids and no text. A prompt "fail" fails.
    """

    def __init__(self, tokenizer: Tokenizer, ids: bool = False) -> None:
        self._encode: Callable[[str], list[int]] = lambda text: tokenizer.encode(text, bos=False)
        self._ids = ids
        self.under_way, self.most, self.cancelled = 0, 0, 0

    async def open(self, report: Callable[[str], None]) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """Nothing to do."""

    def build(self, prompt: Prompt) -> Any:
        return prompt

    async def ask(self, request: Prompt, exchange: Exchange) -> None:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await self._say(request.text.split(" "), exchange)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.under_way -= 1

    def read(self, exchange: Exchange, text: bool = True) -> Answer:
        pieces = [
            Piece(at, self._encode(said), "") if self._ids else Piece(at, (), said)
            for at, said in exchange.arrivals
        ]
        return Answer(pieces, finish="length" if exchange.status == OK else None)

    async def _say(self, words: list[str], exchange: Exchange) -> None:
        exchange.sent = time.perf_counter()
        while True:
            for word in words:
                await asyncio.sleep(0.01)
                if word == "fail":
                    exchange.end(time.perf_counter(), "refused", "as asked")
                    return
                exchange.arrivals.append((time.perf_counter(), word))
            if words[-1] != "..":
                exchange.end(time.perf_counter(), OK)
                return


def ask(target: Slow, texts: list[str], tokenizer: Tokenizer, at_once: int = 2) -> list[Text]:
    found: dict[str, Text] = {}
    questions = [
        Question(Prompt(text, text, (), 1), lambda said: "stop" in said, partial(found, text))
        for text in texts
    ]
    asyncio.run(asyncio.wait_for(ask_all(target, questions, at_once, tokenizer), 20))
    return [found[text] for text in texts]


def partial(found: dict[str, Text], text: str) -> Callable[[Text], None]:
    def done(said: Text) -> None:
        assert text not in found
        found[text] = said

    return done


@pytest.mark.parametrize("ids", [False, True])
def test_answers_are_whole_or_as_long_as_wanted(tokenizer: Tokenizer, ids: bool) -> None:
    target = Slow(tokenizer, ids)
    one, endless, other = ask(target, ["a b", "a stop ..", "c"], tokenizer)
    assert (one.text, one.finish, other.text) == ("ab", "length", "c")
    assert one.tokens == 2
    assert endless.text.startswith("astop") and endless.finish is None
    assert target.cancelled == 1 and target.under_way == 0


def test_no_more_at_once_than_asked(tokenizer: Tokenizer) -> None:
    target = Slow(tokenizer)
    ask(target, [f"{number} b" for number in range(9)], tokenizer, at_once=3)
    assert target.most == 3


def test_a_failed_request_ends_the_others(tokenizer: Tokenizer) -> None:
    target = Slow(tokenizer)
    with pytest.raises(NotReadyError, match="fail: no answer: refused as asked"):
        ask(target, ["a ..", "fail", "b"], tokenizer)
    assert target.under_way == 0

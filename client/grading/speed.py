"""Decode speed of a target at a full batch."""

import asyncio
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from client.errors import NotReadyError, UsageError
from client.results.records import count_tokens
from client.targets.exchange import OK, Exchange
from client.targets.target import Target
from client.workloads.prompt import Prompt
from tokenization import Tokenizer


@dataclass(frozen=True)
class SpeedSettings:
    """`batch` requests at once, each of `prompt` tokens and asking for `tokens`; lengths in tokens.

    `rounds`: how often; one more comes first and does not count.
    """

    batch: int = 32
    prompt: int = 64
    tokens: int = 64
    rounds: int = 3

    def __post_init__(self) -> None:
        for name, least in {"batch": 1, "prompt": 1, "tokens": 8, "rounds": 1}.items():
            if getattr(self, name) < least:
                raise UsageError(f"speed, {name}: {least} or more; got {getattr(self, name)}")


async def measure(
    target: Target,
    prompts: Sequence[Prompt],
    settings: SpeedSettings,
    tokenizer: Tokenizer,
    report: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """The figures of a record. The target is open, and asked to ignore the end of sequence."""
    rates = []
    for number in range(settings.rounds + 1):
        rate = await _round(target, prompts, tokenizer)
        if number:
            rates.append(rate)
        report()
    return {
        "batch": settings.batch,
        "prompt": settings.prompt,
        "tokens": settings.tokens,
        "decode_tokens_per_second": statistics.median(rates),
        "lowest": min(rates),
        "highest": max(rates),
        "rounds": rates,
    }


async def _round(target: Target, prompts: Sequence[Prompt], tokenizer: Tokenizer) -> float:
    exchanges = [Exchange() for _ in prompts]
    requests = [target.build(prompt) for prompt in prompts]
    await asyncio.gather(
        *(target.ask(request, each) for request, each in zip(requests, exchanges, strict=True))
    )
    for each in exchanges:
        if each.status != OK:
            raise NotReadyError(f"speed: no answer: {each.status} {each.detail}".strip())
    encode = partial(tokenizer.encode, bos=False)
    return decode_rate([list(count_tokens(target.read(each), encode)[0]) for each in exchanges])


def decode_rate(streams: Sequence[Sequence[tuple[float, int]]]) -> float:
    """Tokens a second from when every request has its first token until the first one ends.

    So no prompt is being read and every slot is at work. A stream is (time in seconds, tokens).
    """
    if not all(streams):
        raise NotReadyError("speed: a request ended without tokens")
    start = max(stream[0][0] for stream in streams)
    end = min(stream[-1][0] for stream in streams)
    made = sum(count for stream in streams for time, count in stream if start < time <= end)
    if end <= start or not made:
        raise UsageError(
            "speed: the first request ended before the last had begun; ask for more with "
            "--speed-tokens, or make the batch smaller"
        )
    return made / (end - start)

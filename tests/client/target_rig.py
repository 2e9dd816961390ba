"""Drives a target as a run does, and fails on whatever escapes it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import uvloop

from client.load.health import WorkerHealth
from client.load.share import ShareResult
from client.results.records import Record, build_records
from client.targets.exchange import Exchange
from client.targets.open import make_target
from client.targets.settings import TargetSettings
from client.targets.target import Target
from client.workloads.prompt import Prompt

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
PATIENCE = 25.0
_WELL = WorkerHealth(1.0, 0.1, 0.0, 0.0, 0.0)

Meanwhile = Callable[[Target, list[Exchange]], Awaitable[None]]


def prompt(text: str, tokens: int = 8) -> Prompt:
    """A prompt of a token a byte."""
    ids = tuple(text.encode())
    return Prompt(id=text[:20], text=text, token_ids=ids, max_tokens=tokens)


def run(work: Awaitable[Any], loop: str = "uvloop", patience: float = PATIENCE) -> Any:
    """Runs a coroutine to its end. Fails when it takes too long, or something went wrong unseen."""
    escaped: list[dict[str, Any]] = []

    async def watched() -> Any:
        asyncio.get_running_loop().set_exception_handler(lambda _, what: escaped.append(what))
        async with asyncio.timeout(patience):
            found = await work
        await asyncio.sleep(0.01)  # what was closed is told so
        return found

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        found = runner.run(watched())
    assert escaped == [], escaped
    return found


async def asking(
    settings: TargetSettings, prompts: Sequence[Prompt], meanwhile: Meanwhile | None = None
) -> list[Record]:
    """Asks everything at once and returns a record for each prompt.

    What `meanwhile` does to the server, it does while the answers come.
    """
    target = make_target(settings)
    try:
        await target.open(lambda reason: None)
        exchanges = [Exchange(scheduled=0.0) for _ in prompts]
        requests = [target.build(each) for each in prompts]
        async with asyncio.TaskGroup() as group:
            for request, exchange in zip(requests, exchanges, strict=True):
                group.create_task(target.ask(request, exchange))
            if meanwhile is not None:
                await meanwhile(target, exchanges)
        return records_of(target, prompts, exchanges)
    finally:
        await target.close()


def records_of(
    target: Target, prompts: Sequence[Prompt], exchanges: Sequence[Exchange]
) -> list[Record]:
    """What the report would be made of."""
    answers = [target.read(exchange) for exchange in exchanges]
    order = list(range(len(prompts)))
    result = ShareResult(order, list(exchanges), answers, 1.0, False, _WELL)
    return list(build_records(prompts, [result], lambda text: list(text.encode())))


async def until(happened: Callable[[], bool]) -> None:
    """Returns when it has happened; the bound is the whole test's."""
    while not happened():
        await asyncio.sleep(0.005)


def summary(record: Record) -> tuple[str, str, str]:
    """(outcome, cause, detail)."""
    return record.outcome.value, record.cause, record.detail

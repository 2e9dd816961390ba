"""Open loop: every request goes out when it is due, whatever became of the ones before it."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from client.load.interrupt import interrupt_event
from client.load.progress import Progress
from client.load.quiet import garbage_collection_held
from client.targets.exchange import TIMEOUT, Exchange
from client.targets.target import Target
from client.workloads.prompt import Prompt

# Beyond the last request's own time limit; only a target that ignores its limit gets here.
_GRACE_SECONDS = 10.0


@dataclass(frozen=True)
class Replay:
    """One exchange for each prompt, in order. `start` and `end`: `time.perf_counter()`.

    `cpu` is the processor time this process used meanwhile, seconds.
    """

    exchanges: tuple[Exchange, ...]
    start: float
    end: float
    interrupted: bool
    cpu: float


async def replay(
    target: Target,
    prompts: Sequence[Prompt],
    offsets: Sequence[float],
    request_timeout: float,
    progress: Progress,
) -> Replay:
    """Sends prompt i at `offsets[i]` seconds from the start and waits for every stream to end.

    Nothing limits how many are in flight. It returns within the last offset plus
    `request_timeout` and ten seconds (what is still open then has timed out), or soon after an
    interrupt (what is still open then stays open).
    """
    exchanges = tuple(Exchange() for _ in prompts)
    with interrupt_event() as stop, garbage_collection_held(), progress.shown(exchanges):
        cpu, start = time.process_time(), time.perf_counter()
        sending = asyncio.create_task(_send_all(target, prompts, exchanges, offsets, start))
        stopping = asyncio.create_task(stop.wait())
        limit = (offsets[-1] if len(offsets) else 0.0) + request_timeout + _GRACE_SECONDS
        await asyncio.wait({sending, stopping}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        interrupted, end = stop.is_set(), time.perf_counter()
        cpu = time.process_time() - cpu
        await _cancel(stopping, sending)
    if not interrupted:
        _time_out_open(exchanges, end)
    return Replay(exchanges, start, end, interrupted, cpu)


async def _send_all(
    target: Target,
    prompts: Sequence[Prompt],
    exchanges: Sequence[Exchange],
    offsets: Sequence[float],
    start: float,
) -> None:
    async with asyncio.TaskGroup() as group:
        for prompt, exchange, offset in zip(prompts, exchanges, offsets, strict=True):
            exchange.scheduled = start + offset
            # Against the clock, not the previous request: lateness does not add up.
            delay = exchange.scheduled - time.perf_counter()
            if delay > 0:
                await asyncio.sleep(delay)
            group.create_task(target.ask(prompt, exchange))


async def _cancel(*tasks: asyncio.Task[object]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=_GRACE_SECONDS)
    for task in tasks:
        # A fault in this program, unlike one of the server, is not part of the result.
        if task.done() and not task.cancelled() and (fault := task.exception()):
            raise fault


def _time_out_open(exchanges: Sequence[Exchange], end: float) -> None:
    for exchange in exchanges:
        if exchange.status is None:
            exchange.end(end, TIMEOUT, "still open at the end of the run")

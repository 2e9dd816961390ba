"""Runs a share: sends what is due, collects what comes, on one event loop."""

import asyncio
import platform
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from client.load.health import LoopWatch, WorkerHealth
from client.load.history import text_of, with_answers
from client.load.quiet import garbage_collection_held, settle
from client.load.share import Share, ShareResult, Tally
from client.targets.exchange import OK, TIMEOUT, Exchange
from client.targets.open import make_target

# Beyond every request's own time limit; only a target that ignores its limit gets here.
_GRACE_SECONDS = 10.0
# After so many sends in a row the loop reads what came, or a burst would make answers look late.
_SENDS_IN_A_ROW = 8
BEFORE = "earlier turn failed"


class ShareRun:
    """`open`, then `run`, then `close`, on the same event loop. `stop` may come at any time."""

    def __init__(self, share: Share) -> None:
        self._share = share
        self._target = make_target(share.target)
        self._exchanges = [[Exchange() for _ in session.turns] for session in share.sessions]
        self._requests: list[list[Any]] = []
        self._stop = asyncio.Event()
        self._start = 0.0
        self._tally = _Tallying([each for row in self._exchanges for each in row])

    async def open(self, report: Callable[[str], None]) -> None:
        """Connects, waits for the server, and builds the requests. Raises `NotReadyError`."""
        await self._target.open(report)
        self._requests = [
            [self._target.build(prompt) for prompt in session.turns]
            for session in self._share.sessions
        ]
        settle()

    async def run(self, start_at: float) -> ShareResult:
        """Measures from `start_at` (`time.time()`), and reads the answers when all have ended."""
        # One clock in all workers of a machine; between machines as good as their time of day.
        self._start = time.perf_counter() + (start_at - time.time())
        with garbage_collection_held():
            # An engine in this process takes time of its own, which is what is measured.
            shared = self._share.target.kind == "in-process"
            watch = LoopWatch(resource.RUSAGE_THREAD if shared else resource.RUSAGE_SELF)
            interrupted, ended = await self._measure()
            tokens = self.tally().tokens
            requests = sum(each.sent is not None for row in self._exchanges for each in row)
            health = watch.stop(requests, tokens, platform.node())
            if not interrupted:
                self._time_out_open(ended)
            # Still held: what is read makes no cycles, and collecting takes longer than reading.
            return self._result(ended, interrupted, health)

    def stop(self) -> None:
        """Ends the run soon; what is open stays open."""
        self._stop.set()

    def tally(self) -> Tally:
        """How far the run is."""
        return self._tally.now()

    async def close(self) -> None:
        """Lets go of the connections."""
        await self._target.close()

    async def _measure(self) -> tuple[bool, float]:
        await self._until(0.0)
        sending = asyncio.create_task(self._send_all())
        stopping = asyncio.create_task(self._stop.wait())
        limit = self._share.seconds + _GRACE_SECONDS
        await asyncio.wait({sending, stopping}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        ended = time.perf_counter() - self._start
        await _cancel(stopping, sending)
        return self._stop.is_set(), ended

    async def _send_all(self) -> None:
        # A session without a time of its own waits for a place: a closed loop.
        if None in self._share.plan.due:
            await self._send_by_users()
        else:
            await self._send_when_due()

    async def _send_when_due(self) -> None:
        plan = self._share.plan
        places = asyncio.Semaphore(plan.concurrency) if plan.concurrency else None
        async with asyncio.TaskGroup() as group:
            for number, due in enumerate(plan.due):
                assert due is not None
                if self._over(due):
                    break
                await self._until(due)
                if number % _SENDS_IN_A_ROW == 0:
                    await asyncio.sleep(0)
                if places is not None:
                    await places.acquire()
                    if self._over(due):
                        break
                task = group.create_task(self._converse(number, due))
                if places is not None:
                    task.add_done_callback(lambda _: places.release())

    async def _send_by_users(self) -> None:
        """Each user asks again as soon as he has his answer, also while others still come."""
        plan, unstarted = self._share.plan, iter(range(len(self._share.plan.due)))
        users = min(plan.concurrency or len(plan.due), len(plan.due))
        async with asyncio.TaskGroup() as group:
            for user in range(users):
                if user % _SENDS_IN_A_ROW == 0:
                    await asyncio.sleep(0)
                group.create_task(self._use(plan.due[user] or 0.0, unstarted))

    async def _use(self, due: float, unstarted: Iterator[int]) -> None:
        if self._over(due):
            return
        await self._until(due)
        for number in unstarted:
            if self._over(due):
                return
            # What this process adds between an answer and the next request is send lag.
            due = await self._converse(number, due)

    async def _converse(self, number: int, due: float) -> float:
        """Asks the turns of a session; returns when the last of them ended."""
        session, exchanges = self._share.sessions[number], self._exchanges[number]
        said: list[str] = []
        for turn, exchange in enumerate(exchanges):
            request = self._requests[number][turn]
            if turn:
                due += session.delays[turn]
                if said:
                    # Built before it is due, so that it goes out in time.
                    request = self._target.build(with_answers(session.turns[turn], said))
                if self._over(due):
                    return due
                await self._until(due)
            exchange.scheduled = self._start + due
            await self._target.ask(request, exchange)
            assert exchange.ended is not None
            due = exchange.ended - self._start
            failure = None if exchange.status == OK else exchange.status
            if self._share.real_history and failure is None:
                answer = self._target.read(exchange)
                said.append(text_of(answer))
                failure = answer.failure and answer.failure[0]
            if failure is not None:
                for later in exchanges[turn + 1 :]:
                    later.end(exchange.ended, BEFORE, f"turn {turn + 1}: {failure}")
                return due
        return due

    def _over(self, due: float) -> bool:
        """Whether what is due then, or now if that is past, comes after the end of the run."""
        stop_after = self._share.plan.stop_after
        if stop_after is None:
            return False
        return max(due, time.perf_counter() - self._start) >= stop_after

    async def _until(self, due: float) -> None:
        # Against the clock, not the previous request: lateness does not add up.
        delay = self._start + due - time.perf_counter()
        if delay > 0:
            await asyncio.sleep(delay)

    def _time_out_open(self, ended: float) -> None:
        for exchange in (each for row in self._exchanges for each in row):
            if exchange.status is None and exchange.sent is not None:
                exchange.end(self._start + ended, TIMEOUT, "still open at the end of the run")

    def _result(self, ended: float, interrupted: bool, health: WorkerHealth) -> ShareResult:
        result = ShareResult([], [], [], ended, interrupted, health, self._start)
        for indices, exchanges in zip(self._share.indices, self._exchanges, strict=True):
            for index, exchange in zip(indices, exchanges, strict=True):
                result.indices.append(index)
                result.answers.append(self._target.read(exchange, self._share.keep_text))
                result.exchanges.append(self._relative(exchange))
        return result

    def _relative(self, exchange: Exchange) -> Exchange:
        times = (exchange.scheduled, exchange.sent, exchange.ended)
        scheduled, sent, ended = (None if time is None else time - self._start for time in times)
        return replace(
            exchange, scheduled=scheduled, sent=sent, ended=ended, arrivals=[], pieces=None
        )


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=_GRACE_SECONDS)
    for task in tasks:
        # A fault in this program, unlike one of the server, is not part of the result.
        if task.done() and not task.cancelled() and (fault := task.exception()):
            raise fault


class _Tallying:
    """Counts exchanges; the ones that ended are counted once and not looked at again."""

    def __init__(self, exchanges: list[Exchange]) -> None:
        self._open = exchanges
        self._ended = Tally()

    def now(self) -> Tally:
        still_open, tokens, in_flight = [], 0, 0
        ended, failed, done = 0, 0, 0
        for exchange in self._open:
            if exchange.ended is None:
                still_open.append(exchange)
                tokens += exchange.tokens
                in_flight += exchange.sent is not None
            else:
                done += exchange.tokens
                ended += 1
                failed += exchange.status != OK
        self._open = still_open
        self._ended += Tally(ended, failed, 0, done)
        return self._ended + Tally(in_flight=in_flight, tokens=tokens)

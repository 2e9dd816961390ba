"""Runs shares at the same time: one in this process, several in processes of their own."""

import asyncio
import time
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from client.errors import NotReadyError
from client.load.crew_worker import work
from client.load.event_loop import run_measuring
from client.load.health import WorkerHealth
from client.load.interrupt import Interrupt, interrupt_event, kept_from_children
from client.load.progress import Progress
from client.load.share import Share, ShareResult, Tally
from client.load.share_run import ShareRun
from client.targets.exchange import Answer, Exchange

_HEAD_START_SECONDS = 0.3  # for a last garbage collection, and the word to reach all workers
_TELL_SECONDS = 0.5
_START_SECONDS = 60.0  # for a process to come up
_READ_SECONDS = 300.0  # for a worker to read its answers after the run
_END_SECONDS = 5.0  # for a worker to end when it is told
LOST = "client worker lost"

Say = Callable[[str], None]


def run_shares(shares: Sequence[Share], progress: Progress, say: Say) -> list[ShareResult]:
    """Runs every share from one moment on; a result for each, in order.

    Ctrl-C or SIGTERM ends the run and keeps what was measured. A worker that dies costs its own
    requests only. Raises `NotReadyError` when there is no ready server for one of them, and
    KeyboardInterrupt for an interrupt before the start or a second one.
    """
    if len(shares) == 1:
        return [run_measuring(_alone(shares[0], progress, say), shares[0].target)]
    return _Crew(shares, progress, say).run()


async def _alone(share: Share, progress: Progress, say: Say) -> ShareResult:
    run = ShareRun(share)
    try:
        with interrupt_event(run.stop) as interrupt:
            opening = asyncio.ensure_future(run.open(say))
            interrupt.cancels = opening
            await opening
            interrupt.cancels = None
            showing = asyncio.create_task(_show(run, progress))
            result = await run.run(time.time() + _HEAD_START_SECONDS)
            showing.cancel()
        progress.show(run.tally())
        return result
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        await run.close()


async def _show(run: ShareRun, progress: Progress) -> None:
    while True:
        await asyncio.sleep(progress.period)
        progress.show(run.tally())


class _Crew:
    """Worker processes. A pipe to each: down go "start" and "stop", up come news."""

    def __init__(self, shares: Sequence[Share], progress: Progress, say: Say) -> None:
        self._shares = shares
        self._progress = progress
        self._say = say
        self._pipes: list[Connection] = []
        self._processes: list[BaseProcess] = []
        self._results: dict[int, ShareResult] = {}
        self._tallies = [Tally() for _ in shares]

    def run(self) -> list[ShareResult]:
        """Starts all, waits for all."""
        try:
            with Interrupt() as interrupt:
                self._start()
                self._wait_until_ready(interrupt)
                self._tell("start", time.time() + _HEAD_START_SECONDS)
                self._collect(interrupt)
            return [
                self._results.get(index) or lost_share(share, tally)
                for index, (share, tally) in enumerate(
                    zip(self._shares, self._tallies, strict=True)
                )
            ]
        finally:
            self._end()

    def _start(self) -> None:
        # Not fork: threads of gRPC or an engine do not survive it.
        context = get_context("spawn")
        with kept_from_children():
            for share in self._shares:
                ours, theirs = context.Pipe()
                self._pipes.append(ours)
                process = context.Process(target=work, args=(share, theirs), daemon=True)
                process.start()
                self._processes.append(process)
                theirs.close()

    def _wait_until_ready(self, interrupt: Interrupt) -> None:
        connect = max(share.target.connect_timeout for share in self._shares)
        end = time.monotonic() + connect + _START_SECONDS
        waiting = dict(enumerate(self._pipes))
        while waiting:
            if interrupt.is_set:
                raise KeyboardInterrupt
            if time.monotonic() >= end:
                raise NotReadyError(f"{len(waiting)} client workers did not come up in time")
            ready = wait(list(waiting.values()), timeout=_TELL_SECONDS)
            for index, pipe in list(waiting.items()):
                if pipe in ready and self._hear_ready(pipe):
                    del waiting[index]

    def _hear_ready(self, pipe: Connection) -> bool:
        try:
            what, content = pipe.recv()
        except (EOFError, OSError):
            raise NotReadyError("a client worker ended before it was ready") from None
        if what == "say":
            if pipe is self._pipes[0]:  # all of them wait for the same
                self._say(content)
        elif what == "failed":
            raise content
        return bool(what == "ready")

    def _collect(self, interrupt: Interrupt) -> None:
        last = max(share.seconds for share in self._shares)
        end = time.monotonic() + _HEAD_START_SECONDS + last + _READ_SECONDS
        open_pipes = dict(enumerate(self._pipes))
        told = False
        while open_pipes and time.monotonic() < end:
            if interrupt.is_set and not told:
                self._tell("stop", None)
                told, end = True, time.monotonic() + _READ_SECONDS
            ready = wait(list(open_pipes.values()), timeout=_TELL_SECONDS)
            for index, pipe in list(open_pipes.items()):
                if pipe in ready and not self._hear(index, pipe):
                    del open_pipes[index]
            self._progress.show(sum(self._tallies, Tally()))

    def _hear(self, index: int, pipe: Connection) -> bool:
        try:
            what, content = pipe.recv()
        except (EOFError, OSError):
            self._say(f"client worker {index + 1} of {len(self._pipes)} died")
            return False
        if what == "tally":
            self._tallies[index] = content
            return True
        if what == "failed":
            raise content
        self._results[index] = content
        return False

    def _tell(self, what: str, content: Any) -> None:
        for pipe in self._pipes:
            try:
                pipe.send((what, content))
            except OSError:
                continue  # it died; its results will be missing

    def _end(self) -> None:
        for pipe in self._pipes:
            pipe.close()
        end = time.monotonic() + _END_SECONDS
        try:
            for process in self._processes:
                process.join(max(0.0, end - time.monotonic()))
        finally:
            for process in self._processes:
                process.kill()
                process.join(_END_SECONDS)


def lost_share(share: Share, tally: Tally | None = None) -> ShareResult:
    """What is left of a worker that died: that its requests were asked for.

    Of a run that ends by the clock these are as many as its last `tally` had begun.
    """
    indices = [index for row in share.indices for index in row]
    begun = len(indices)
    if share.plan.stop_after is not None and tally is not None:
        begun = tally.ended + tally.in_flight
    dues = [due for due, row in zip(share.plan.due, share.indices, strict=True) for _ in row]
    exchanges = [Exchange(scheduled=due or 0.0, ended=0.0, status=LOST) for due in dues[:begun]]
    exchanges += [Exchange() for _ in dues[begun:]]
    answers = [Answer(()) for _ in indices]
    nothing = WorkerHealth(0.0, 0.0, 0.0, 0.0, 0.0)
    return ShareResult(indices, exchanges, answers, 0.0, False, nothing, lost=True)

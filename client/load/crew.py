"""Runs shares at the same time: one in this process, several in processes of their own."""

import asyncio
import time
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from client.errors import NotReadyError, UsageError
from client.load.event_loop import run_measuring
from client.load.health import WorkerHealth
from client.load.interrupt import Interrupt, interrupt_event
from client.load.progress import Progress
from client.load.share import Share, ShareResult, Tally
from client.load.share_run import ShareRun
from client.targets.exchange import Answer, Exchange

_HEAD_START_SECONDS = 0.3  # for a last garbage collection, and the word to reach all workers
_TELL_SECONDS = 0.5
_START_SECONDS = 60.0  # for a process to come up
_READ_SECONDS = 300.0  # for a worker to read its answers after the run
LOST = "client worker lost"

Say = Callable[[str], None]


def run_shares(shares: Sequence[Share], progress: Progress, say: Say) -> list[ShareResult]:
    """Runs every share from one moment on; a result for each, in order.

    Ctrl-C or SIGTERM ends the run and keeps what was measured. A worker that dies costs its own
    requests only. Raises `NotReadyError` when there is no ready server for one of them.
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
        # Not fork: threads of gRPC or an engine do not survive it.
        context = get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes: list[BaseProcess] = []
        for share in shares:
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(share, theirs), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        self._results: dict[int, ShareResult] = {}
        self._tallies = [Tally() for _ in shares]

    def run(self) -> list[ShareResult]:
        """Starts all, waits for all."""
        try:
            self._wait_until_ready()
            start_at = time.time() + _HEAD_START_SECONDS
            self._tell("start", start_at)
            with Interrupt() as interrupt:
                self._collect(start_at, interrupt)
            return [
                self._results.get(index) or lost_share(share)
                for index, share in enumerate(self._shares)
            ]
        finally:
            self._end()

    def _wait_until_ready(self) -> None:
        connect = max(share.target.connect_timeout for share in self._shares)
        end = time.monotonic() + connect + _START_SECONDS
        waiting = dict(enumerate(self._pipes))
        while waiting:
            ready = wait(list(waiting.values()), timeout=max(0.0, end - time.monotonic()))
            if not ready:
                raise NotReadyError(f"{len(waiting)} client workers did not come up in time")
            for index, pipe in list(waiting.items()):
                if pipe in ready and self._hear_ready(pipe):
                    del waiting[index]

    def _hear_ready(self, pipe: Connection) -> bool:
        try:
            what, content = pipe.recv()
        except EOFError:
            raise NotReadyError("a client worker ended before it was ready") from None
        if what == "say":
            if pipe is self._pipes[0]:  # all of them wait for the same
                self._say(content)
        elif what == "failed":
            raise content
        return bool(what == "ready")

    def _collect(self, start_at: float, interrupt: Interrupt) -> None:
        last = max(share.seconds for share in self._shares)
        end = start_at + last + _READ_SECONDS
        open_pipes = dict(enumerate(self._pipes))
        told = False
        while open_pipes and time.time() < end:
            if interrupt.is_set and not told:
                self._tell("stop", None)
                told = True
            ready = wait(list(open_pipes.values()), timeout=_TELL_SECONDS)
            for index, pipe in list(open_pipes.items()):
                if pipe in ready and not self._hear(index, pipe):
                    del open_pipes[index]
            self._progress.show(sum(self._tallies, Tally()))

    def _hear(self, index: int, pipe: Connection) -> bool:
        try:
            what, content = pipe.recv()
        except (EOFError, OSError):
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
        for process in self._processes:
            process.join(5.0)
            if process.is_alive():
                process.kill()


def _work(share: Share, pipe: Connection) -> None:
    """A worker process, from start to end."""
    # The parent gets Ctrl-C too, and passes it on.
    Interrupt.ignore()
    try:
        run_measuring(_serve(share, pipe), share.target)
    except (NotReadyError, UsageError) as error:
        pipe.send(("failed", error))
    except Exception as error:  # reported by the parent as what it is: a fault in this program
        pipe.send(("failed", RuntimeError(f"client worker: {type(error).__name__}: {error}")))
        raise


async def _serve(share: Share, pipe: Connection) -> None:
    run = ShareRun(share)
    loop = asyncio.get_running_loop()
    started: asyncio.Future[float] = loop.create_future()

    def hear() -> None:
        try:
            what, content = pipe.recv()
        except EOFError:  # the parent died
            loop.remove_reader(pipe.fileno())
            what, content = "stop", None
        if what == "start":
            started.set_result(content)
        elif started.done():
            run.stop()
        else:
            started.cancel()

    loop.add_reader(pipe.fileno(), hear)
    telling: asyncio.Task[None] | None = None
    try:
        await run.open(lambda text: pipe.send(("say", text)))
        pipe.send(("ready", None))
        start_at = await started
        telling = asyncio.create_task(_tell_parent(run, pipe))
        result = await run.run(start_at)
        telling.cancel()
        pipe.send(("tally", run.tally()))
        pipe.send(("result", result))
    finally:
        if telling is not None:
            telling.cancel()
        loop.remove_reader(pipe.fileno())
        await run.close()


async def _tell_parent(run: ShareRun, pipe: Connection) -> None:
    while True:
        await asyncio.sleep(_TELL_SECONDS)
        pipe.send(("tally", run.tally()))


def lost_share(share: Share) -> ShareResult:
    """What is left of a worker that died: that its requests were asked for."""
    indices = [index for row in share.indices for index in row]
    exchanges = [Exchange(scheduled=0.0, ended=0.0, status=LOST) for _ in indices]
    answers = [Answer(()) for _ in indices]
    nothing = WorkerHealth(0.0, 0.0, 0.0, 0.0, 0.0)
    return ShareResult(indices, exchanges, answers, 0.0, False, nothing, lost=True)

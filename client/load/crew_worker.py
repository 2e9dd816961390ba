"""A worker process: one share, told by its parent when to start and to stop."""

import asyncio
import os
from multiprocessing.connection import Connection

from client.errors import NotReadyError, UsageError
from client.load.event_loop import run_measuring
from client.load.share import Share
from client.load.share_run import ShareRun

_TELL_SECONDS = 0.5
_PARENT_GONE = (BrokenPipeError, ConnectionResetError)


def work(share: Share, pipe: Connection) -> None:
    """From start to end. It ends by itself when the parent closes its end of the pipe, or dies."""
    try:
        run_measuring(_serve(share, pipe), share.target)
    except asyncio.CancelledError:
        return  # not wanted any more
    except _PARENT_GONE:
        return
    except (NotReadyError, UsageError) as error:
        _send_last(pipe, error)
    except Exception as error:  # reported by the parent as what it is: a fault in this program
        _send_last(pipe, RuntimeError(f"client worker: {type(error).__name__}: {error}"))
        raise


def _send_last(pipe: Connection, error: Exception) -> None:
    try:
        pipe.send(("failed", error))
    except _PARENT_GONE:
        return


async def _serve(share: Share, pipe: Connection) -> None:
    run, loop = ShareRun(share), asyncio.get_running_loop()
    started: asyncio.Future[float] = loop.create_future()
    serving = asyncio.current_task()
    assert serving is not None

    def hear() -> None:
        try:
            what, content = pipe.recv()
        except (EOFError, OSError):  # the parent gave up, or died
            loop.remove_reader(pipe.fileno())
            what, content = "stop", None
        if what == "start":
            started.set_result(content)
        elif started.done():
            run.stop()
        else:
            serving.cancel()

    loop.add_reader(pipe.fileno(), hear)
    telling: asyncio.Task[None] | None = None
    try:
        await run.open(lambda text: pipe.send(("say", text)))
        pipe.send(("ready", None))
        start_at = await started
        telling = asyncio.create_task(_tell_parent(run, pipe))
        result = await run.run(start_at)
        telling.cancel()
        tally = run.tally()
        loop.remove_reader(pipe.fileno())
        # The loop reads without blocking; a long result is written with it.
        os.set_blocking(pipe.fileno(), True)
        pipe.send(("tally", tally))
        pipe.send(("result", result))
    finally:
        if telling is not None:
            telling.cancel()
        loop.remove_reader(pipe.fileno())
        await run.close()


async def _tell_parent(run: ShareRun, pipe: Connection) -> None:
    while True:
        await asyncio.sleep(_TELL_SECONDS)
        try:
            pipe.send(("tally", run.tally()))
        except _PARENT_GONE:
            return

"""Runs shares on the machines of a Ray cluster, one actor each."""

import socket
import time
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from client.errors import NotReadyError, UsageError
from client.load.crew import Say, lost_share
from client.load.files import allow_many_files
from client.load.interrupt import Interrupt
from client.load.progress import Progress
from client.load.share import Share, ShareResult, Tally
from client.load.share_run import ShareRun

_KNOCK_SECONDS = 5.0
_JOIN_SECONDS = 60.0  # to reach the cluster and bring the actors up
_HEAD_START_SECONDS = 1.0  # from the word to all actors until the clock starts
_POLL_SECONDS = 0.5
_READ_SECONDS = 300.0


class Worker:
    """One share in an actor; Ray runs these coroutines on the actor's own event loop."""

    def __init__(self, share: Share) -> None:
        allow_many_files()
        self._run = ShareRun(share)
        self._said: list[str] = []

    async def open(self) -> None:
        """Connects; see `ShareRun.open`."""
        await self._run.open(self._said.append)

    async def run(self, start_at: float) -> ShareResult:
        """Measures from a time of day on."""
        return await self._run.run(start_at)

    async def tally(self) -> Tally:
        """How far it is."""
        return self._run.tally()

    async def stop(self) -> None:
        """Ends the run soon."""
        self._run.stop()

    async def close(self) -> None:
        """Lets go of the connections."""
        await self._run.close()


def run_on_ray(
    shares: Sequence[Share], address: str, progress: Progress, say: Say
) -> list[ShareResult]:
    """As `run_shares`, on the cluster at `address` ("auto": the one started on this machine).

    The actors start together by their machines' times of day; what they measure is by one clock
    each. Raises `UsageError` without ray or a cluster, `NotReadyError` without a ready server.
    """
    try:
        ray = import_module("ray")
    except ImportError:
        raise UsageError("--ray needs the ray extra: pip install 'loadstone[ray]'") from None
    try:
        _knock(address)
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"--ray {address}: no cluster there ({error}); start one with `ray start --head`"
        ) from error
    try:
        return _run(ray, shares, progress, say)
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raises OSError where nobody listens: Ray itself tries for more than a minute."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), _KNOCK_SECONDS).close()


def _run(ray: Any, shares: Sequence[Share], progress: Progress, say: Say) -> list[ShareResult]:
    # A core each, spread over the machines.
    actor = ray.remote(num_cpus=1, scheduling_strategy="SPREAD", max_concurrency=8)(Worker)
    say(f"{len(shares)} workers on Ray")
    workers = [actor.remote(share) for share in shares]
    limit = _JOIN_SECONDS + max(share.target.connect_timeout for share in shares)
    try:
        ray.get([worker.open.remote() for worker in workers], timeout=limit)
    except ray.exceptions.GetTimeoutError:
        raise NotReadyError(
            f"{len(workers)} workers on Ray were not ready within {limit:g} s: has the cluster a "
            "core for each, and does each of its machines reach the server?"
        ) from None
    except ray.exceptions.RayTaskError as error:
        raise NotReadyError(str(error.cause)) from error
    start_at = time.time() + _HEAD_START_SECONDS
    running = [worker.run.remote(start_at) for worker in workers]
    with Interrupt() as interrupt:
        _wait(ray, workers, running, interrupt, progress, max(share.seconds for share in shares))
    results = [_result(ray, one, share) for one, share in zip(running, shares, strict=True)]
    ray.wait([worker.close.remote() for worker in workers], timeout=_POLL_SECONDS)
    return results


def _wait(
    ray: Any,
    workers: Sequence[Any],
    running: Sequence[Any],
    interrupt: Interrupt,
    progress: Progress,
    seconds: float,
) -> None:
    end = time.monotonic() + seconds + _READ_SECONDS
    told = False
    pending = list(running)
    while pending and time.monotonic() < end:
        if interrupt.is_set and not told:
            told = True
            for worker in workers:
                worker.stop.remote()
        _, pending = ray.wait(pending, num_returns=len(pending), timeout=_POLL_SECONDS)
        tallies, _ = ray.wait(
            [worker.tally.remote() for worker in workers],
            num_returns=len(workers), timeout=_POLL_SECONDS,
        )  # fmt: skip
        progress.show(sum((_tally(ray, each) for each in tallies), Tally()))


def _tally(ray: Any, found: Any) -> Tally:
    try:
        return ray.get(found)
    except ray.exceptions.RayError:
        return Tally()


def _result(ray: Any, found: Any, share: Share) -> ShareResult:
    try:
        return ray.get(found, timeout=_POLL_SECONDS)
    except ray.exceptions.RayTaskError as error:
        raise RuntimeError(f"client worker: {error.cause}") from error
    except ray.exceptions.RayError:
        return lost_share(share)

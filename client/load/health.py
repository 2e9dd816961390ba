"""How well a worker itself kept up."""

import asyncio
import resource
import time
from dataclasses import dataclass

import numpy as np

_PERIOD_SECONDS = 0.02
LATE_MS = 20.0


@dataclass(frozen=True)
class WorkerHealth:
    """One worker, over the time it measured.

    `cpu_seconds` of processor time in `seconds`; how late its event loop ran a timer, in ms, and
    how often it was later than LATE_MS and for how many seconds in all.
    """

    seconds: float
    cpu_seconds: float
    loop_lag_p50_ms: float
    loop_lag_p99_ms: float
    loop_lag_max_ms: float
    late_turns: int = 0
    late_seconds: float = 0.0
    requests: int = 0
    tokens: int = 0
    host: str = ""

    @property
    def cpu_share(self) -> float:
        """Processor seconds per second; Python runs on one core at a time."""
        return self.cpu_seconds / self.seconds if self.seconds > 0 else 0.0


class LoopWatch:
    """Measures, as long as it runs, how late the event loop is, and the processor time it took.

    `whose`: RUSAGE_SELF, or RUSAGE_THREAD where something else works in this process.
    """

    def __init__(self, whose: int = resource.RUSAGE_SELF) -> None:
        self._whose = whose
        self._lags: list[float] = []
        self._started = time.perf_counter()
        self._cpu = processor_seconds(whose)
        self._task = asyncio.create_task(self._watch())

    def stop(self, requests: int, tokens: int, host: str) -> WorkerHealth:
        """Ends the watch."""
        self._task.cancel()
        lags = np.array(self._lags or [0.0]) * 1e3
        return WorkerHealth(
            seconds=time.perf_counter() - self._started,
            cpu_seconds=processor_seconds(self._whose) - self._cpu,
            loop_lag_p50_ms=float(np.percentile(lags, 50)),
            loop_lag_p99_ms=float(np.percentile(lags, 99)),
            loop_lag_max_ms=float(lags.max()),
            late_turns=int((lags > LATE_MS).sum()),
            late_seconds=float(lags[lags > LATE_MS].sum()) / 1e3,
            requests=requests,
            tokens=tokens,
            host=host,
        )

    async def _watch(self) -> None:
        while True:
            due = time.perf_counter() + _PERIOD_SECONDS
            await asyncio.sleep(_PERIOD_SECONDS)
            self._lags.append(max(0.0, time.perf_counter() - due))


def processor_seconds(whose: int) -> float:
    """Processor time so far, user and system, of this process or of this thread."""
    used = resource.getrusage(whose)
    return used.ru_utime + used.ru_stime

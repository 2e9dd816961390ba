"""Whether a run says something about the server, or about the client that measured it.

A run is INVALID when one of these holds:

- a client worker died, or a request failed for want of files or ports on the client
- a worker used 0.9 or more of a core: messages wait for it (Python runs on one core at a time)
- a worker's event loop ran late: at p99 by 20 ms or more and by over a tenth of the median TTFT,
  and more than 5 times (any machine has hiccups); or it stood still for 0.5 s or more in all and
  for over a hundredth of the run, so that p99 is the client's own
- requests that have times of their own went out late: at p99 (with fewer than 100 requests: at the
  median, as one of them alone would make the tail) by 20 ms or more and by over a tenth of the
  median TTFT. Not under --max-concurrency, which holds requests back
- of 100 requests or more at one rate, the rate reached is over 1% off
"""

from collections.abc import Mapping, Sequence
from typing import Any

from client.load.health import LATE_MS, WorkerHealth

BUSY = 0.9  # of a core
_PART = 0.1  # of the median TTFT
_RATE = 0.01
_FEWEST = 100  # requests
_HICCUPS = 5  # late turns
_STILL_SECONDS, _STILL_SHARE = 0.5, 0.01


def reasons_against(
    figures: Mapping[str, Any],
    workers: Sequence[WorkerHealth],
    *,
    rate: float | None = None,
    timed: bool = False,
    lost: int = 0,
    own_failures: int = 0,
) -> list[str]:
    """Why a run is INVALID; nothing when it is VALID.

    `rate` is what was asked for, None where nothing was. `timed`: requests had times of their own,
    and nothing on the client's side but the client held them back. `lost` workers died;
    `own_failures` requests failed for want of files or ports here.
    """
    found = []
    if lost:
        found.append("a client worker died" if lost == 1 else f"{lost} client workers died")
    if own_failures:
        requests = "a request" if own_failures == 1 else f"{own_failures} requests"
        found.append(f"{requests} failed for want of files or ports on the client")
    found += _against_workers(workers, figures.get("median_ttft_ms"))
    if timed:
        found += _late_sends(figures)
    if rate is not None:
        found += _rate_missed(figures, rate)
    return found


def _against_workers(workers: Sequence[WorkerHealth], first: float | None) -> list[str]:
    found = []
    busiest = max((worker.cpu_share for worker in workers), default=0.0)
    if busiest >= BUSY:
        found.append(
            f"a client worker used {busiest:.2f} of its core: more --workers, or a lower rate"
        )
    lag = max((each.loop_lag_p99_ms for each in workers if each.late_turns > _HICCUPS), default=0.0)
    if _matters(lag, first):
        found.append(f"the client read late: its event loop lagged by {lag:.0f} ms at p99")
    stood = max(workers, key=lambda worker: worker.late_seconds, default=None)
    if stood is not None and stood.late_seconds >= max(
        _STILL_SECONDS, _STILL_SHARE * stood.seconds
    ):
        found.append(
            f"the client stood still for {stood.late_seconds:.1f} of {stood.seconds:.1f} s"
        )
    return found


def _late_sends(figures: Mapping[str, Any]) -> list[str]:
    tail = "p99" if _many(figures) else "median"
    lag = figures.get(f"{tail}_send_lag_ms")
    if not _matters(lag, figures.get("median_ttft_ms")):
        return []
    return [f"requests were sent late: {lag:.0f} ms at {tail}"]


def _rate_missed(figures: Mapping[str, Any], rate: float) -> list[str]:
    reached = figures.get("sent_request_rate")
    if reached is None or figures.get("not_sent") or not _many(figures):
        return []
    if abs(reached / rate - 1) <= _RATE:
        return []
    return [f"{reached:.2f} requests/s were sent where {rate:g} were asked for"]


def _many(figures: Mapping[str, Any]) -> bool:
    return (figures.get("num_prompts") or 0) >= _FEWEST


def _matters(milliseconds: float | None, measured: float | None) -> bool:
    if milliseconds is None or milliseconds < LATE_MS:
        return False
    return measured is None or milliseconds > _PART * measured


def health_figures(workers: Sequence[WorkerHealth]) -> dict[str, Any]:
    """What a record says of its client."""
    if not workers:
        return {}
    tokens = [worker.tokens for worker in workers]
    return {
        "workers": len(workers),
        "cpu_share": max(worker.cpu_share for worker in workers),
        "cpu_seconds": sum(worker.cpu_seconds for worker in workers),
        "loop_lag_p50_ms": max(worker.loop_lag_p50_ms for worker in workers),
        "loop_lag_p99_ms": max(worker.loop_lag_p99_ms for worker in workers),
        "loop_lag_max_ms": max(worker.loop_lag_max_ms for worker in workers),
        "late_seconds": max(worker.late_seconds for worker in workers),
        # Of the worker with the fewest tokens to the one with the most.
        "balance": min(tokens) / max(tokens) if max(tokens) else None,
        "requests_of_workers": [worker.requests for worker in workers],
        "hosts": sorted({worker.host for worker in workers if worker.host}),
    }

"""Whether a run says something about the server, or about the client that measured it."""

from collections.abc import Mapping, Sequence
from typing import Any

from client.load.health import LATE_MS, WorkerHealth

# Of one core; above it messages wait for the client (Python runs on one core at a time).
BUSY = 0.9
# The client's own delays matter where they are long and a good part of what is measured.
_PART = 0.1
# A rate reached to within this is the rate that was asked for.
_RATE = 0.01
_FEWEST = 100  # requests; with fewer one of them alone makes the tail
_HICCUPS = 5  # late turns of an event loop that any machine may have


def reasons_against(
    figures: Mapping[str, Any],
    workers: Sequence[WorkerHealth],
    rate: float | None,
    lost: int,
    own_failures: int,
) -> list[str]:
    """Why a run is INVALID; nothing when it is VALID.

    `rate` is what was asked for, None where nothing was. `lost` workers died; `own_failures`
    requests failed for want of files or ports here.
    """
    busiest = max((worker.cpu_share for worker in workers), default=0.0)
    lag = max((each.loop_lag_p99_ms for each in workers if each.late_turns > _HICCUPS), default=0.0)
    first = figures.get("median_ttft_ms")
    found = []
    if lost:
        found.append(f"{lost} client workers died")
    if own_failures:
        found.append(f"{own_failures} requests failed for want of files or ports on the client")
    if busiest >= BUSY:
        found.append(
            f"a client worker used {busiest:.2f} of its core: more --workers, or a lower rate"
        )
    if _matters(lag, first):
        found.append(f"the client read late: its event loop lagged by {lag:.0f} ms at p99")
    count = figures.get("num_prompts") or 0
    tail = "p99" if count >= _FEWEST else "median"
    sent = figures.get(f"{tail}_send_lag_ms")
    if rate is not None and _matters(sent, first):
        found.append(f"requests were sent late: {sent:.0f} ms at {tail}")
    reached = figures.get("sent_request_rate")
    if rate is not None and reached is not None and count >= _FEWEST and not figures["not_sent"]:
        off = reached / rate - 1
        if abs(off) > _RATE:
            found.append(f"{reached:.2f} requests/s were sent where {rate:g} were asked for")
    return found


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
        # Of the worker with the fewest tokens to the one with the most.
        "balance": min(tokens) / max(tokens) if max(tokens) else None,
        "requests_of_workers": [worker.requests for worker in workers],
        "hosts": sorted({worker.host for worker in workers if worker.host}),
    }

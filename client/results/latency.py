"""Latencies of one request, and how a set of them is spread."""

from collections.abc import Iterable, Sequence

import numpy as np

from client.results.records import Record

PERCENTILES: tuple[float, ...] = (50, 90, 99)


def ttft(record: Record, since: float) -> float:
    """Seconds from `since` to the message that brought the first token."""
    return float(record.arrivals.times[0]) - since


def e2el(record: Record, since: float) -> float:
    """Seconds from `since` to the message that brought the last token."""
    return float(record.arrivals.times[-1]) - since


def tpot(record: Record) -> float | None:
    """Seconds per token after the first one; None for fewer than two tokens."""
    count = record.tokens
    if count < 2:
        return None
    times = record.arrivals.times
    return float(times[-1] - times[0]) / (count - 1)


def ttst(record: Record, since: float) -> float | None:
    """Seconds from `since` to the second token; None for fewer than two tokens."""
    times = record.token_times
    return float(times[1] - since) if len(times) > 1 else None


def itls(record: Record) -> np.ndarray:
    """See `Record.gaps`."""
    return record.gaps


def token_times(records: Iterable[Record]) -> np.ndarray:
    """When each token arrived, seconds from the start of the run, in order of the records."""
    return np.concatenate([np.zeros(0), *(record.token_times for record in records)])


def sent_at(record: Record) -> float:
    """When a request that completed was sent, seconds from the start of the run."""
    assert record.sent is not None, "a request that completed was sent"
    return record.sent


def due_at(record: Record) -> float:
    """When a request that was sent was due, seconds from the start of the run."""
    assert record.scheduled is not None, "a request that was sent was scheduled"
    return record.scheduled


def spread(
    name: str,
    seconds: Iterable[float | None] | np.ndarray,
    percentiles: Sequence[float] = PERCENTILES,
) -> dict[str, float | None]:
    """mean, median, std and percentiles of a latency in ms, as `mean_{name}_ms` and so on.

    None among the values are left out; without values every figure is None. Percentiles are
    linear between the closest ranks; the standard deviation is that of the values themselves.
    """
    if not isinstance(seconds, np.ndarray):
        seconds = np.array([value for value in seconds if value is not None], dtype=np.float64)
    values = np.sort(seconds) * 1e3
    figures: dict[str, float | None] = {
        f"mean_{name}_ms": float(values.mean()) if values.size else None,
        f"median_{name}_ms": float(np.median(values)) if values.size else None,
        f"std_{name}_ms": float(values.std()) if values.size else None,
    }
    for percent in percentiles:
        value = float(np.percentile(values, percent)) if values.size else None
        figures[f"{percentile_name(percent)}_{name}_ms"] = value
    return figures


def percentile_name(percent: float) -> str:
    """p99 for 99, p99.9 for 99.9."""
    return f"p{int(percent) if percent == int(percent) else percent}"

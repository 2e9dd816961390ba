"""Stalls: how evenly the tokens of a stream came."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from client.results.latency import PERCENTILES, itls, spread
from client.results.records import Record

# A gap this many times the median one is a stall.
STALL = 3.0


def stall_figures(
    done: Sequence[Record], percentiles: Sequence[float] = PERCENTILES
) -> dict[str, Any]:
    """Stalls over all gaps between tokens of completed requests.

    `max_itl_ms`: the largest gap. `stalls`: gaps over 3 times the median gap; `stall_share`: their
    share of all gaps, those of 0 inside a message too; `stall_seconds`: what they took beyond a
    median gap each. `largest_itl`: the largest gap of one request, spread over requests.
    `coalesced_share`: see `coalesced_share`.
    """
    gaps = [itls(record) for record in done]
    every = np.concatenate(gaps) if gaps else np.zeros(0)
    usual = _usual(every)
    long = every[every > STALL * usual]
    return {
        "max_itl_ms": float(every.max()) * 1e3 if every.size else None,
        "stalls": int(long.size),
        "stall_share": long.size / every.size if every.size else None,
        "stall_seconds": float((long - usual).sum()),
        "coalesced_share": coalesced_share(done),
        **spread("largest_itl", (float(each.max()) for each in gaps if each.size), percentiles),
    }


def coalesced_share(done: Sequence[Record]) -> float | None:
    """Share of the tokens after the first message that came together with another of their stream.

    Together: in one message, or in messages read at the same time. Such tokens say nothing of when
    the server made them. None where no stream has a second message.
    """
    if not done:
        return None
    times = np.concatenate([record.arrivals.times for record in done])
    counts = np.concatenate([record.arrivals.counts for record in done])
    later = np.ones(len(times) + 1, bool)  # not the first message of a stream
    later[np.cumsum([0, *(len(record.arrivals) for record in done)])] = False
    same = np.zeros(len(times) + 1, bool)  # at the time of the message before
    same[1:-1] = (times[1:] == times[:-1]) & later[1:-1]
    shared = (counts > 1) | same[:-1] | same[1:]
    tokens = int(counts[later[:-1]].sum())
    return int(counts[later[:-1] & shared].sum()) / tokens if tokens else None


def _usual(gaps: np.ndarray) -> float:
    """The median gap in seconds; the median of those above 0 where most tokens share a message."""
    if not gaps.any():
        return 0.0
    return float(np.median(gaps)) or float(np.median(gaps[gaps > 0]))

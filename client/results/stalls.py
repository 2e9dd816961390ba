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
    together = tokens = 0
    for record in done:
        if len(record.arrivals) < 2:
            continue
        times, counts = record.arrivals.times, record.arrivals.counts
        same = np.diff(times) == 0  # as the message before
        shared = (counts[1:] > 1) | same | np.append(same[1:], False)
        tokens += int(counts[1:].sum())
        together += int(counts[1:][shared].sum())
    return together / tokens if tokens else None


def _usual(gaps: np.ndarray) -> float:
    """The median gap in seconds; the median of those above 0 where most tokens share a message."""
    if not gaps.any():
        return 0.0
    return float(np.median(gaps)) or float(np.median(gaps[gaps > 0]))

"""Throughput and load over the time of a run."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from client.results.page.chart import Chart, axis, line_style, numbers, plain
from client.results.page.requests import Requests
from client.results.page.sources import RunSource

_MOST_BINS = 100
_STEPS = (1.0, 2.0, 5.0)


@dataclass(frozen=True)
class Series:
    """A run in bins of `width` seconds: [B] starts, tokens/s, and the most requests in flight."""

    starts: np.ndarray
    width: float
    tokens_per_s: np.ndarray
    in_flight: np.ndarray


def over_time(runs: Sequence[RunSource]) -> Chart | None:
    """Tokens a second and requests in flight; None where no run has rows."""
    traces = []
    widths = set()
    for place, run in enumerate(runs):
        if run.requests is None or not len(run.requests):
            continue
        series = series_of(run.requests, run.figure("duration") or 0.0)
        widths.add(series.width)
        ends = numbers(np.append(series.starts, series.starts[-1] + series.width))
        for panel, values in (("y", series.tokens_per_s), ("y2", series.in_flight)):
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "name": plain(run.label),
                    "legendgroup": str(place),
                    "showlegend": panel == "y" and len(runs) > 1,
                    "x": ends,
                    "y": numbers(np.append(values, values[-1])),
                    "yaxis": panel,
                    "line": line_style(place) | {"shape": "hv"},
                    "hovertemplate": "%{x:.6~g} s: %{y:,.6~g}<extra></extra>",
                }
            )
    if not traces:
        return None
    bins = " or ".join(f"{width:g}" for width in sorted(widths))
    return Chart(
        name="over-time",
        title="Throughput over time",
        caption="Tokens of all requests as they arrived, and the most requests sent and not "
        f"ended, in steps of {bins} s.",
        traces=traces,
        layout={
            "xaxis": axis("seconds from the start", anchor="y2", rangemode="tozero"),
            "yaxis": axis("output tokens/s", domain=[0.46, 1.0], rangemode="tozero"),
            "yaxis2": axis("in flight", domain=[0.0, 0.38], rangemode="tozero"),
            "showlegend": len(runs) > 1,
        },
        height=440,
    )


def series_of(requests: Requests, duration: float) -> Series:
    """Counts tokens and open requests in bins over a run of `duration` seconds."""
    length = max(duration, requests.end(), 1e-3)
    width = bin_width(length)
    count = max(1, math.ceil(length / width - 1e-9))
    edges = np.arange(count + 1) * width
    times = requests.all_token_times()
    tokens = np.bincount(_bin_of(times, width, count), minlength=count).astype(np.float64)
    # The run may end within the last bin: its rate is over the part that was run.
    spans = np.minimum(edges[1:], length) - edges[:-1]
    return Series(edges[:-1], width, tokens / spans, _in_flight(requests, length, edges, width))


def bin_width(length: float) -> float:
    """Seconds of a bin: 1, 2 or 5 times a power of ten, so that a run has 100 bins at most."""
    least = length / _MOST_BINS
    power = 10.0 ** math.floor(math.log10(least))
    return next((power * step for step in _STEPS if power * step >= least), power * 10)


def _in_flight(requests: Requests, length: float, edges: np.ndarray, width: float) -> np.ndarray:
    """[B] the most requests open at one time in each bin; an end comes before a start."""
    was_sent = np.isfinite(requests.sent)
    starts = requests.sent[was_sent]
    ends = requests.ended[was_sent]
    ends = np.where(np.isfinite(ends), ends, length)
    times = np.concatenate([ends, starts])
    changes = np.concatenate([np.full(ends.size, -1), np.full(starts.size, 1)])
    order = np.lexsort((changes, times))
    times, opened = times[order], np.cumsum(changes[order])
    before = np.searchsorted(times, edges[:-1], side="left")
    most = np.where(before > 0, opened[before - 1], 0) if opened.size else np.zeros(len(before))
    np.maximum.at(most, _bin_of(times, width, len(before)), opened)
    return most


def _bin_of(times: np.ndarray, width: float, count: int) -> np.ndarray:
    return np.clip((times / width).astype(np.int64), 0, count - 1)

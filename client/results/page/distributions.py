"""How latencies are spread: histograms and cumulative shares, binned here, not in the browser."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from client.results.page.chart import Chart, axis, faded, line_style, numbers, plain
from client.results.page.sources import RunSource

_BINS = 60
_POINTS = 200
# A gap this many times the median one is a stall.
_STALL = 3.0
# From here on a linear axis would squeeze most values into its first bins.
_WIDE = 50.0


@dataclass(frozen=True)
class Stalls:
    """The largest gap in ms, and the share of gaps longer than `limit` ms, 3 median gaps."""

    largest: float
    share: float
    limit: float


def stalls_of(gaps: np.ndarray) -> Stalls | None:
    """Stalls among gaps in ms; None where there are no gaps, or none above 0."""
    if not gaps.size or not gaps.any():
        return None
    # Where most tokens share a message the median is 0; then the usual gap is one between messages.
    usual = float(np.median(gaps)) or float(np.median(gaps[gaps > 0]))
    limit = _STALL * usual
    return Stalls(float(gaps.max()), float((gaps > limit).mean()), limit)


def ttft_charts(runs: Sequence[RunSource]) -> list[Chart]:
    """Time to first token of completed requests."""
    found = [
        (place, run.label, run.requests.ttfts()) for place, run in enumerate(runs) if run.requests
    ]
    return _pair("ttft", "Time to first token", "completed requests", found, _is_wide(found))


def itl_charts(runs: Sequence[RunSource]) -> list[Chart]:
    """Time between tokens, on a log axis: stalls are rare and many times longer than the rest."""
    found = []
    for place, run in enumerate(runs):
        if run.requests:
            gaps = run.requests.gaps()
            found.append((place, run.label, np.concatenate(gaps) if gaps else np.array([])))
    return _pair("itl", "Inter-token latency", "gaps between tokens", found, True)


def histogram(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """[B] percent of all values in each bin; values outside the edges count in the total only."""
    counts, _ = np.histogram(values, edges)
    return counts / max(values.size, 1) * 100


def cumulative(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values at even shares of the whole, and these shares in percent."""
    shares = np.linspace(0, 100, min(_POINTS, values.size) + 1)
    return np.percentile(values, shares), shares


def _pair(
    name: str,
    title: str,
    of_what: str,
    found: list[tuple[int, str, np.ndarray]],
    log: bool,
) -> list[Chart]:
    shown = [
        (place, label, values[values > 0] if log else values) for place, label, values in found
    ]
    shown = [each for each in shown if each[2].size]
    if not shown:
        return []
    edges = _edges([values for _, _, values in shown], log)
    totals = {place: max(values.size, 1) for place, _, values in found}
    scale = axis("ms (log scale)" if log else "ms", **_scale(log))
    caption = f"Percent of {of_what}."
    return [
        Chart(
            name=f"{name}-histogram",
            title=f"{title}, histogram",
            caption=caption + _zeros(found, log),
            traces=[
                _steps(place, label, edges, histogram(values, edges) * values.size / totals[place])
                for place, label, values in shown
            ],
            layout={"xaxis": scale, "yaxis": axis("percent", rangemode="tozero")},
            wide=False,
        ),
        Chart(
            name=f"{name}-cumulative",
            title=f"{title}, cumulative",
            caption=f"Percent of {of_what} that took no longer.",
            traces=[_curve(place, label, values, log) for place, label, values in found
                    if values.size],
            layout={"xaxis": scale, "yaxis": axis("percent", range=[0, 101])},
            wide=False,
        ),
    ]  # fmt: skip


def _is_wide(found: Sequence[tuple[int, str, np.ndarray]]) -> bool:
    values = [each for _, _, each in found if each.size]
    if not values or min(each.min() for each in values) <= 0:
        return False
    pooled = np.concatenate(values)
    return bool(pooled.max() > _WIDE * np.median(pooled))


def _edges(values: Sequence[np.ndarray], log: bool) -> np.ndarray:
    low = min(float(each.min()) for each in values)
    high = max(float(each.max()) for each in values)
    if log:
        return np.geomspace(low * 0.999, max(high, low) * 1.001, _BINS + 1)
    return np.linspace(0.0, high * 1.001 or 1.0, _BINS + 1)


def _scale(log: bool) -> dict[str, Any]:
    return {"type": "log", "dtick": 1, "exponentformat": "none"} if log else {"rangemode": "tozero"}


def _zeros(found: Sequence[tuple[int, str, np.ndarray]], log: bool) -> str:
    everything = np.concatenate([values for _, _, values in found])
    share = float((everything <= 0).mean()) * 100
    if not log or not share:
        return ""
    return f" {share:.3g}% are 0 (tokens of one message) and have no place on this axis."


def _steps(place: int, label: str, edges: np.ndarray, percent: np.ndarray) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": plain(label),
        "x": numbers(edges),
        "y": numbers(np.append(percent, 0.0)),
        "line": line_style(place) | {"shape": "hv", "width": 1.5},
        "fill": "tozeroy",
        "fillcolor": faded(line_style(place)["color"], 0.2),
        "hovertemplate": "from %{x:,.4~g} ms: %{y:.3~g}%<extra></extra>",
    }


def _curve(place: int, label: str, values: np.ndarray, log: bool) -> dict[str, Any]:
    times, percent = cumulative(values)
    kept = times > 0 if log else np.ones_like(times, dtype=bool)
    return {
        "type": "scatter",
        "mode": "lines",
        "name": plain(label),
        "x": numbers(times[kept]),
        "y": numbers(percent[kept]),
        "line": line_style(place),
        "hovertemplate": "%{y:.4~g}% within %{x:,.5~g} ms<extra></extra>",
    }

"""One bar a request: when it was due, sent, answered and over."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from client.results.page.chart import (
    BLUE,
    GREY,
    PURPLE,
    SKY,
    VERMILLION,
    Chart,
    axis,
    numbers,
    plain,
)
from client.results.page.requests import COMPLETED, Requests
from client.results.page.sources import RunSource

MOST_BARS = 2000
_SEED = 0
_LEAST_HEIGHT, _MOST_HEIGHT, _BAR = 220, 720, 9


def timelines(runs: Sequence[RunSource]) -> list[Chart]:
    """A timeline for each run that has rows; together they draw `MOST_BARS` bars at most."""
    with_rows = [(place, run) for place, run in enumerate(runs) if run.requests is not None]
    most = MOST_BARS // max(len(with_rows), 1)
    charts = (_timeline(place, run, run.requests, most) for place, run in with_rows if run.requests)
    return [chart for chart in charts if chart is not None]


def sample(count: int, most: int) -> np.ndarray:
    """Places of the requests to draw, in order: all, or `most` of them picked with a fixed seed."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(_SEED).choice(count, most, replace=False))


def _timeline(place: int, run: RunSource, requests: Requests, most: int) -> Chart | None:
    sent = np.flatnonzero(np.isfinite(requests.sent))
    if not sent.size:
        return None
    chosen = sent[sample(sent.size, most)]
    caption = "One bar a request, in order of the schedule, from when it was due to its end."
    if chosen.size < sent.size:
        caption += (
            f" {chosen.size:,} of the {sent.size:,} requests that were sent, picked at random "
            f"(seed {_SEED})."
        )
    end = max(run.figure("duration") or 0.0, requests.end())
    bars = max(_LEAST_HEIGHT, min(_MOST_HEIGHT, 110 + _BAR * chosen.size))
    return Chart(
        name=f"timeline-{place}",
        title=f"Requests over time: {run.label}",
        caption=caption,
        traces=_traces(requests, chosen, end),
        layout={
            "barmode": "overlay",
            "xaxis": axis("seconds from the start", rangemode="tozero"),
            # The first request on top.
            "yaxis": axis("request", autorange="reversed", showgrid=False),
        },
        height=bars,
    )


def _traces(requests: Requests, chosen: np.ndarray, end: float) -> list[dict[str, Any]]:
    sent, first = requests.sent[chosen], requests.first[chosen]
    ended = np.where(np.isfinite(requests.ended[chosen]), requests.ended[chosen], end)
    scheduled = np.where(np.isfinite(requests.scheduled[chosen]), requests.scheduled[chosen], sent)
    outcomes = np.array([requests.outcomes[index] for index in chosen])
    done, failed = outcomes == COMPLETED, outcomes == "failed"
    answered = np.isfinite(first)
    hover = [_hover(requests, index) for index in chosen]
    until_first = np.where(answered, first, ended)
    parts = (
        ("due, not sent yet", GREY, scheduled, sent, sent > scheduled),
        ("sent, no token yet", SKY, sent, until_first, done),
        ("tokens arrive", BLUE, first, ended, done & answered),
        ("failed", VERMILLION, sent, ended, failed),
        ("unfinished", PURPLE, sent, ended, ~done & ~failed),
    )
    # Given, or Plotly would make bars as wide as the least distance within their own kind.
    width = 0.85 if chosen.size < 150 else 1.0
    return [
        _bars(name, colour, width, np.flatnonzero(where), chosen, start, stop, hover)
        for name, colour, start, stop, where in parts
        if where.any()
    ]


def _bars(
    name: str,
    colour: str,
    width: float,
    where: np.ndarray,
    chosen: np.ndarray,
    start: np.ndarray,
    stop: np.ndarray,
    hover: Sequence[str],
) -> dict[str, Any]:
    return {
        "type": "bar",
        "orientation": "h",
        "name": name,
        "y": chosen[where].tolist(),
        "width": width,
        "base": numbers(start[where]),
        "x": numbers(np.maximum(stop[where] - start[where], 0.0)),
        "marker": {"color": colour, "line": {"width": 0}},
        "text": [hover[index] for index in where],
        "textposition": "none",
        "hovertemplate": "%{text}<extra>" + name + "</extra>",
    }


def _hover(requests: Requests, index: int) -> str:
    lines = [f"request {index}: {plain(requests.ids[index], 40)}"]
    marks = (
        ("due", requests.scheduled),
        ("sent", requests.sent),
        ("first token", requests.first),
        ("end", requests.ended),
    )
    lines += [f"{name} {times[index]:.3f} s" for name, times in marks if np.isfinite(times[index])]
    lines.append(f"{requests.token_times[index].size} tokens, {plain(requests.outcomes[index])}")
    if requests.causes[index]:
        lines.append(plain(requests.causes[index]))
    return "<br>".join(lines)

"""Charts of simulated fleets."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from capacity.pages.document import Banner, list_of, section, tables_of, text_of, write_page
from capacity.simulation.fleet import Fleet
from capacity.simulation.outcome import LATENCIES, Outcome
from capacity.simulation.target import Target
from capacity.tables.markdown import number
from capacity.work.setting import Setting
from client.results.page.chart import (
    BLUE,
    GREEN,
    GREY,
    PURPLE,
    VERMILLION,
    Chart,
    axis,
    line_style,
    numbers,
)
from client.results.page.headline import Card
from client.results.page.page import Section

DEFINITIONS = (
    ("TTFT", "from the arrival of a request at the router to its first token."),
    ("TPOT", "from its first to its last token, over the tokens after the first."),
    ("Queue wait", "from its arrival to its slot."),
    ("End to end", "from its arrival to its last token."),
    ("Utilisation", "share of the time in which the devices of the fleet worked."),
    ("Slots in use", "of all slots, those whose sequence was decoded, over all of the time."),
    ("Good", "share of the requests that kept every limit of the service level; a refused one "
     "did not."),
    ("$/Mtok, J/Mtok", "chips alone, at list price and datasheet power, over output tokens."),
)  # fmt: skip
_NAMES = {"ttft": "TTFT", "tpot": "TPOT", "queue": "queue wait", "e2el": "end to end"}
_LINES = (
    ("ttft", 50, BLUE, "solid"),
    ("ttft", 99, BLUE, "dash"),
    ("tpot", 50, GREEN, "solid"),
    ("tpot", 99, GREEN, "dash"),
    ("queue", 99, PURPLE, "dot"),
)
_MOST = 4  # distributions
_POINTS = 200  # of a distribution


def write_simulated(
    path: Path,
    setting: Setting,
    outcomes: Sequence[tuple[Fleet, Outcome]],
    target: Target,
    lines: Sequence[str],
    assumptions: Section,
) -> None:
    """The page of a simulation; `lines` are what was printed."""
    fleets = {fleet.replicas: outcome for fleet, outcome in outcomes}
    replicas, last = outcomes[-1][0].replicas, outcomes[-1][1]
    distributions = [
        distribution_chart(each, f"distribution-{count}", f"{count} replicas")
        for count, each in list(fleets.items())[:_MOST]
    ]
    charts = [percentiles_chart(fleets, target.needs), load_chart(fleets), *distributions]
    whole, *each = tables_of(lines, "Fleets")
    cards = [
        Card("Requests", f"{last.completed:,}", "completed"),
        Card("TTFT p99", f"{number(last.percentile('ttft', 99))} ms", f"{replicas} replicas"),
        Card("TPOT p99", f"{number(last.percentile('tpot', 99))} ms", f"{replicas} replicas"),
        Card("Output tokens/s", number(last.tokens_per_s, 4), f"{replicas} replicas"),
    ]
    write_page(
        path,
        f"{setting.model.name} on {setting.slice.name}: simulation",
        [
            section("fleets", "Fleets", charts, [replace(whole, title="Fleets")]),
            section("latencies", "Latencies, ms", [], each),
            assumptions,
        ],
        banners=[_banner(fleets, target, lines)],
        cards=cards,
        definitions=DEFINITIONS,
    )


def _banner(fleets: Mapping[int, Outcome], target: Target, lines: Sequence[str]) -> Banner:
    kept = [f"{count}" for count, each in fleets.items() if not target.missed(each)]
    remarks = (*text_of(lines), *(each for each in list_of(lines) if "missed" not in each))
    missed = tuple(
        f"{count} replicas: {each}"
        for count, outcome in fleets.items()
        for each in target.missed(outcome)
    )
    if any(each.interrupted for each in fleets.values()):
        return Banner("open", "Interrupted", "figures are of what had ended", missed, remarks)
    if not target.asks:
        return Banner("open", "Simulated", "no service level was asked for", missed, remarks)
    if kept:
        label = f"the service level with {', '.join(kept)} replicas"
        return Banner("valid", "Keeps", label, missed, remarks)
    return Banner("invalid", "Misses", "the service level", missed, remarks)


def percentiles_chart(
    fleets: Mapping[int, Outcome],
    limits: Sequence[tuple[str, float, float]] = (),
    name: str = "replicas",
    what: str = "",
) -> Chart | None:
    """Latencies against replicas; None for a single fleet. limits: (latency, share, ms)."""
    counts = sorted(fleets)
    if len(counts) < 2:
        return None
    traces = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": f"{_NAMES[latency]} p{percent}",
            "x": counts,
            "y": numbers(max(fleets[each].percentile(latency, percent), 1e-2) for each in counts),
            "line": {"color": colour, "dash": dash, "width": 2},
            "hovertemplate": "%{x} replicas: %{y:,.4~g} ms",
        }
        for latency, percent, colour, dash in _LINES
    ]
    shapes = [_level(limit, BLUE if latency == "ttft" else GREEN) for latency, _, limit in limits]
    marked = " Thin dotted lines are the limits of the service level." if limits else ""
    return Chart(
        name=name,
        title=f"Latency against replicas{what}",
        caption=f"Percentiles of the simulated requests of each fleet.{marked}",
        traces=traces,
        layout={
            "xaxis": axis("replicas", tickmode="array", tickvals=counts),
            "yaxis": axis("ms (log scale)", type="log", exponentformat="none"),
            "shapes": shapes,
        },
        height=380,
        wide=False,
    )


def distribution_chart(outcome: Outcome, name: str, what: str) -> Chart | None:
    """Which share of the requests is within how many ms; None where none has ended."""
    traces = []
    for place, latency in enumerate(LATENCIES):
        values = getattr(outcome, latency)
        values = np.sort(values[np.isfinite(values)]) * 1e3
        if not len(values):
            continue
        shares = np.linspace(0, 1, min(_POINTS, len(values)))
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": _NAMES[latency],
                "x": numbers(np.maximum(np.quantile(values, shares), 1e-2)),
                "y": numbers(shares * 100),
                "line": line_style(place),
                "hovertemplate": "%{y:.3~g}% within %{x:,.4~g} ms",
            }
        )
    if not traces:
        return None
    return Chart(
        name=name,
        title=f"Distribution: {what}",
        caption="Share of the requests within a latency. Waits of nothing are drawn at 0.01 ms.",
        traces=traces,
        layout={
            "xaxis": axis("ms (log scale)", type="log", exponentformat="none"),
            "yaxis": axis("% of requests", range=[0, 101]),
        },
        height=380,
        wide=False,
    )


def load_chart(fleets: Mapping[int, Outcome]) -> Chart | None:
    """How busy devices and slots are against replicas."""
    counts = sorted(fleets)
    if len(counts) < 2:
        return None
    series = (
        ("device busy", VERMILLION, [fleets[each].utilisation for each in counts]),
        ("slots in use", GREY, [fleets[each].occupancy for each in counts]),
    )
    traces = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": label,
            "x": counts,
            "y": numbers(100 * value for value in values),
            "line": {"color": colour, "width": 2},
            "hovertemplate": "%{x} replicas: %{y:.3~g}%",
        }
        for label, colour, values in series
    ]
    return Chart(
        name="load",
        title="Use against replicas",
        caption="A device is busy while any sequence decodes; the slots say how full its steps "
        "are.",
        traces=traces,
        layout={
            "xaxis": axis("replicas", tickmode="array", tickvals=counts),
            "yaxis": axis("%", range=[0, 105]),
        },
        height=380,
        wide=False,
    )


def _level(limit: float, colour: str) -> dict[str, object]:
    return {
        "type": "line",
        "xref": "paper",
        "yref": "y",
        "x0": 0,
        "x1": 1,
        "y0": limit,
        "y1": limit,
        "line": {"color": colour, "width": 1, "dash": "dot"},
    }

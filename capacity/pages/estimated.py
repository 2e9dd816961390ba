"""An estimate as a page."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from capacity.pages.document import Banner, section, tables_of, text_of, write_page
from capacity.planning.curve import steady_curve
from capacity.serving.lengths import Lengths
from capacity.serving.positions import mean_read
from capacity.simulation.step_model import StepModel
from client.results.page.chart import BLUE, GREEN, VERMILLION, Chart, axis, numbers
from client.results.page.page import Section

_FULLEST = 0.97  # of the most: beyond, means are of nothing that lasts


def write_estimated(
    path: Path,
    model: StepModel,
    lengths: Lengths,
    lines: Sequence[str],
    missed: Sequence[str],
    assumptions: Section,
) -> None:
    """Of one setting; `lines` are what was printed."""
    setting = model.setting
    kind, state, label = "open", "Estimated", "means by the closed form; simulate has percentiles"
    if missed:
        kind, state, label = "invalid", "Misses", "the service level"
    banner = Banner(kind, state, label, tuple(missed), text_of(lines))
    first, *others = tables_of(lines, "Estimate")
    tables = [replace(first, title="Figures"), *others]
    charts = [rate_chart(model, lengths), step_chart(model, lengths)]
    write_page(
        path,
        f"{setting.model.name} on {setting.slice.name}: estimate",
        [section("estimate", "Estimate", charts, tables), assumptions],
        banners=[banner],
    )


def rate_chart(model: StepModel, lengths: Lengths) -> Chart:
    """Mean latencies at every rate that the setting can take."""
    curve = steady_curve(model, lengths)
    lasting = curve.rate <= _FULLEST * curve.most
    series = [("TTFT", curve.ttft, BLUE)]
    series += [("TPOT", curve.tpot, GREEN)] if lengths.outputs.max() > 1 else []
    traces = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": f"{name}, mean",
            "x": numbers(curve.rate[lasting]),
            "y": numbers(values[lasting] * 1e3),
            "line": {"color": colour, "width": 2},
            "hovertemplate": "%{x:.4~g} requests/s: %{y:,.4~g} ms",
        }
        for name, values, colour in series
    ]
    return Chart(
        name="rates",
        title="Latency against rate",
        caption=f"Means for Poisson arrivals at one slice, up to {_FULLEST:.0%} of the most it "
        "can take. Prompts are read in dispatches padded as the server pads them.",
        traces=traces,
        layout={
            "xaxis": axis("requests/s", rangemode="tozero"),
            "yaxis": axis("ms (log scale)", type="log", exponentformat="none"),
        },
        height=360,
        wide=False,
    )


def step_chart(model: StepModel, lengths: Lengths) -> Chart:
    """Seconds of a decode step, and tokens/s, against the sequences in it."""
    active = np.unique(np.geomspace(1, model.setting.slots, 24).round())
    seconds = model.step(active, mean_read(model.setting, lengths, active))
    traces = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "decode step, ms",
            "x": numbers(active),
            "y": numbers(seconds * 1e3),
            "line": {"color": VERMILLION, "width": 2},
            "hovertemplate": "%{x} sequences: %{y:,.4~g} ms",
        },
        {
            "type": "scatter",
            "mode": "lines",
            "name": "tokens/s while decoding",
            "x": numbers(active),
            "y": numbers(active / seconds),
            "yaxis": "y2",
            "line": {"color": BLUE, "width": 2, "dash": "dash"},
            "hovertemplate": "%{x} sequences: %{y:,.4~g} tokens/s",
        },
    ]
    return Chart(
        name="steps",
        title="Decode step against sequences",
        caption="With the part of the cache that sequences of these lengths have a step read. All "
        "slots are computed, whether in use or not.",
        traces=traces,
        layout={
            "xaxis": axis("sequences", rangemode="tozero"),
            "yaxis": axis("ms", rangemode="tozero"),
            "yaxis2": axis(
                "tokens/s", overlaying="y", side="right", rangemode="tozero", showgrid=False
            ),
        },
        height=360,
        wide=False,
    )

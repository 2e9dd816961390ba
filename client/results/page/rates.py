"""Latency and throughput against the request rate: a curve, or several runs at their rates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from client.results.page.chart import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    VERMILLION,
    Chart,
    axis,
    numbers,
    plain,
)
from client.results.page.sources import RecordSource, RunSource
from client.results.page.values import as_list, as_mapping, finite, text
from client.results.page.verdict import INVALID, state_of

_LATENCIES = (
    ("p50_ttft_ms", "TTFT p50", BLUE, "solid"),
    ("p99_ttft_ms", "TTFT p99", BLUE, "dash"),
    ("p99_itl_ms", "ITL p99", GREEN, "dot"),
    ("p99_e2el_ms", "end to end p99", VERMILLION, "dash"),
)
# From here on the smaller latencies would lie on the axis.
_WIDE = 20.0


@dataclass(frozen=True)
class RatePoint:
    """A rate in requests/s with what came out. `good`: it met the service level, where known."""

    rate: float
    figures: Mapping[str, Any]
    good: bool | None
    verdict: str
    record: str = ""


@dataclass(frozen=True)
class RateCurve:
    """Points in order of their rate; `knee` and `highest` are rates, None where not known."""

    label: str
    points: tuple[RatePoint, ...]
    service_level: Mapping[str, Any]
    knee: float | None = None
    highest: float | None = None


def curve_of(source: RecordSource) -> RateCurve:
    """A curve from its record; points without a rate are left out."""
    record = source.record
    points = (_point(as_mapping(point)) for point in as_list(record.get("points")))
    return RateCurve(
        label=source.label,
        points=_sorted(point for point in points if point is not None),
        service_level=as_mapping(record.get("service_level")),
        knee=finite(record.get("knee")),
        highest=finite(record.get("highest_rate")),
    )


def curves_of_runs(runs: Sequence[RunSource]) -> list[RateCurve]:
    """Runs of one model at two rates or more make a curve."""
    by_model: dict[str, list[RatePoint]] = {}
    for run in runs:
        rate = finite(run.record.get("request_rate"))
        if rate:
            point = RatePoint(rate, run.record, None, state_of(run.record), run.path.name)
            by_model.setdefault(text(run.record.get("model_id"))[:60], []).append(point)
    return [
        RateCurve(f"{model}, runs on this page", _sorted(points), {})
        for model, points in by_model.items()
        if len({point.rate for point in points}) > 1
    ]


def rate_charts(place: int, curve: RateCurve) -> list[Chart]:
    """Latency and throughput against the rate; nothing for a curve without figures."""
    charts = [_latency_chart(place, curve), _throughput_chart(place, curve)]
    return [chart for chart in charts if chart is not None]


def _latency_chart(place: int, curve: RateCurve) -> Chart | None:
    traces = [
        _line(curve, key, label, {"color": colour, "dash": dash, "width": 2})
        for key, label, colour, dash in _LATENCIES
        if any(finite(point.figures.get(key)) is not None for point in curve.points)
    ]
    if not traces:
        return None
    values = [value for trace in traces for value in trace["y"] if value is not None]
    log = min(values) > 0 and max(values) > _WIDE * min(values)
    scale = {"type": "log", "exponentformat": "none"} if log else {"rangemode": "tozero"}
    return Chart(
        name=f"rate-latency-{place}",
        title=f"Latency against rate: {curve.label}",
        caption=_caption(curve),
        traces=traces,
        layout={
            "xaxis": axis("requests/s", rangemode="tozero"),
            "yaxis": axis("ms (log scale)" if log else "ms", **scale),
            **_marks(curve, "top", finite(curve.service_level.get("ttft"))),
        },
        height=380,
        wide=False,
    )


def _throughput_chart(place: int, curve: RateCurve) -> Chart | None:
    if all(finite(point.figures.get("output_throughput")) is None for point in curve.points):
        return None
    style = {"color": BLUE, "dash": "solid", "width": 2}
    traces = [_line(curve, "output_throughput", "output tokens/s", style)]
    layout = {
        "xaxis": axis("requests/s", rangemode="tozero"),
        "yaxis": axis("output tokens/s", rangemode="tozero"),
        **_marks(curve, "bottom", None),
    }
    if any(finite(point.figures.get("goodput_share")) is not None for point in curve.points):
        style = {"color": ORANGE, "dash": "dash", "width": 2}
        share = _line(curve, "goodput_share", "good share, %", style, times=100.0)
        traces.append(share | {"yaxis": "y2"})
        layout["yaxis2"] = axis(
            "good share, %", overlaying="y", side="right", range=[0, 105], showgrid=False
        )
    return Chart(
        name=f"rate-throughput-{place}",
        title=f"Throughput against rate: {curve.label}",
        caption="Output tokens a second at each rate, and the share of requests that kept the "
        "service level, where it is known.",
        traces=traces,
        layout=layout,
        height=380,
        wide=False,
    )


def _line(
    curve: RateCurve, key: str, label: str, style: Mapping[str, Any], times: float = 1.0
) -> dict[str, Any]:
    values = [finite(point.figures.get(key)) for point in curve.points]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": label,
        "x": numbers(point.rate for point in curve.points),
        "y": numbers(float("nan") if value is None else value * times for value in values),
        "line": dict(style),
        "marker": {
            "size": 9,
            "symbol": ["x" if _bad(point) else "circle" for point in curve.points],
            "color": style["color"],
        },
        "text": [plain(_said(point)) for point in curve.points],
        "hovertemplate": "%{x:.5~g} requests/s: %{y:,.5~g}%{text}",
    }


def _marks(curve: RateCurve, side: str, limit: float | None) -> dict[str, Any]:
    """Lines at the knee and at the highest rate that met the service level, named at the top or
    bottom, and one at a limit in ms."""
    shapes, notes = [], []
    marks = (
        ("knee", curve.knee, PURPLE, "left", 4),
        ("highest rate met", curve.highest, GREEN, "right", -4),
    )
    for name, rate, colour, anchor, shift in marks:
        if rate is not None:
            line = {"color": colour, "width": 2, "dash": "dashdot"}
            ends = {"x0": rate, "x1": rate, "y0": 0, "y1": 1}
            shapes.append({"type": "line", "xref": "x", "yref": "paper", "line": line} | ends)
            place = {"x": rate, "xref": "x", "y": float(side == "top"), "yref": "paper"}
            anchors = {"xanchor": anchor, "xshift": shift, "yanchor": side, "showarrow": False}
            notes.append({"text": f"{name} {rate:g}"} | place | anchors)
    if limit is not None:
        line = {"color": GREY, "width": 1.5, "dash": "dot"}
        ends = {"x0": 0, "x1": 1, "y0": limit, "y1": limit}
        shapes.append({"type": "line", "xref": "paper", "yref": "y", "line": line} | ends)
    return {"shapes": shapes, "annotations": notes}


def _caption(curve: RateCurve) -> str:
    parts = ["A cross marks a rate that missed the service level or whose run was INVALID."]
    if curve.service_level:
        parts.append(f"Service level: {level_text(curve.service_level)}.")
    if finite(curve.service_level.get("ttft")):
        parts.append("The dotted line is its limit of TTFT.")
    return " ".join(parts)


def level_text(level: Mapping[str, Any]) -> str:
    """A service level in words, limits in ms."""
    return ", ".join(f"{text(name)[:40]} {text(limit)[:40]} ms" for name, limit in level.items())


def _bad(point: RatePoint) -> bool:
    return point.good is False or point.verdict == INVALID


def _said(point: RatePoint) -> str:
    met = {True: ", met", False: ", missed", None: ""}[point.good]
    return f"{met}, {point.verdict}"


def _point(point: Mapping[str, Any]) -> RatePoint | None:
    rate, met = finite(point.get("rate")), point.get("met")
    if rate is None:
        return None
    return RatePoint(
        rate=rate,
        figures=as_mapping(point.get("figures")),
        good=met if isinstance(met, bool) else None,
        verdict=state_of(point),
        record=text(point.get("record")),
    )


def _sorted(points: Any) -> tuple[RatePoint, ...]:
    return tuple(sorted(points, key=lambda point: point.rate))

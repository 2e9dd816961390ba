"""Runs of engines without a server as charts: speed over size, and speed against quality."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from client.results.page.chart import Chart, axis, line_style, numbers, plain
from client.results.page.sources import RecordSource
from client.results.page.values import as_list, as_mapping, finite, number, short_number, text

OK = "ok"
# What a run is mainly about, by its preset: the figure, and its name.
_SPEEDS = {
    "decode-step": ("decode_throughput", "decode tokens/s"),
    "generate": ("output_throughput", "output tokens/s"),
}
_OTHERWISE = ("input_throughput", "tokens read/s")
_WIDE = 20.0  # from here on lines lie apart only on a logarithmic scale


@dataclass(frozen=True)
class Quality:
    """A measure of quality. `better`: +1 where more is better, -1 where less is."""

    name: str
    label: str
    better: int

    def of(self, record: Mapping[str, Any]) -> float | None:
        """Its value in a record of quality, where it is there."""
        if self.name == "perplexity":
            return finite(as_mapping(record.get("perplexity")).get("perplexity"))
        passed = as_mapping(as_mapping(record.get("humaneval")).get("pass_at"))
        return finite(passed.get("1"))


QUALITIES = (
    Quality("perplexity", "perplexity (less is better)", -1),
    Quality("pass", "HumanEval pass@1 (more is better)", 1),
)


def cells_of(source: RecordSource) -> list[Mapping[str, Any]]:
    """The points of a run that say what they are."""
    cells = [as_mapping(cell) for cell in as_list(source.record.get("cells"))]
    return [
        cell
        for cell in cells
        if finite(cell.get("batch_size")) is not None and finite(cell.get("context")) is not None
    ]


def speed_name(source: RecordSource) -> tuple[str, str]:
    """The figure a run is about, and its name."""
    preset = text(as_mapping(source.record.get("settings")).get("preset"))
    return _SPEEDS.get(preset, _OTHERWISE)


def speed(cell: Mapping[str, Any], key: str) -> float | None:
    """A figure of a point that ran; None otherwise."""
    if cell.get("status") != OK:
        return None
    return finite(as_mapping(cell.get("figures")).get(key))


def column(cell: Mapping[str, Any]) -> str:
    """The engine with its weights and attention."""
    return " ".join(text(cell.get(name)) for name in ("engine", "kind", "attention"))


def offline_charts(
    place: int, source: RecordSource, qualities: Sequence[RecordSource]
) -> list[Chart]:
    """Speed over batch size or context for each model, then speed against quality."""
    cells = cells_of(source)
    charts: list[Chart] = []
    for number_, model in enumerate(dict.fromkeys(text(cell.get("model")) for cell in cells)):
        mine = [cell for cell in cells if text(cell.get("model")) == model]
        charts += _speed_charts(f"offline-{place}-{number_}", model, source, mine)
        for quality in QUALITIES:
            name = f"quality-{place}-{number_}-{quality.name}"
            charts += _quality_charts(name, model, source, mine, qualities, quality)
    return charts


def _speed_charts(
    name: str, model: str, source: RecordSource, cells: Sequence[Mapping[str, Any]]
) -> list[Chart]:
    """Over the batch size at each context, or over the context where there are several."""
    contexts = {finite(cell.get("context")) for cell in cells}
    over, fixed = ("context", "batch_size") if len(contexts) > 1 else ("batch_size", "context")
    words = {"context": "context, tokens", "batch_size": "batch size"}
    charts = []
    for value in sorted({finite(cell.get(fixed)) or 0.0 for cell in cells}):
        here = [cell for cell in cells if finite(cell.get(fixed)) == value]
        title = f"{model}: {speed_name(source)[1]} over {words[over]}"
        if fixed == "batch_size":
            title += f", batch {value:g}"
        charts += _speed_chart(f"{name}-{value:g}", title, words[over], over, source, here)
    return charts


def _speed_chart(
    name: str,
    title: str,
    across: str,
    over: str,
    source: RecordSource,
    cells: Sequence[Mapping[str, Any]],
) -> list[Chart]:
    key, label = speed_name(source)
    traces, values = [], []
    for place, each in enumerate(dict.fromkeys(map(column, cells))):
        points = _points([cell for cell in cells if column(cell) == each], over, key)
        values += [y for _, y in points]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": plain(each),
                "x": numbers(x for x, _ in points),
                "y": numbers(y for _, y in points),
                "line": line_style(place),
                "hovertemplate": f"%{{x}}: %{{y:,.5~g}} {label}",
            }
        )
    if not values:
        return []
    wide = min(values) > 0 and max(values) > _WIDE * min(values)
    scale = {"type": "log", "exponentformat": "none"} if wide else {"rangemode": "tozero"}
    layout = {
        "xaxis": axis(across, type="log", exponentformat="none", dtick="D2"),
        "yaxis": axis(label + (" (log scale)" if wide else ""), **scale),
    }
    caption = "Each engine as far as it went; rounds are shown by their median."
    return [Chart(name, title, caption, traces, layout, height=380, wide=False)]


def _points(cells: Sequence[Mapping[str, Any]], over: str, key: str) -> list[tuple[float, float]]:
    found: dict[float, list[float]] = {}
    for cell in cells:
        x, y = finite(cell.get(over)), speed(cell, key)
        if x is not None and y is not None:
            found.setdefault(x, []).append(y)
    return sorted((x, median(rounds)) for x, rounds in found.items())


def _quality_charts(
    name: str,
    model: str,
    source: RecordSource,
    cells: Sequence[Mapping[str, Any]],
    qualities: Sequence[RecordSource],
    quality: Quality,
) -> list[Chart]:
    """One chart at the largest batch that any of our schemes with a known quality ran at."""
    key, label = speed_name(source)
    known = {
        text(cell.get("kind")): value
        for cell in cells
        if cell.get("engine") == "loadstone"
        and (value := _quality_of(text(cell.get("kind")), model, qualities, quality)) is not None
    }
    ours = [
        cell
        for cell in cells
        if cell.get("engine") == "loadstone"
        and text(cell.get("kind")) in known
        and speed(cell, key) is not None
    ]
    if not ours:
        return []
    batch = max(finite(cell.get("batch_size")) or 0.0 for cell in ours)
    here = [cell for cell in ours if finite(cell.get("batch_size")) == batch]
    kinds = list(dict.fromkeys(text(cell.get("kind")) for cell in here))
    speeds = [
        median(speed(cell, key) or 0.0 for cell in here if text(cell.get("kind")) == kind)
        for kind in kinds
    ]
    trace = {
        "type": "scatter",
        "mode": "markers+text",
        "x": numbers(speeds),
        "y": numbers(known[kind] for kind in kinds),
        "text": [plain(kind) for kind in kinds],
        "textposition": "top center",
        "cliponaxis": False,
        "marker": {"size": 10},
        "hovertemplate": f"%{{text}}: %{{x:,.5~g}} {label}, {quality.name} %{{y:.5~g}}",
    }
    layout = {
        "xaxis": axis(label, rangemode="tozero"),
        "yaxis": axis(quality.label),
        "showlegend": False,
    }
    title = f"{model}: {label} against {quality.name}, batch {short_number(batch)}"
    caption = "Each way to store the weights; quality comes from records of its own."
    return [Chart(name, title, caption, [trace], layout, height=380, wide=False)]


def _quality_of(
    kind: str, model: str, qualities: Sequence[RecordSource], quality: Quality
) -> float | None:
    """Of the record with these weights, and the KV cache that goes with them: int8 for int8."""
    wanted = "int8" if kind == "int8" else "none"
    found: dict[str, float] = {}
    for source in qualities:
        record = source.record
        names = {text(record.get("model_id")), text(as_mapping(record.get("engine")).get("model"))}
        value = quality.of(record)
        if record.get("weights") == kind and model in names and value is not None:
            found[text(record.get("kv_cache"))] = value
    return found.get(wanted, next(iter(found.values()), None))


def offline_rows(source: RecordSource) -> list[tuple[str, ...]]:
    """The cells in words: a row of the page's table each."""
    key, _ = speed_name(source)
    rows: list[tuple[str, ...]] = []
    for cell in cells_of(source):
        figures = as_mapping(cell.get("figures"))
        share, peak = finite(figures.get("roofline_fraction")), finite(figures.get("peak_bytes"))
        rows.append(
            (
                text(cell.get("model")),
                column(cell),
                short_number(cell.get("batch_size")),
                short_number(cell.get("context")),
                short_number(cell.get("round")),
                text(cell.get("status")),
                number(speed(cell, key), 1),
                "-" if share is None else f"{share:.0%}",
                "-" if peak is None else number(peak / 2**30, 2),
                text(cell.get("reason")) if cell.get("reason") else "",
            )
        )
    return rows

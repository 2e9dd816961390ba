"""A sweep as heat maps: tokens/s by batch size and cache length."""

from collections.abc import Mapping, Sequence
from typing import Any

from client.results.page.chart import Chart, axis, numbers, plain
from client.results.page.sources import RecordSource
from client.results.page.values import as_list, as_mapping, finite, short_number, text

OK = "ok"
_CELL = 46
_CAPTION = "Output tokens/s by batch size and cache length; cells without a number have no answer."
_ROLLING = " * The cache is shorter than the longest prompt with its answer: it rolled."


def cells_of(source: RecordSource) -> list[Mapping[str, Any]]:
    """The cells that say their batch size and cache length."""
    cells = [as_mapping(cell) for cell in as_list(source.record.get("cells"))]
    return [cell for cell in cells if _place(cell) is not None]


def speed(cell: Mapping[str, Any]) -> float | None:
    """Output tokens/s of a cell that ran; None otherwise."""
    if cell.get("status") != OK:
        return None
    return finite(as_mapping(cell.get("figures")).get("output_throughput"))


def best_cell(cells: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The fastest cell, None where none ran."""
    ran = [cell for cell in cells if speed(cell) is not None]
    return max(ran, key=lambda cell: speed(cell) or 0.0, default=None)


def setting(cell: Mapping[str, Any]) -> str:
    """The settings of a cell that have a map of their own, in words."""
    return f"weights {text(cell.get('quantize'))}, sharded by {text(cell.get('sharding'))}"


def sweep_charts(place: int, source: RecordSource) -> list[Chart]:
    """One map for each quantization and sharding, all on one colour scale."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for cell in cells_of(source):
        groups.setdefault(setting(cell), []).append(cell)
    speeds = [speed(cell) or 0.0 for cells in groups.values() for cell in cells]
    top = max(speeds, default=0.0) or 1.0
    return [
        _map(f"sweep-{place}-{number}", name, cells, top)
        for number, (name, cells) in enumerate(groups.items())
    ]


def _map(name: str, title: str, cells: Sequence[Mapping[str, Any]], top: float) -> Chart:
    batches = sorted({_number(cell, "batch_size") for cell in cells})
    lengths = sorted({_number(cell, "cache_length") for cell in cells})
    # The last of several cells at one place counts.
    at = {_place(cell): cell for cell in cells}
    rows = [[at.get((batch, length), {}) for length in lengths] for batch in batches]
    rolls = any(cell.get("rolling") is True and speed(cell) is not None for cell in cells)
    speeds = [[speed(cell) for cell in row] for row in rows]
    return Chart(
        name=name,
        title=f"Tokens/s: {title}",
        caption=_CAPTION + (_ROLLING if rolls else ""),
        traces=[
            {
                "type": "heatmap",
                # By place, not by value: cells are of one size however far settings lie apart.
                "x": list(range(len(lengths))),
                "y": list(range(len(batches))),
                "z": [numbers(float("nan") if z is None else z for z in row) for row in speeds],
                "zmin": 0,
                "zmax": top,
                "colorscale": "Cividis",
                "text": [[plain(_said(cell), 200) for cell in row] for row in rows],
                "hovertemplate": "%{text}<extra></extra>",
                "hoverongaps": False,
                "xgap": 2,
                "ygap": 2,
                "colorbar": {"title": {"text": "tokens/s"}, "thickness": 12},
            },
            _numbers(rows, top),
        ],
        layout={
            "xaxis": _named_axis("cache length, positions", lengths),
            "yaxis": _named_axis("batch size", batches),
            "showlegend": False,
            "annotations": [
                _label(x, y, cell)
                for y, row in enumerate(rows)
                for x, cell in enumerate(row)
                if speed(cell) is None and cell
            ],
        },
        height=max(240, 120 + _CELL * len(batches)),
        wide=False,
    )


def _numbers(rows: Sequence[Sequence[Mapping[str, Any]]], top: float) -> dict[str, Any]:
    """The speeds as text on their cells, white on the dark half of the scale."""
    ran = [
        (x, y, cell, value)
        for y, row in enumerate(rows)
        for x, cell in enumerate(row)
        if (value := speed(cell)) is not None
    ]
    return {
        "type": "scatter",
        "mode": "text",
        "x": [x for x, *_ in ran],
        "y": [y for _, y, *_ in ran],
        "text": [
            short_number(value) + ("*" if cell.get("rolling") is True else "")
            for _, _, cell, value in ran
        ],
        "textfont": {"color": ["#ffffff" if value < top / 2 else "#000000" for *_, value in ran]},
        "hoverinfo": "skip",
    }


def _named_axis(title: str, values: Sequence[float]) -> dict[str, Any]:
    names = [f"{value:g}" for value in values]
    ends = [-0.5, len(values) - 0.5]
    return axis(title, tickvals=list(range(len(names))), ticktext=names, range=ends, showgrid=False)


def _label(x: int, y: int, cell: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "x": x,
        "y": y,
        "text": plain(text(cell.get("status")), 12),
        "hovertext": plain(text(cell.get("reason")), 200),
        "showarrow": False,
        "font": {"size": 11},
    }


def _said(cell: Mapping[str, Any]) -> str:
    if not cell:
        return "not in the sweep"
    share = finite(cell.get("roofline_fraction"))
    said = f"{speed(cell):,.1f} tokens/s" if speed(cell) is not None else text(cell.get("status"))
    where = f"batch {text(cell.get('batch_size'))}, cache {text(cell.get('cache_length'))}: "
    return where + said + ("" if share is None else f", {share:.0%} of the roofline")


def _place(cell: Mapping[str, Any]) -> tuple[float, float] | None:
    batch, length = finite(cell.get("batch_size")), finite(cell.get("cache_length"))
    return None if batch is None or length is None else (batch, length)


def _number(cell: Mapping[str, Any], name: str) -> float:
    return finite(cell.get(name)) or 0.0

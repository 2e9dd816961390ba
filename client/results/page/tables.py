"""The tables of a page: figures, outcomes, settings, points of curves, cells of sweeps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from client.results.page.definitions import (
    OUTCOMES,
    SCALARS,
    STATISTICS,
    Figure,
    known_latencies,
    present,
)
from client.results.page.distributions import stalls_of
from client.results.page.offline_charts import offline_rows, speed_name
from client.results.page.rates import RateCurve
from client.results.page.sources import RecordSource, RunSource
from client.results.page.sweep_map import cells_of, speed
from client.results.page.values import as_mapping, finite, number, text

_HIDDEN = "(hidden)"
# Settings of these names may hold what nobody should send around.
_SECRET = ("api_key", "apikey", "authorization", "password", "secret", "header", "credential")


@dataclass(frozen=True)
class Cell:
    """A cell: what it shows, the exact figure behind it, and a style (best, differs, number)."""

    shown: str
    key: str = ""
    value: float | None = None
    style: str = ""


@dataclass(frozen=True)
class Table:
    """A table of the page; the first cell of a row is its name."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""


def figures_tables(runs: Sequence[RunSource]) -> list[Table]:
    """All figures: of one run as the command prints them, of several side by side."""
    records = [run.record for run in runs]
    if len(runs) == 1:
        return [_scalars(runs), _latencies(runs[0].record)]
    return [_side_by_side(runs, _every_figure(records))]


def outcomes_table(runs: Sequence[RunSource]) -> Table:
    """How requests ended, and the causes of failures."""
    counts = present(OUTCOMES, [run.record for run in runs])
    rows = [_figure_row(figure, runs) for figure in counts]
    causes = {cause for run in runs for cause in as_mapping(run.record.get("failures"))}
    rows += [
        _count_row(f"failed: {cause[:200]}", "failures", cause, runs) for cause in sorted(causes)
    ]
    reasons = {name for run in runs for name in as_mapping(run.record.get("finish_reasons"))}
    rows += [
        _count_row(f"finish reason: {name[:200]}", "finish_reasons", name, runs)
        for name in sorted(reasons)
    ]
    return Table("Outcomes", _head("", runs), tuple(rows))


def settings_table(runs: Sequence[RunSource]) -> Table:
    """What was run, and on what; rows that differ between runs are marked."""
    sides = [_settings(run.record) for run in runs]
    names = list(dict.fromkeys(name for side in sides for name in side))
    rows = []
    for name in names:
        values = [side.get(name, "-") for side in sides]
        style = "differs" if len(set(values)) > 1 else ""
        rows.append((Cell(name), *(Cell(value, style=style) for value in values)))
    note = "Marked rows differ between the runs." if len(runs) > 1 else ""
    return Table("Settings and host", _head("", runs), tuple(rows), note)


def stalls_table(runs: Sequence[RunSource]) -> Table | None:
    """How evenly tokens came, from the rows; None where no run has gaps."""
    rows = []
    for run in runs:
        gaps = run.requests.gaps() if run.requests is not None else []
        found = stalls_of(np.concatenate(gaps)) if gaps else None
        if found is not None:
            shown = (number(found.largest), f"{found.share:.3%}", number(found.limit))
            rows.append((Cell(run.label), *(Cell(value, style="number") for value in shown)))
    head = ("", "largest gap, ms", "stalls, of all gaps", "a stall is longer than, ms")
    note = "A stall is a gap of more than 3 times the median gap."
    return Table("Stalls", head, tuple(rows), note) if rows else None


def curve_table(curve: RateCurve) -> Table:
    """One row a rate."""
    columns = (
        Figure("output_throughput", "Output tokens/s", "", 1),
        Figure("p50_ttft_ms", "TTFT p50, ms", ""),
        Figure("p99_ttft_ms", "TTFT p99, ms", ""),
        Figure("p99_itl_ms", "ITL p99, ms", ""),
        Figure("p99_e2el_ms", "End to end p99, ms", ""),
        Figure("goodput_share", "Good share", "", 3),
    )
    shown = present(columns, [point.figures for point in curve.points])
    met = {True: "yes", False: "no", None: "-"}
    rows = tuple(
        (
            Cell(f"{point.rate:g}"),
            *(_figure_cell(figure, point.figures) for figure in shown),
            Cell(met[point.good]),
            Cell(point.verdict),
            Cell(point.record or "-"),
        )
        for point in curve.points
    )
    head = ("requests/s", *(figure.label for figure in shown), "level met", "verdict", "record")
    return Table(f"Rates: {curve.label}", head, rows)


def sweep_table(source: RecordSource) -> Table:
    """One row a cell, the fastest first."""
    cells = sorted(cells_of(source), key=lambda cell: -(speed(cell) or 0.0))
    names = ("batch_size", "cache_length", "quantize", "sharding", "rolling", "status")
    columns = (
        Figure("output_throughput", "tokens/s", "", 1),
        Figure("p99_ttft_ms", "TTFT p99, ms", ""),
        Figure("p99_itl_ms", "ITL p99, ms", ""),
    )
    shown = present(columns, [as_mapping(cell.get("figures")) for cell in cells])
    rows = tuple(
        (
            *(Cell(text(cell.get(name))) for name in names),
            *(_figure_cell(figure, as_mapping(cell.get("figures"))) for figure in shown),
            _share_cell(cell.get("roofline_fraction")),
            Cell(text(cell.get("reason")) if cell.get("reason") else ""),
        )
        for cell in cells
    )
    head = ("batch", "cache", "weights", "sharded by", "rolling", "status",
            *(figure.label for figure in shown), "of roofline", "reason")  # fmt: skip
    return Table(f"Cells: {source.label}", head, rows)


def offline_table(source: RecordSource) -> Table:
    """One row a point, in the order they were measured in."""
    head = ("model", "engine", "batch", "context", "round", "status", speed_name(source)[1],
            "of roofline", "peak GiB", "reason")  # fmt: skip
    rows = tuple(tuple(Cell(value) for value in row) for row in offline_rows(source))
    return Table(f"Points: {source.label}", head, rows)


def machine_table(source: RecordSource) -> Table:
    """What a sweep or a curve says of itself and its machine."""
    outside = {"cells", "points", "service_level"}
    known = {name: value for name, value in source.record.items() if name not in outside}
    rows = [(Cell(name), Cell(value)) for name, value in _flat(known, "")]
    return Table(f"Settings: {source.label}", ("", "value"), tuple(rows))


def _scalars(runs: Sequence[RunSource]) -> Table:
    rows = [_figure_row(figure, runs) for figure in present(SCALARS, [run.record for run in runs])]
    return Table("Figures", ("figure", "value"), tuple(rows))


def _latencies(record: Mapping[str, Any]) -> Table:
    rows = tuple(
        (Cell(each.label), *(_figure_cell(each.figure(name), record) for name in STATISTICS))
        for each in known_latencies([record])
    )
    return Table("Latency of completed requests, ms", ("", *STATISTICS), rows)


def _every_figure(records: Sequence[Mapping[str, Any]]) -> list[Figure]:
    latencies = [
        each.figure(name) for each in known_latencies(records) for name in ("mean", "p50", "p99")
    ]
    return present((*OUTCOMES, *SCALARS, *latencies), records)


def _side_by_side(runs: Sequence[RunSource], figures: Sequence[Figure]) -> Table:
    head = _head("figure", runs)
    two = len(runs) == 2
    rows = []
    for figure in figures:
        row = _figure_row(figure, runs)
        rows.append((*row, _change(figure, runs)) if two else row)
    return Table(
        "Side by side",
        (*head, "second to first") if two else head,
        tuple(rows),
        "The best value of a row is bold; a single run says nothing about how far figures scatter.",
    )


def _figure_row(figure: Figure, runs: Sequence[RunSource]) -> tuple[Cell, ...]:
    values = [run.figure(figure.key) for run in runs]
    known = [value for value in values if value is not None]
    best = None
    if figure.better and len(runs) > 1 and len(set(known)) > 1:
        best = max(known) if figure.better > 0 else min(known)
    cells = (
        Cell(number(value, figure.digits), figure.key, value,
             "number best" if best is not None and value == best else "number")
        for value in values
    )  # fmt: skip
    return Cell(figure.label), *cells


def _figure_cell(figure: Figure, figures: Mapping[str, Any]) -> Cell:
    value = finite(figures.get(figure.key))
    return Cell(number(value, figure.digits), figure.key, value, "number")


def _change(figure: Figure, runs: Sequence[RunSource]) -> Cell:
    first, second = (run.figure(figure.key) for run in runs)
    if not first or second is None:
        return Cell("-", style="number")
    return Cell(f"{second / first - 1:+.1%}", style="number")


def _count_row(label: str, name: str, key: str, runs: Sequence[RunSource]) -> tuple[Cell, ...]:
    counts = [as_mapping(run.record.get(name)).get(key) for run in runs]
    return Cell(label), *(Cell(number(count or 0, 0), style="number") for count in counts)


def _share_cell(value: Any) -> Cell:
    share = finite(value)
    return Cell("-" if share is None else f"{share:.1%}", style="number")


def _head(first: str, runs: Sequence[RunSource]) -> tuple[str, ...]:
    return (first, *(run.label for run in runs))


def _settings(record: Mapping[str, Any]) -> dict[str, str]:
    """Everything of a record that is no figure, by dotted name."""
    names = (
        "date", "model_id", "tokenizer_id", "endpoint_type", "backend", "label", "request_rate",
        "burstiness", "max_concurrency", "seed", "num_prompts_asked", "distinct_prompts",
        "most_uses_of_a_prompt", "counted_by", "warmup", "goodput", "metadata", "settings", "host",
    )  # fmt: skip
    return dict(_flat({name: record[name] for name in names if name in record}, ""))


def _flat(values: Mapping[str, Any], before: str) -> list[tuple[str, str]]:
    found = []
    for name, value in values.items():
        full = f"{before}{name}"[:200]
        if any(word in full.lower().replace("-", "_") for word in _SECRET):
            found.append((full, _HIDDEN if value else text(value)))
        elif isinstance(value, Mapping) and value:
            found += _flat(value, f"{full}.")
        else:
            found.append((full, text(value)))
    return found

"""Figures of a point for its record, under the client's names where it has them."""

from dataclasses import replace

from client.engines import definitions
from client.engines.ask import FORWARD, GENERATE, LOSS
from client.engines.cell import PointCell
from client.engines.entry import Entry
from client.engines.limits import share
from client.engines.measuring import Measuring
from client.engines.presets import DECODING
from client.sweeping.peaks import Peaks


def with_figures(cell: PointCell, what: Measuring, peaks: Peaks) -> PointCell:
    """The cell of a measured point with its figures, in seconds, tokens/s and bytes.

    duration, output_throughput (generation) and input_throughput (tokens read in passes) are as in
    docs/measuring.md; decode_throughput leaves prefill out.
    """
    entry = Entry((cell,))
    found = _FIGURES[what.task](entry, what)
    found["duration"] = sum(run.seconds for run in cell.runs)
    if entry.peak_bytes is not None:
        found["peak_bytes"] = entry.peak_bytes
    limit = share(entry, what, peaks, decode_alone=what.preset == DECODING)
    if limit is not None:
        found["roofline_fraction"] = limit.fraction
    return replace(cell, figures=found, roofline_by=limit.by if limit else None)


def _generation(entry: Entry, what: Measuring) -> dict[str, float]:
    batch, new = entry.point.batch, what.new_tokens
    decoding = entry.seconds - entry.first
    return {
        "output_throughput": definitions.throughput(batch, new, entry.seconds),
        "decode_throughput": definitions.throughput(batch, new - 1, decoding),
        "mean_tpot_ms": 1e3 * decoding / (new - 1),
        "mean_ttft_ms": 1e3 * entry.first,
        "mean_e2el_ms": 1e3 * entry.seconds,
    }


def _passes(entry: Entry, what: Measuring) -> dict[str, float]:
    point = entry.point
    passes = what.new_tokens if what.task == FORWARD else 1
    read = point.context * passes
    found = {
        "input_throughput": definitions.throughput(point.batch, read, entry.seconds),
        "mean_e2el_ms": 1e3 * entry.seconds,
    }
    joules = entry.joules_per_token(point.batch * read)
    return found if joules is None else {**found, "joules_per_token": joules}


_FIGURES = {GENERATE: _generation, FORWARD: _passes, LOSS: _passes}

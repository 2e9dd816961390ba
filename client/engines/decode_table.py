"""Table of `decode-step`: one row for each batch size and engine, beside an earlier run."""

from client.engines import definitions
from client.engines.entry import Entry
from client.engines.variant import Variant
from client.engines.view import View, best_ratio, cell, cold_start, peak_memory, roofline
from client.sweeping.markdown import NONE, number, table


def step_seconds(entry: Entry, new: int) -> float:
    """Mean seconds of a decode step; the first token comes from prefill."""
    return (entry.seconds - entry.first) / (new - 1)


def decode_rate(entry: Entry, new: int) -> float:
    """Tokens/s of the whole batch while it decodes."""
    return definitions.throughput(entry.point.batch, new - 1, entry.seconds - entry.first)


def render(view: View) -> list[str]:
    """Markdown lines for every model and prompt length."""
    of_model = _page if view.showing.page else _ours
    return [line for model in view.models for line in of_model(view, model)]


def _places(view: View, model: str) -> list[tuple[Variant, int, int]]:
    return [
        (variant, batch, context)
        for context in view.what.lengths
        for batch in view.batches(model, context)
        for variant in view.variants
    ]


def _ours(view: View, model: str) -> list[str]:
    new = view.what.new_tokens
    head = ["", "batch", "decode step, ms", "decode tokens/s", "step, lowest-highest run, ms"]
    head += ["/ best of the others", "prefill, ms", "peak GiB", "of roofline", "cold start, s"]
    before = ["step before, ms", "tokens/s before", "times as fast"]
    head += before if view.earlier is not None else []
    rows = []
    for variant, batch, context in _places(view, model):
        entry = view.entries.at(model, variant, batch, context)
        others = [each for each in view.variants if each.engine != variant.engine]
        beside = [view.entries.at(model, each, batch, context) for each in others]
        row = [
            view.label(variant),
            str(batch),
            cell(entry, lambda e: number(1e3 * step_seconds(e, new), 2)),
            cell(entry, lambda e: number(decode_rate(e, new), 1)),
            cell(entry, lambda e: _spread(e, new)),
            best_ratio(entry, beside, lambda e: decode_rate(e, new)) if variant.ours else NONE,
            cell(entry, lambda e: number(1e3 * e.first, 1)),
            cell(entry, peak_memory),
            cell(entry, roofline(view, decode_alone=True)),
            cell(entry, cold_start),
        ]
        if view.earlier is not None:
            row += _before(entry, view.earlier.at(model, variant, batch, context), new)
        rows.append(row)
    return ["", f"{model}: decode steps, prefill left out", "", *table(head, rows)]


def _before(entry: Entry | None, earlier: Entry | None, new: int) -> list[str]:
    if earlier is None or not earlier.ok:
        return [NONE] * 3
    step, rate = step_seconds(earlier, new), decode_rate(earlier, new)
    times = NONE
    if entry is not None and entry.ok:
        times = f"{definitions.ratio(decode_rate(entry, new), rate):.2f}x"
    return [number(1e3 * step, 2), number(rate, 1), times]


def _page(view: View, model: str) -> list[str]:
    new = view.what.new_tokens
    head = ["", "Batch Size", "Mean Latency (s)", "Throughput"]
    before = ["Mean Latency (s) <sub>before</sub>", "Latency Improvement"]
    before += ["Throughput <sub>before</sub>", "Throughput Improvement"]
    head += before if view.earlier is not None else []
    rows = []
    for variant, batch, context in _places(view, model):
        entry = view.entries.at(model, variant, batch, context)
        row = [
            view.label(variant),
            str(batch),
            cell(entry, lambda e: number(step_seconds(e, new), 4)),
            cell(entry, lambda e: number(decode_rate(e, new), 2, "")),
        ]
        if view.earlier is not None:
            row += _page_before(entry, view.earlier.at(model, variant, batch, context), new)
        rows.append(row)
    return ["", model, "", *table(head, rows)]


def _page_before(entry: Entry | None, earlier: Entry | None, new: int) -> list[str]:
    if entry is None or earlier is None or not (entry.ok and earlier.ok):
        return ["N/A"] * 4
    now, then = step_seconds(entry, new), step_seconds(earlier, new)
    rate, earlier_rate = decode_rate(entry, new), decode_rate(earlier, new)
    return [
        number(then, 4),
        number(definitions.page_latency_improvement(now, then), 2),
        number(earlier_rate, 2, ""),
        f"{definitions.ratio(rate, earlier_rate):.3f}x",
    ]


def _spread(entry: Entry, new: int) -> str:
    steps = sorted(
        1e3 * (run.seconds - run.first) / (new - 1) for run in entry.runs if run.first is not None
    )
    return f"{number(steps[0], 2)}-{number(steps[-1], 2)}"

"""Tables of `generate`: one row a batch size, one column an engine."""

from collections.abc import Callable

from client.engines import definitions
from client.engines.entry import Entry
from client.engines.view import (
    Show,
    View,
    best_ratio,
    cell,
    cold_start,
    peak_memory,
    roofline,
    spread,
)
from client.sweeping.markdown import number, table


def render(view: View) -> list[str]:
    """Markdown lines for every model."""
    return [line for model in view.models for line in _of_model(view, model)]


def _of_model(view: View, model: str) -> list[str]:
    new = view.what.new_tokens
    rate = _rate(new)

    def both(entry: Entry) -> str:
        found = rate(entry)
        return f"{number(found, 2, '')} \\| {definitions.page_ms_per_token(found):.2f}"

    if view.showing.page:
        return [
            *_table(view, model, "Throughput (tokens/sec | msec/token)", both),
            *_table(view, model, "Latency (sec)", lambda entry: number(entry.seconds, 2, "")),
        ]

    def gap(entry: Entry) -> str:
        return number(1e3 * (entry.seconds - entry.first) / (new - 1), 2)

    runs = _throughput(view, model, rate)
    shows: list[tuple[str, Show]] = [
        (f"Latency of {new} tokens, prefill included, s", lambda entry: number(entry.seconds, 3)),
        ("TPOT: between tokens of a row, prefill left out, ms", gap),
        ("TTFT: until every row has its first token, ms", _first),
        ("Output tokens/s, lowest and highest run",
         lambda e: spread(e, lambda s: definitions.throughput(e.point.batch, new, s))),
        ("Peak memory while timed, GiB", peak_memory),
        ("Of the roofline (m: memory, a: arithmetic), prefill in the time",
         roofline(view, decode_alone=False)),
        ("Cold start: s until it can be asked (weights + compiling)", cold_start),
    ]  # fmt: skip
    return [*runs, *(line for title, show in shows for line in _table(view, model, title, show))]


def _first(entry: Entry) -> str:
    return number(1e3 * entry.first, 1)


def _rate(new: int) -> Callable[[Entry], float]:
    return lambda entry: definitions.throughput(entry.point.batch, new, entry.seconds)


def _throughput(view: View, model: str, rate: Callable[[Entry], float]) -> list[str]:
    """The table of rates, with ours over the best of the others."""
    (context,) = view.what.lengths
    ours = [each for each in view.variants if each.ours]
    others = [each for each in view.variants if not each.ours]
    compared = ours if others else []
    head = ["batch", *map(view.label, view.variants)]
    head += [f"{view.label(each)} / best of the others" for each in compared]
    rows = []
    for batch in view.batches(model, context):
        at = {each: view.entries.at(model, each, batch, context) for each in view.variants}
        row = [str(batch), *(cell(at[each], lambda e: number(rate(e), 1)) for each in at)]
        row += [best_ratio(at[each], [at[other] for other in others], rate) for each in compared]
        rows.append(row)
    return ["", f"{model}: output tokens/s, prefill included", "", *table(head, rows)]


def _table(view: View, model: str, title: str, show: Show) -> list[str]:
    (context,) = view.what.lengths
    head = ["batch_size" if view.showing.page else "batch", *map(view.label, view.variants)]
    rows = [
        [
            str(batch),
            *(cell(view.entries.at(model, each, batch, context), show) for each in view.variants),
        ]
        for batch in view.batches(model, context)
    ]
    return ["", f"{model}: {title}", "", *table(head, rows)]

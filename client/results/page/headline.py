"""The few figures at the top of a page."""

from dataclasses import dataclass

from client.results.page.rates import curve_of, level_text
from client.results.page.sources import RecordSource, RunSource, Sources, rate_text
from client.results.page.sweep_map import best_cell, cells_of, setting, speed
from client.results.page.values import finite, short_number, text


@dataclass(frozen=True)
class Card:
    """A figure in large type: its name, its value, and a line below it."""

    label: str
    shown: str
    below: str = ""
    key: str = ""
    value: float | None = None


def headline(sources: Sources) -> list[Card]:
    """Cards of a single run, of each curve and of each sweep; several runs have a table instead."""
    cards = _run_cards(sources.runs[0]) if len(sources.runs) == 1 else []
    cards += [card for curve in sources.curves for card in _curve_cards(curve)]
    return cards + [card for sweep in sources.sweeps for card in _sweep_cards(sweep)]


def _run_cards(run: RunSource) -> list[Card]:
    record = run.record
    cards = [
        _card(run, "Output tokens/s", "output_throughput", _total(run)),
        _card(run, "Requests/s", "request_throughput", rate_text(record)),
        _latency(run, "Time to first token", "ttft"),
        _latency(run, "Inter-token latency", "itl"),
        _latency(run, "End to end", "e2el"),
        _card(run, "Completed", "completed", f"of {short_number(record.get('num_prompts'))}"),
    ]
    optional = (
        ("Good share", "goodput_share", "of requests that were due"),
        ("Good requests/s", "request_goodput", "kept every limit"),
        ("Cost per million tokens", "cost_per_million_output_tokens", "output tokens"),
    )
    cards += [
        _card(run, *each[:2], each[2]) for each in optional if run.figure(each[1]) is not None
    ]
    return cards


def _card(run: RunSource, label: str, key: str, below: str) -> Card:
    value = run.figure(key)
    return Card(label, short_number(value), below, key, value)


def _latency(run: RunSource, label: str, name: str) -> Card:
    key = f"p50_{name}_ms"
    tail = short_number(run.record.get(f"p99_{name}_ms"))
    value = run.figure(key)
    return Card(label, f"{short_number(value)} ms", f"median; p99 {tail} ms", key, value)


def _total(run: RunSource) -> str:
    tokens = short_number(run.record.get("total_output_tokens"))
    return f"{tokens} tokens in {short_number(run.record.get('duration'))} s"


def _curve_cards(source: RecordSource) -> list[Card]:
    curve = curve_of(source)
    level = level_text(curve.service_level) or "no service level"
    highest = "none" if curve.highest is None else f"{short_number(curve.highest)} requests/s"
    knee = "not reached" if curve.knee is None else f"{short_number(curve.knee)} requests/s"
    return [
        Card("Highest rate that met", highest, level, "highest_rate", curve.highest),
        Card("Knee", knee, f"of {len(curve.points)} rates", "knee", curve.knee),
    ]


def _sweep_cards(source: RecordSource) -> list[Card]:
    cells = cells_of(source)
    best = best_cell(cells)
    if best is None:
        return [Card("Best cell", "none", f"none of {len(cells)} cells ran")]
    where = f"batch {text(best.get('batch_size'))}, cache {text(best.get('cache_length'))}"
    share = finite(best.get("roofline_fraction"))
    of_roofline = "" if share is None else f", {share:.0%} of the roofline"
    shown = f"{short_number(speed(best))} tokens/s"
    return [
        Card("Best cell", shown, f"{where}, {setting(best)}{of_roofline}",
             "output_throughput", speed(best))
    ]  # fmt: skip

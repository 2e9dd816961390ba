"""Table of `forward-loss`: one row a model and engine; measured, estimated, error."""

from client.engines import definitions
from client.engines.entry import Entry
from client.engines.variant import Variant
from client.engines.view import GIB, View, cell, cold_start, roofline, spread
from client.sweeping.markdown import NONE, number, table

MEASURED, DERIVED = "measured", "TDP"


def render(view: View) -> list[str]:
    """Markdown lines."""
    places = [
        (model, variant, batch, context)
        for model in view.models
        for context in view.what.lengths
        for batch in view.batches(model, context)
        for variant in view.variants
    ]
    return _page(view, places) if view.showing.page else _ours(view, places)


_Place = tuple[str, Variant, int, int]


def _ours(view: View, places: list[_Place]) -> list[str]:
    estimated = bool(view.estimates)
    head = ["model", "engine", "batch x tokens", "device", "runtime, ms"]
    head += ["estimated, ms", "error"] if estimated else []
    head += ["lowest-highest run, ms", "peak GiB"]
    head += ["estimated GiB", "error"] if estimated else []
    head += ["J/token", "tokens/s", "of roofline", "loss, nats", "cold start, s"]
    rows = []
    for model, variant, batch, context in places:
        entry = view.entries.at(model, variant, batch, context)
        row = [model, view.label(variant), f"{batch} x {context:,}"]
        row += [cell(entry, lambda e: e.facts["device"]), cell(entry, _runtime)]
        row += _estimate(view, entry, model, "runtime_ms") if estimated else []
        row += [cell(entry, lambda e: spread(e, lambda s: 1e3 * s)), cell(entry, _memory)]
        row += _estimate(view, entry, model, "memory_gib") if estimated else []
        row += [
            cell(entry, lambda e: _energy(view, e)),
            cell(entry, lambda e: number(tokens(e) / e.seconds, 1)),
            cell(entry, roofline(view, decode_alone=False)),
            cell(entry, lambda e: number(e.measured[0].value, 4)),
            cell(entry, cold_start),
        ]
        rows.append(row)
    return ["", "One forward with the loss of every token, no KV cache", "", *table(head, rows)]


def tokens(entry: Entry) -> int:
    """Of a run."""
    return entry.point.batch * entry.point.context


def _runtime(entry: Entry) -> str:
    return number(1e3 * entry.seconds, 2)


def _memory(entry: Entry) -> str:
    return NONE if entry.peak_bytes is None else number(entry.peak_bytes / GIB, 2)


def _measured(entry: Entry, name: str) -> float | None:
    if name == "runtime_ms":
        return 1e3 * entry.seconds
    return None if entry.peak_bytes is None else entry.peak_bytes / GIB


def _estimate(view: View, entry: Entry | None, model: str, name: str) -> list[str]:
    estimated = view.estimates.get(model, {}).get(name)
    if estimated is None:
        return [NONE, NONE]
    measured = _measured(entry, name) if entry is not None and entry.ok else None
    find = definitions.page_error if view.showing.page else definitions.error
    error = NONE if measured is None else f"{find(estimated, measured):+.2%}"
    return [number(estimated, 2), error]


def joules(view: View, entry: Entry) -> tuple[float, str] | None:
    """Per token, and where from: the device's own counter, or its design power."""
    counted = entry.joules_per_token(tokens(entry))
    if counted is not None:
        return counted, MEASURED
    watts = view.showing.tdp_watts
    if watts is None:
        return None
    return definitions.tdp_energy(watts, 1e3 * entry.seconds, tokens(entry)), DERIVED


def _energy(view: View, entry: Entry) -> str:
    found = joules(view, entry)
    return NONE if found is None else f"{found[0]:.4f} {found[1]}"


def _page(view: View, places: list[_Place]) -> list[str]:
    """Theirs: energy from design power, "throughput" in microseconds per token, errors relative to
    the estimate."""
    three = ("Measured", "Estimated", "Error")
    head = ["Model", "Engine", "Device"]
    for title in ("Runtime (ms)", "Memory (GB)", "Energy (J/token)", "Throughput (token/sec)"):
        head += [f"{title} {name}" for name in three]
    rows = [
        [
            model,
            view.label(variant),
            *_page_cells(view, view.entries.at(model, variant, *at), model),
        ]
        for model, variant, *at in places
    ]
    note = "Throughput is the page's: microseconds per token."
    return ["", "Forward with loss, by the page's definitions", "", *table(head, rows), "", note]


def _page_cells(view: View, entry: Entry | None, model: str) -> list[str]:
    if entry is None or not entry.ok:
        return [cell(entry, str), *[NONE] * 12]
    count, runtime = tokens(entry), 1e3 * entry.seconds
    guess = view.estimates.get(model, {})
    expected = guess.get("runtime_ms")
    watts = view.showing.tdp_watts
    error = NONE if expected is None else f"{definitions.page_error(expected, runtime):.2%}"

    def energy(ms: float | None) -> float | None:
        if watts is None or ms is None:
            return None
        return definitions.tdp_energy(watts, ms, count)

    def per_token(ms: float | None) -> float | None:
        return None if ms is None else definitions.page_microseconds_per_token(ms, count)

    return [
        entry.facts["device"],
        *(_short(runtime, 2), _short(expected, 2), error),
        *(_memory(entry), *_estimate(view, entry, model, "memory_gib")),
        *(_short(energy(runtime), 3), _short(energy(expected), 3), error if watts else NONE),
        *(_short(per_token(runtime), 2), _short(per_token(expected), 2), error),
    ]


def _short(value: float | None, digits: int) -> str:
    return number(value, digits, "")

"""The whole of what a run prints, in Markdown. Definitions: docs/offline.md."""

from collections.abc import Callable

from client.engines import decode_table, forward_tables, generate_tables, loss_table
from client.engines.ask import FORWARD, GENERATE
from client.engines.cell import PointCell
from client.engines.entry import Entries, Entry
from client.engines.presets import DECODING, GENERATING, PASSING, SCORING
from client.engines.view import View
from client.sweeping.markdown import plain
from client.sweeping.state import State
from client.sweeping.table import describe_peaks

_TABLES: dict[str, Callable[[View], list[str]]] = {
    GENERATING: generate_tables.render,
    DECODING: decode_table.render,
    PASSING: forward_tables.render,
    SCORING: loss_table.render,
}


def render(state: State[PointCell], view: View) -> str:
    """Header, tables, and under them why cells have no figures."""
    lines = [*_header(state, view), *_TABLES[view.what.preset](view), ""]
    lines += [*_reasons(view), *_notes(view)]
    return "\n".join(lines).rstrip()


def _header(state: State[PointCell], view: View) -> list[str]:
    host, what = state.host, view.what
    tried = f"{len(state.listed)} of {len(state.order)} points tried"
    versions = {"python": host["python"], "loadstone": host["loadstone"]}
    for entry in view.entries.listed:
        versions |= entry.facts.get("versions", {})
    return [
        f"# {what.preset}: {plain(', '.join(view.models))}",
        "",
        f"- Command: `{state.command}`",
        f"- Date: {state.started.replace('T', ' ')}; {tried}",
        f"- Machine: {host['cpu']}, {host['cores']} cores, {host['platform']}",
        f"- Versions: {' '.join(f'{name} {version}' for name, version in versions.items())}",
        f"- Devices: {plain('; '.join(_devices(view.entries)) or '-')}",
        *(f"- {plain(line)}" for line in _models(view.entries)),
        f"- {_task(view)}",
        f"- Roofline: {describe_peaks(state.peaks)}",
        *_definition(view),
    ]


def _definition(view: View) -> list[str]:
    if not view.showing.page:
        return []
    return ["- Units and ratios: the published page's own (docs/offline.md says what they are)"]


def _task(view: View) -> str:
    what = view.what
    runs = f"{what.warmups} warm-up and {what.timed} timed runs"
    if what.min_seconds:
        runs += f" and {what.min_seconds:g} s at least"
    runs += f", {what.rounds} rounds" if what.rounds > 1 else ""
    if what.task == GENERATE:
        prompts = ", ".join(map(str, what.prompts))
        return f"Prompts of {prompts} tokens, {what.new_tokens} new tokens, greedy; {runs}"
    if what.task == FORWARD:
        return f"{what.new_tokens} passes over the whole context, no KV cache; {runs}"
    return runs


def _devices(entries: Entries) -> list[str]:
    found = {
        f"{entry.facts['device']}"
        + (f" x {count}" if (count := entry.facts["devices"]) > 1 else "")
        for entry in entries.listed
        if entry.ok
    }
    return sorted(found)


def _models(entries: Entries) -> list[str]:
    """What each engine says of each model, where they agree in one line."""
    said: dict[str, set[str]] = {}
    for entry in entries.listed:
        if entry.ok:
            sizes = entry.facts["sizes"]
            shape = f"{sizes['layers']} layers, hidden {sizes['hidden']}, {sizes['heads']} heads"
            millions = entry.facts["parameters"] / 1e6
            line = f"{millions:,.1f}M parameters, {shape}, vocabulary {sizes['vocab']:,}"
            said.setdefault(entry.point.model, set()).add(line)
    return [f"{model}: {' | '.join(sorted(lines))}" for model, lines in said.items()]


def _reasons(view: View) -> list[str]:
    """One line for each reason of each column."""
    found: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in view.entries.listed:
        if entry.reason:
            key = (entry.point.variant.name, entry.status.value, entry.reason)
            found.setdefault(key, []).append(entry)
    lines = []
    for (_, status, reason), entries in found.items():
        first = entries[0].point
        more = f" and {len(entries) - 1} more" if len(entries) > 1 else ""
        where = f"{first.model}, {view.label(first.variant)}, batch {first.batch}"
        lines.append(f"- {plain(where)}{more}: {status}: {plain(reason)}")
    return lines


def _notes(view: View) -> list[str]:
    notes = []
    if any(not cell.memory["while_timed"] for e in view.entries.listed for cell in e.measured):
        notes.append("- peak memory of some engines is since their start, weights being loaded")
    kinds = {e.facts["device"] for e in view.entries.listed if e.ok} - {"cpu"}
    if kinds and view.peaks.measured:
        notes.append(
            f"- no share of the roofline for {plain(', '.join(sorted(kinds)))}: give "
            "--bandwidth-gbps and --peak-tflops"
        )
    return notes + _agreement(view)


def _agreement(view: View) -> list[str]:
    """How far greedy tokens are the same, where all engines have the same trained weights."""
    lines = []
    for model, batch, context in {
        (e.point.model, e.point.batch, e.point.context): None for e in view.entries.listed
    }:
        rows = {}
        for variant in view.variants:
            entry = view.entries.at(model, variant, batch, context)
            if entry is not None and entry.ok and entry.measured[0].first_row:
                rows[variant] = entry.measured[0].first_row
        engines = {variant.engine for variant in rows}
        if len(engines) < 2 or model not in view.trained:
            continue
        reference = next(each for each in rows if not each.ours)
        same = [
            f"{view.label(each)} {_alike(row, rows[reference])}"
            for each, row in rows.items()
            if each != reference
        ]
        lines.append(
            f"- {plain(model)}, batch {batch}: first tokens of row 1 equal to those of "
            f"{view.label(reference)}: {', '.join(same)} of {len(rows[reference])}"
        )
    return lines


def _alike(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))

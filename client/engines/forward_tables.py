"""Tables of `uncached-forward`: seconds a minibatch, over batch sizes and contexts."""

from collections.abc import Callable
from functools import partial
from itertools import groupby

from client.engines.entry import Entry
from client.engines.variant import Variant
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
from client.sweeping.markdown import NONE, number, table


def render(view: View) -> list[str]:
    """Markdown lines for every model."""
    of_model = _page if view.showing.page else _ours
    return [line for model in view.models for line in of_model(view, model)]


def _ours(view: View, model: str) -> list[str]:
    shows: list[tuple[str, Show]] = [
        ("lowest and highest run, s", lambda entry: spread(entry, lambda s: s, 3)),
        ("peak memory while timed, GiB", peak_memory),
        ("of the roofline (m: memory, a: arithmetic)", roofline(view, decode_alone=False)),
        ("cold start: s until it can be asked (weights + compiling)", cold_start),
    ]
    lines = _seconds(view, model)
    for title, show in shows:
        lines += _grid(view, model, title, show)
    return lines


def _places(view: View, model: str) -> list[tuple[int, int]]:
    return [
        (context, batch) for context in view.what.lengths for batch in view.batches(model, context)
    ]


def _seconds(view: View, model: str) -> list[str]:
    """Seconds, each attention over the first of its engine and kind, ours over the best other."""
    groups = _by_kind(view)
    others = [each for each in view.variants if not each.ours]
    ours = [group[-1] for group in groups if group[-1].ours and others]
    head = ["context", "batch", *map(view.label, view.variants)]
    faster = [(group[0], each) for group in groups for each in group[1:]]
    head += [f"{view.label(each)}: speed-up over {first.attention}" for first, each in faster]
    head += [f"{view.label(each)} / best of the others" for each in ours]
    rows = []
    for context, batch in _places(view, model):
        at = {each: view.entries.at(model, each, batch, context) for each in view.variants}
        row = [f"{context:,}", str(batch)]
        row += [cell(at[each], lambda e: number(e.seconds, 3)) for each in at]
        row += [_speed_up(at[first], at[each]) for first, each in faster]
        row += [best_ratio(at[each], [at[other] for other in others], _speed) for each in ours]
        rows.append(row)
    title = f"{model}: s for {view.what.new_tokens} passes over the whole context"
    return ["", title, "", *table(head, rows)]


def _grid(view: View, model: str, title: str, show: Show) -> list[str]:
    head = ["context", "batch", *map(view.label, view.variants)]
    rows = [
        [
            f"{context:,}",
            str(batch),
            *(cell(view.entries.at(model, each, batch, context), show) for each in view.variants),
        ]
        for context, batch in _places(view, model)
    ]
    return ["", f"{model}: {title}", "", *table(head, rows)]


def _page(view: View, model: str) -> list[str]:
    """A grid for each variant, the speed-up of each pair, and kinds beside each other."""
    lines: list[str] = []
    for group in _by_kind(view):
        for variant in group:
            title = f"{variant.engine} {variant.kind}: Time Taken (seconds), {variant.attention}"
            lines += _page_grid(view, model, title, partial(_taken, view, model, variant))
        for variant in group[1:]:
            title = f"{variant.engine} {variant.kind}: Speed up, {variant.attention}"
            pair = (group[0], variant)
            lines += _page_grid(view, model, title, partial(_pair, view, model, pair))
    return lines + _page_kinds(view, model)


def _taken(view: View, model: str, variant: Variant, batch: int, context: int) -> str:
    shown = cell(view.entries.at(model, variant, batch, context), lambda e: number(e.seconds, 2))
    return shown.upper() if shown == "oom" else shown


def _pair(view: View, model: str, pair: tuple[Variant, Variant], batch: int, context: int) -> str:
    before, after = (view.entries.at(model, each, batch, context) for each in pair)
    shown = _speed_up(before, after).removesuffix("x")
    return "OOM" if shown == NONE else shown


def _page_grid(view: View, model: str, title: str, show: Callable[[int, int], str]) -> list[str]:
    contexts = view.what.lengths
    head = ["Batch Size \\ Context Length", *(f"**{context}**" for context in contexts)]
    rows = [
        [f"**{batch}**", *(show(batch, context) for context in contexts)]
        for batch in sorted(view.what.batch_sizes)
    ]
    return ["", f"{model}: {title}", "", *table(head, rows)]


def _page_kinds(view: View, model: str) -> list[str]:
    """Kinds of weights at the shortest context, with each engine's last attention."""
    context = min(view.what.lengths)
    last = [group[-1] for group in _by_kind(view)]
    if len(last) < 2:
        return []
    head = ["Batch Size \\ Quantization", *(f"**{each.engine} {each.kind}**" for each in last)]
    rows = [
        [f"**{batch}**", *(_taken(view, model, each, batch, context) for each in last)]
        for batch in sorted(view.what.batch_sizes)
    ]
    return ["", f"{model}: Time Taken (seconds), context {context}", "", *table(head, rows)]


def _by_kind(view: View) -> list[list[Variant]]:
    """Variants that differ in their attention alone."""
    return [
        list(group)
        for _, group in groupby(view.variants, key=lambda each: (each.engine, each.kind))
    ]


def _speed_up(before: Entry | None, after: Entry | None) -> str:
    if before is None or after is None or not (before.ok and after.ok):
        return NONE
    return f"{before.seconds / after.seconds:.2f}x"


def _speed(entry: Entry) -> float:
    return 1 / entry.seconds

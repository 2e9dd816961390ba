"""What the tables are made from, and what they all share."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from client.engines.entry import Entries, Entry
from client.engines.limits import MEMORY, share
from client.engines.measuring import Measuring
from client.engines.showing import Showing
from client.engines.variant import Variant
from client.sweeping.markdown import NONE, number
from client.sweeping.peaks import Peaks

GIB = 2**30
_MARKS = {MEMORY: "m", "arithmetic": "a"}


@dataclass(frozen=True)
class View:
    """Measured entries, how to show them, and what to lay beside them.

    models: their labels; trained: those with weights of their own. earlier: entries of --against.
    estimates: by model, of --estimates.
    """

    entries: Entries
    models: tuple[str, ...]
    trained: frozenset[str]
    what: Measuring
    showing: Showing
    peaks: Peaks
    earlier: Entries | None = None
    estimates: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def variants(self) -> tuple[Variant, ...]:
        """The columns."""
        return self.what.variants

    def label(self, variant: Variant) -> str:
        """Of a column; attention stands there where one engine has several."""
        several = {
            each.engine
            for each in self.variants
            if sum(other.engine == each.engine and other.kind == each.kind
                   for other in self.variants) > 1
        }  # fmt: skip
        return variant.label(variant.engine in several)

    def batches(self, model: str, context: int) -> list[int]:
        """Those tried, up to the first that no variant could take."""
        found: list[int] = []
        for batch in sorted(self.what.batch_sizes):
            entries = [self.entries.at(model, each, batch, context) for each in self.variants]
            if not any(entries):
                continue
            found.append(batch)
            if not any(each is None or each.ok for each in entries):
                break
        return found


Show = Callable[[Entry], str]


def cell(entry: Entry | None, show: Show) -> str:
    """A figure, or the status of what has none; nothing for what was not tried yet."""
    if entry is None:
        return ""
    return show(entry) if entry.ok else entry.status.value


def peak_memory(entry: Entry) -> str:
    """GiB."""
    peak = entry.peak_bytes
    return NONE if peak is None else number(peak / GIB, 2)


def roofline(view: View, decode_alone: bool) -> Show:
    """Share of the roofline and what bounds it: m memory, a arithmetic."""

    def show(entry: Entry) -> str:
        found = share(entry, view.what, view.peaks, decode_alone=decode_alone)
        return NONE if found is None else f"{found.fraction:.0%} {_MARKS[found.by]}"

    return show


def best_ratio(
    ours: Entry | None, others: Sequence[Entry | None], speed: Callable[[Entry], float]
) -> str:
    """Our speed over the best of the others'; a dash where one has none."""
    speeds = [speed(each) for each in others if each is not None and each.ok]
    if ours is None or not ours.ok or not speeds:
        return NONE
    return f"{speed(ours) / max(speeds):.2f}x"


def cold_start(entry: Entry) -> str:
    """Seconds until the engine could be asked: (of these, weights and compiling)."""
    cold = entry.cold
    ready = number(cold.get("ready"), 1)
    return f"{ready} ({number(cold.get('load'), 1)} + {number(cold.get('compile'), 1)})"


def spread(entry: Entry, speed: Callable[[float], float], digits: int = 1) -> str:
    """Lowest and highest of the runs, from their seconds."""
    found = sorted(speed(run.seconds) for run in entry.runs)
    return f"{number(found[0], digits)}-{number(found[-1], digits)}"


def read_estimates(text: str) -> dict[str, dict[str, float]]:
    """By model: runtime_ms and memory_gib. ValueError for anything else."""
    values: Any = json.loads(text)
    known = {"runtime_ms", "memory_gib"}
    if not isinstance(values, dict):
        raise ValueError("an object of models was expected")
    for model, figures in values.items():
        wrong = set(figures) - known if isinstance(figures, dict) else {repr(figures)}
        if wrong:
            raise ValueError(f"{model}: {', '.join(sorted(wrong))}; known: {sorted(known)}")
        if not all(isinstance(each, int | float) and each > 0 for each in figures.values()):
            raise ValueError(f"{model}: numbers above 0 were expected")
    return values

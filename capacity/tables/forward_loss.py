"""Page 004's own layout: runtime, memory, energy and throughput, for one card and for eight."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from capacity.calibration.held_out import summarise
from capacity.hardware.chip import GIB
from capacity.published.model import Chips, Evaluated, GroupResult
from capacity.published.rows import PublishedRow
from capacity.published.torchcap import BATCH, TOKENS, memory_of
from capacity.tables.comparison import THEIRS, error
from capacity.tables.markdown import fixed, percent, table

_TOKENS = BATCH * TOKENS
# Beyond this a row's memory is not what the formula counts.
_UNEXPLAINED = 0.05


@dataclass(frozen=True)
class Quantity:
    """One of the four columns, each in three: estimated, measured and their error."""

    name: str
    decimals: int
    estimated: float
    measured: float


@dataclass(frozen=True)
class Memory:
    """GiB. carried: what the other card's row had more than the formula, where that is much."""

    formula: float
    carried: float

    @property
    def estimated(self) -> float:
        """The formula, and what is carried over."""
        return self.formula + self.carried


def render_page(groups: Sequence[GroupResult], chips: Chips, definition: str) -> list[str]:
    """Two tables, one card and eight, with the summary of each."""
    lines: list[str] = []
    rows = [each for group in groups for each in group.rows]
    for title, wanted in (("Single GPU", True), ("Multi GPU", False)):
        chosen = [each for each in rows if (each.row.chips == 1) is wanted]
        memories = {each.row.id: _memory(each.row, rows) for each in chosen}
        body = [_row(each, memories[each.row.id], chips, definition) for each in chosen]
        lines += [f"### {title}", "", *table(_headers(definition), body), ""]
        lines += _summary(chosen, memories), ""
    return lines


def _headers(definition: str) -> list[str]:
    names = ["Runtime (ms)", "Memory (GiB)"]
    if definition == THEIRS:
        names += ["Energy (J/token, one card)", 'Throughput ("token/sec", microseconds a token)']
    else:
        names += ["Energy (J/token, from datasheet power)", "Throughput (tokens/s)"]
    columns = [f"{name}: {part}" for name in names for part in ("estimated", "measured", "error")]
    return ["Model", "Device", *columns, "95% interval (ms)"]


def _row(each: Evaluated, memory: Memory, chips: Chips, definition: str) -> list[str]:
    row, held = each.row, each.held_out
    watts = chips[row.chip].need("watts")
    cells = [row.model, chips[row.chip].title + (f" x {row.chips}" if row.chips > 1 else "")]
    for quantity in _quantities(each, memory, watts, definition):
        off = error(quantity.estimated, quantity.measured, definition)
        cells += [
            fixed(quantity.estimated, quantity.decimals),
            fixed(quantity.measured, quantity.decimals),
            percent(off, 2),
        ]
    if memory.carried:
        cells[5] += "*"
    return [*cells, f"{held.predicted.low:,.0f} - {held.predicted.high:,.0f}"]


def _quantities(each: Evaluated, memory: Memory, watts: float, definition: str) -> list[Quantity]:
    row = each.row
    estimated, measured = each.held_out.predicted.value, each.held_out.observation.measured
    memories = Quantity("memory", 2, memory.estimated, row.values["memory_gib"])
    runtime = Quantity("runtime", 2, estimated, measured)
    if definition == THEIRS:
        energy, throughput = (
            [watts * each / 1e3 / _TOKENS for each in (estimated, measured)],
            [each * 1e3 / _TOKENS for each in (estimated, measured)],
        )
        return [
            runtime,
            memories,
            Quantity("energy", 4, *energy),
            Quantity("throughput", 2, *throughput),
        ]
    # All cards draw power.
    energy = [watts * row.chips * each / 1e3 / _TOKENS for each in (estimated, measured)]
    throughput = [_TOKENS / each * 1e3 for each in (estimated, measured)]
    return [
        runtime,
        memories,
        Quantity("energy", 4, *energy),
        Quantity("throughput", 0, *throughput),
    ]


def _memory(row: PublishedRow, rows: Sequence[Evaluated]) -> Memory:
    formula = memory_of(row) / GIB
    for each in rows:
        other = each.row
        if (other.model, other.chips) == (row.model, row.chips) and other.chip != row.chip:
            beyond = other.values["memory_gib"] - memory_of(other) / GIB
            if abs(beyond) > _UNEXPLAINED * other.values["memory_gib"]:
                return Memory(formula, beyond)
    return Memory(formula, 0.0)


def _summary(chosen: Sequence[Evaluated], memories: dict[str, Memory]) -> str:
    errors = np.abs([memories[x.row.id].estimated / x.row.values["memory_gib"] - 1 for x in chosen])
    page = np.abs(
        [x.row.page_estimate["runtime_ms"] / x.row.values["runtime_ms"] - 1 for x in chosen]
    )
    text = (
        f"Runtime, left out one at a time: {summarise([each.held_out for each in chosen])}. The "
        f"page's own estimates, by the same definition: median {np.median(page):.1%}, mean "
        f"{page.mean():.1%}, largest {page.max():.1%}. Memory: largest error {errors.max():.2%}."
    )
    carried = [each.row.id for each in chosen if memories[each.row.id].carried]
    if carried:
        text += (
            f" \\* {len(carried)} rows: the formula gives "
            f"{memories[carried[0]].formula:.2f} GiB and does not explain the rest, which is "
            "carried over from the same model on the other card."
        )
    return text

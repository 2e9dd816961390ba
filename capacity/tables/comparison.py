"""Estimated, measured and error, for a published page."""

from collections.abc import Sequence

from capacity.calibration.held_out import summarise
from capacity.published.model import Evaluated, GroupResult, PageModel
from capacity.tables.markdown import number, percent, table
from capacity.tables.parameters import parameter
from capacity.tables.units import PAGE_UNITS

OURS, THEIRS = "ours", "page"
DEFINITIONS = (OURS, THEIRS)


def error(estimated: float, measured: float, definition: str) -> float:
    """Relative to the measurement; by page 004's definition measured against the estimate, with the
    estimate below."""
    if definition == THEIRS:
        return (estimated - measured) / estimated
    return estimated / measured - 1


def render_group(model: PageModel, group: GroupResult, definition: str) -> list[str]:
    """One calibration: a row a setting, its summary, and what was fitted."""
    units = tuple(PAGE_UNITS[model.number]) if definition == THEIRS else ()
    headers = ["Setting"]
    for name in units or (model.unit,):
        headers += [f"Estimated ({name})", f"Measured ({name})"]
    headers += ["Error", "95% interval" + (f" ({model.unit})" if units else ""), "Inside", "Note"]
    rows = [_row(model, each, definition) for each in group.rows]
    lines = [f"### {group.name}", "", *table(headers, rows), ""]
    if group.believed:
        held = [each.held_out for each in group.believed]
        lines += [f"Left out one at a time: {summarise(held)}.", ""]
    else:
        lines += ["No row of this table is believed; the estimate is of the priors alone.", ""]
    return [*lines, f"Fitted: {fitted(group)}.", ""]


def _row(model: PageModel, each: Evaluated, definition: str) -> list[str]:
    held = each.held_out
    estimated, measured = held.predicted.value, held.observation.measured
    cells = [held.observation.name]
    if definition == THEIRS:
        for convert in PAGE_UNITS[model.number].values():
            cells += [number(convert(each.row, value), 4) for value in (estimated, measured)]
    else:
        cells += [number(estimated, 4), number(measured, 4)]
    reach = f"{number(held.predicted.low)} - {number(held.predicted.high)}"
    inside = "-" if each.doubt else "yes" if held.inside else "no"
    off = percent(error(estimated, measured, definition))
    return [*cells, off, reach, inside, f"not believed: {each.doubt}" if each.doubt else ""]


def fitted(group: GroupResult) -> str:
    """Parameters that were free, in units one reads."""
    values = group.fitted.values
    return ", ".join(f"{name} {parameter(name, values[name])}" for name in group.fitted.free)


def render_overall(groups: Sequence[GroupResult]) -> list[str]:
    """One line over all calibrations of a page."""
    held = [each.held_out for group in groups for each in group.believed]
    return [f"All {len(held)} rows: {summarise(held)}.", ""] if len(groups) > 1 and held else []

"""A published page, whole: where it comes from, what is estimated of it, what is wrong with it."""

from collections.abc import Sequence

from capacity.calibration.held_out import summarise
from capacity.published.model import Chips, GroupResult, PageModel, leave_apart, transfer
from capacity.tables.comparison import fitted, render_group, render_overall
from capacity.tables.forward_loss import render_page

_FORWARD_LOSS = "004"


def render(
    model: PageModel, groups: Sequence[GroupResult], chips: Chips, definition: str
) -> list[str]:
    """Markdown. `definition`: ours or the page's own."""
    page = model.page
    lines = [
        f"## Page {page.number}: {page.title}",
        "",
        f"Source: {page.source}. {page.workload}.",
        "",
    ]
    if model.number == _FORWARD_LOSS:
        lines += render_page(groups, chips, definition)
        lines += _parameters(groups)
    else:
        for group in groups:
            lines += render_group(model, group, definition)
        lines += render_overall(groups)
    for source, target in model.transfers:
        held = transfer(groups, source, target)
        off = ", ".join(f"{each.observation.name} {each.error:+.1%}" for each in held)
        lines += [
            f"{target} from {source} alone, by the ratio of their datasheets: {summarise(held)} "
            f"({off}).",
            "",
        ]
    if model.apart is not None:
        held = leave_apart(groups, model.apart, model.noise)
        lines += [f"Whole models left out, as for one that nobody has run: {summarise(held)}.", ""]
    return [*lines, *_notes(model)]


def _parameters(groups: Sequence[GroupResult]) -> list[str]:
    return [f"Fitted, {group.name}: {fitted(group)}." for group in groups] + [""]


def _notes(model: PageModel) -> list[str]:
    page = model.page
    lines = [f"- {note}." for note in model.notes]
    lines += [f"- {name} is {text}." for name, text in page.definitions.items()]
    lines += [
        f"- Known of the page ({error.kind}): {error.text}"
        + (
            f" ({', '.join(error.rows[:4])}{' ..' if len(error.rows) > 4 else ''})."
            if error.rows
            else "."
        )
        for error in page.errors
    ]
    return ["Notes:", "", *lines, ""]

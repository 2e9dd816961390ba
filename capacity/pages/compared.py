"""Published pages, estimated beside measured."""

from collections.abc import Sequence
from pathlib import Path

from capacity.calibration.held_out import summarise
from capacity.hardware.chip import Chip
from capacity.pages.document import Banner, chip_tables, list_of, section, tables_of, write_page
from capacity.published.model import Chips, GroupResult, PageModel
from client.results.page.chart import GREY, PALETTE, Chart, axis, numbers, plain

Compared = Sequence[tuple[PageModel, Sequence[GroupResult], Sequence[str]]]


def write_compared(path: Path, pages: Compared, chips: Chips) -> None:
    """A part for each page: every row predicted by the others against what was measured."""
    sections, banners = [], []
    used: dict[str, Chip] = {}
    for model, groups, lines in pages:
        page = model.page
        tables = tables_of(lines, page.title)
        title = f"Page {page.number}: {page.title}"
        charts = [scatter_chart(page.number, groups)]
        sections.append(section(f"page-{page.number}", title, charts, tables))
        held = [each.held_out for group in groups for each in group.believed]
        said = f"page {page.number}: {summarise(held)}" if held else f"page {page.number}"
        banners.append(Banner("open", "Predicted", said, remarks=list_of(lines)[:8]))
        for group in groups:
            used |= {each.row.chip: chips[each.row.chip] for each in group.rows}
    sections.append(section("assumptions", "Assumptions", [], chip_tables(list(used.values()))))
    write_page(path, "Published pages: estimated, measured, error", sections, banners=banners)


def scatter_chart(number: str, groups: Sequence[GroupResult]) -> Chart:
    """Estimated against measured, with a line where they are equal."""
    traces: list[dict] = []
    low, high = float("inf"), 0.0
    for place, group in enumerate(groups):
        measured = [each.held_out.observation.measured for each in group.rows]
        estimated = [each.held_out.predicted.value for each in group.rows]
        low, high = min(low, *measured, *estimated), max(high, *measured, *estimated)
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": plain(group.name, 40),
                "x": numbers(measured),
                "y": numbers(estimated),
                "text": [plain(each.held_out.observation.name) for each in group.rows],
                "marker": {"color": PALETTE[place % len(PALETTE)], "size": 8},
                "hovertemplate": "%{text}: measured %{x:,.4~g}, estimated %{y:,.4~g}",
            }
        )
    line = {"type": "scatter", "mode": "lines", "name": "equal", "x": [low, high], "y": [low, high],
            "line": {"color": GREY, "width": 1, "dash": "dot"}, "hoverinfo": "skip"}  # fmt: skip
    return Chart(
        name=f"scatter-{number}",
        title="Estimated against measured",
        caption="Each row by a fit that has not seen it, in the unit that was fitted; both axes "
        "are logarithmic.",
        traces=[*traces, line],
        layout={
            "xaxis": axis("measured", type="log", exponentformat="none"),
            "yaxis": axis("estimated", type="log", exponentformat="none"),
        },
        height=420,
    )

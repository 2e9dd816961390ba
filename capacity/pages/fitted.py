"""What fits, as a page."""

from collections.abc import Sequence
from pathlib import Path

from capacity.hardware.chip import GIB
from capacity.memory.need import MemoryNeed
from capacity.pages.document import Banner, assumptions, section, tables_of, text_of, write_page
from capacity.work.setting import Setting
from client.results.page.chart import BLUE, GREEN, GREY, ORANGE, Chart, axis, numbers, plain

Cells = Sequence[tuple[Setting, MemoryNeed, int]]
_PARTS = (("weights", BLUE), ("cache", GREEN), ("temporaries", ORANGE), ("programs", GREY))


def write_fitted(path: Path, cells: Cells, lines: Sequence[str]) -> None:
    """Bytes per chip and the largest batch of each setting; `lines` are what was printed."""
    chips = {setting.slice.chip.name: setting.slice.chip for setting, _, _ in cells}
    model = cells[0][0].model.name
    fits = sum(need.fits for _, need, _ in cells)
    state = ("valid", "Fits") if fits else ("invalid", "Fits nowhere")
    banner = Banner(*state, f"{fits} of {len(cells)} settings", remarks=text_of(lines))
    write_page(
        path,
        f"{model}: what fits",
        [
            section("bytes", "Bytes", [bytes_chart(cells), batch_chart(cells)],
                    tables_of(lines, "Settings")),
            assumptions(list(chips.values()), [], ""),
        ],
        banners=[banner],
    )  # fmt: skip


def bytes_chart(cells: Cells) -> Chart:
    """Stacked bytes per chip with the limit."""
    names = [plain(_name(setting)) for setting, _, _ in cells]
    traces: list[dict] = [
        {
            "type": "bar",
            "orientation": "h",
            "name": part,
            "y": names,
            "x": numbers(getattr(need, part) / GIB for _, need, _ in cells),
            "marker": {"color": colour},
            "hovertemplate": "%{x:,.4~g} GiB",
        }
        for part, colour in _PARTS
    ]
    traces.append(
        {
            "type": "scatter",
            "mode": "markers",
            "name": "limit",
            "y": names,
            "x": numbers(need.limit / GIB for _, need, _ in cells),
            "marker": {"symbol": "line-ns-open", "size": 16, "color": "#D55E00"},
            "hovertemplate": "%{x:,.4~g} GiB are there",
        }
    )
    return Chart(
        name="bytes",
        title="GiB per chip",
        caption="Weights, KV cache, temporaries and programs for each batch, and the limit.",
        traces=traces,
        layout={
            "barmode": "stack",
            "legend": {
                "orientation": "h",
                "traceorder": "normal",
                "x": 0,
                "y": 1.02,
                "yanchor": "bottom",
            },
            "xaxis": axis("GiB", rangemode="tozero"),
            "yaxis": axis("", autorange="reversed"),
        },
        height=_height(cells),
        wide=False,
    )


def batch_chart(cells: Cells) -> Chart:
    """The largest batch of each setting."""
    return Chart(
        name="batches",
        title="Largest batch",
        caption="The most slots that fit; nothing where not one does.",
        traces=[
            {
                "type": "bar",
                "orientation": "h",
                "y": [plain(_name(setting)) for setting, _, _ in cells],
                "x": [most for _, _, most in cells],
                "marker": {"color": BLUE},
                "hovertemplate": "%{x:,} slots<extra></extra>",
            }
        ],
        layout={
            "xaxis": axis("slots", rangemode="tozero"),
            "yaxis": axis("", autorange="reversed"),
        },
        height=_height(cells),
        wide=False,
    )


def _height(cells: Cells) -> int:
    return 130 + 30 * len(cells)


def _name(setting: Setting) -> str:
    sharding = f" {setting.sharding}" if setting.slice.count > 1 else ""
    return (
        f"{setting.slice.name} {setting.weights}{sharding} {setting.slots}x{setting.cache_length}"
    )

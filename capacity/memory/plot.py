"""The grid of what fits as a page that works offline."""

from collections.abc import Sequence
from pathlib import Path

from capacity.hardware.chip import GIB
from capacity.memory.need import MemoryNeed
from capacity.work.setting import Setting
from client.errors import UsageError
from client.results.files import write_whole


def write_plot(cells: Sequence[tuple[Setting, MemoryNeed, int]], path: Path) -> None:
    """Stacked bars of bytes per chip with the limit, and the largest batch of each setting.

    Raises `UsageError` without plotly, or when the file cannot be written.
    """
    try:
        import plotly.graph_objects as go
        from plotly.subplots import make_subplots
    except ImportError as error:
        raise UsageError("--plot needs plotly: pip install 'loadstone[report]'") from error
    names = [_name(setting) for setting, _, _ in cells]
    figure = make_subplots(
        rows=2, cols=1, shared_xaxes=True, subplot_titles=("GiB per chip", "Largest batch")
    )
    for part in ("weights", "cache", "temporaries", "programs"):
        sizes = [getattr(need, part) / GIB for _, need, _ in cells]
        figure.add_trace(go.Bar(x=names, y=sizes, name=part), row=1, col=1)
    limits = [need.limit / GIB for _, need, _ in cells]
    line = go.Scatter(x=names, y=limits, name="limit", mode="markers", marker_symbol="line-ew-open")
    figure.add_trace(line, row=1, col=1)
    most = go.Bar(x=names, y=[most for _, _, most in cells], name="largest batch")
    figure.add_trace(most, row=2, col=1)
    figure.update_layout(barmode="stack", title=cells[0][0].model.name)
    page = figure.to_html(include_plotlyjs=True, full_html=True)
    try:
        write_whole(path, page)
    except OSError as error:
        raise UsageError(f"--plot: cannot write {path}: {error.strerror}") from error


def _name(setting: Setting) -> str:
    return (
        f"{setting.slice.name} {setting.weights}/{setting.cache} {setting.sharding} "
        f"{setting.kept_positions} x {setting.slots}"
    )

"""The table of a sweep, in Markdown."""

from client.sweeping.cell import Cell, Status
from client.sweeping.markdown import number, plain, table
from client.sweeping.peaks import MEASURED, Peaks
from client.sweeping.state import State

COLUMNS = (
    "Date",
    "Device",
    "dtype",
    "batch size",
    "cache length",
    "max input length",
    "max output length",
    "throughput (token/s)",
    "sharding",
    "TTFT p50 / p99 (ms)",
    "TPOT p50 (ms)",
    "of roofline",
    "window",
    "status",
)
VERSIONS = ("python", "loadstone", "grpc", "jax")


def render(state: State[Cell]) -> str:
    """Header, table, and under it why cells are not ok. Definitions: docs/measuring.md."""
    cells = state.listed
    lines = [*_header(state), "", *table(COLUMNS, [_cells(cell) for cell in cells])]
    reasons = [
        f"- {cell.setting.name}: {cell.status.value}: {plain(cell.reason)}"
        for cell in cells
        if cell.reason
    ]
    notes = _notes(state)
    return "\n".join([*lines, *([""] if reasons or notes else []), *reasons, *notes])


def _header(state: State[Cell]) -> list[str]:
    host, cells = state.host, state.listed
    models = sorted({cell.plan["model"] for cell in cells if cell.plan and cell.plan.get("model")})
    title = ", ".join(map(str, models)) or state.settings.get("model") or "a server"
    tried = f"{len(cells)} of {len(state.order)} settings tried"
    versions = " ".join(f"{name} {host[name]}" for name in VERSIONS if host.get(name))
    return [
        f"# Sweep of {plain(title)}",
        "",
        f"- Command: `{state.command}`",
        f"- Date: {state.started.replace('T', ' ')}; {tried}",
        f"- Machine: {host['cpu']}, {host['cores']} cores, {host['platform']}",
        f"- Versions: {versions}",
        f"- Roofline: {describe_peaks(state.peaks)}",
    ]


def describe_peaks(peaks: Peaks) -> str:
    """Where the two come from, in words."""
    where = {True: "measured on this host's CPU", False: "given"}
    return (
        f"{peaks.bandwidth / 1e9:,.1f} GB/s ({where[peaks.bandwidth_source == MEASURED]}), "
        f"{peaks.flops / 1e12:,.3g} TFLOP/s ({where[peaks.flops_source == MEASURED]})"
    )


def _notes(state: State[Cell]) -> list[str]:
    kinds = {
        str(cell.plan["device_kind"])
        for cell in state.listed
        if cell.plan and cell.plan.get("device_kind") and cell.status.measured
    }
    others = sorted(kind for kind in kinds if kind.lower() != "cpu")
    if not others or not state.peaks.measured:
        return []
    return [
        f"- no fraction of the roofline for {', '.join(others)}: give --bandwidth-gbps and "
        "--peak-tflops"
    ]


def _cells(cell: Cell) -> list[str]:
    measured, figures = cell.status.measured, cell.figures if cell.status.measured else {}
    throughput = number(figures.get("output_throughput"), 1)
    if measured and cell.status is Status.INVALID:
        throughput += " (invalid)"
    first = [number(figures.get(f"p{percent}_ttft_ms"), 0) for percent in (50, 99)]
    windows = {True: "rolling", False: "full", None: "-"}
    fraction = cell.roofline_fraction
    return [
        cell.date[:10],
        _device(cell),
        _dtype(cell),
        str(cell.setting.batch_size),
        str(cell.setting.cache_length),
        number(cell.max_input_length, 0, ""),
        number(cell.max_output_length, 0, ""),
        throughput,
        cell.setting.sharding,
        " / ".join(first) if figures else "-",
        number(figures.get("p50_tpot_ms"), 1),
        "-" if fraction is None else f"{fraction:.1%}",
        windows[cell.rolling],
        cell.status.value,
    ]


def _device(cell: Cell) -> str:
    kind, count = (cell.plan or {}).get("device_kind"), _devices(cell)
    if not kind:
        return "-"
    return plain(f"{kind} x {count}" if count > 1 else str(kind))


def _dtype(cell: Cell) -> str:
    """The scheme, or for none the type that our server, which alone has a plan, computes in."""
    kind, scheme = (cell.plan or {}).get("device_kind"), cell.setting.quantize
    if scheme != "none" or not kind:
        return scheme
    return "float32" if str(kind).lower() == "cpu" else "bfloat16"


def _devices(cell: Cell) -> int:
    count = (cell.plan or {}).get("devices")
    return count if isinstance(count, int) and count > 0 else 1

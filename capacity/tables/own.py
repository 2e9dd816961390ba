"""Own runs in the layout of page 004: runtime, memory, energy a token and throughput."""

from collections.abc import Mapping, Sequence

from capacity.calibration.interval import Interval
from capacity.hardware.chip import GIB
from capacity.memory.need import memory_need
from capacity.records.own import FORWARD, RUNTIME, RUNTIMES, THROUGHPUT, OwnRun
from capacity.serving.cost import datasheet_power
from capacity.tables.markdown import fixed, number, percent, table
from capacity.work.forward import forward_memory

# By quantity, what the other runs said of a run.
Estimates = Mapping[str, Interval]


def render_own(runs: Sequence[tuple[OwnRun, Estimates]]) -> list[str]:
    """A row a run; estimates are of a fit that has not seen it."""
    names = ("Runtime (ms)", "Memory (GiB)", "Energy (J/token)", "Throughput (tokens/s)")
    headers = ["Run", "Device", "Runtime of"]
    headers += [f"{name}: {part}" for name in names for part in ("estimated", "measured", "error")]
    headers += ["95% interval (ms)", "Power"]
    return table(headers, [_row(run, estimates) for run, estimates in runs])


def _row(run: OwnRun, estimates: Estimates) -> list[str]:
    where = run.setting.slice
    runtime, throughput = estimates.get(RUNTIME), estimates.get(THROUGHPUT)
    cells = [run.name, where.chip.title + (f" x {where.count}" if where.count > 1 else "")]
    cells += [RUNTIMES[run.kind]]
    cells += _three(_value(runtime), run.runtime_ms, 3)
    cells += _three(_memory(run), None if run.memory is None else run.memory / GIB, 3)
    cells += _three(*_energy(run, _value(throughput)), 3)
    cells += _three(_value(throughput), run.tokens_per_s, 4)
    cells.append("-" if runtime is None else f"{number(runtime.low)} - {number(runtime.high)}")
    return [*cells, _power(run)]


def _three(estimated: float | None, measured: float | None, digits: int) -> list[str]:
    known = estimated is not None and measured is not None
    off = percent(estimated / measured - 1) if known else "-"  # type: ignore[operator]
    return [number(estimated, digits), number(measured, digits), off]


def _value(found: Interval | None) -> float | None:
    return None if found is None else found.value


def _memory(run: OwnRun) -> float | None:
    """Weights and cache as the server counts them; of an eager forward its peak."""
    if run.kind == FORWARD:
        fused = run.forward is None or run.forward.fused
        return None if fused or run.forward is None else forward_memory(run.forward) / GIB
    need = memory_need(run.setting)
    return (need.weights + need.cache) / GIB


def _energy(run: OwnRun, estimated: float | None) -> tuple[float | None, float | None]:
    """From the datasheet, and from the device's own counter."""
    power = datasheet_power(run.setting.slice)
    ours = power.joules_per_token(estimated) if power and estimated else None
    theirs = (
        run.power.joules_per_token(run.tokens_per_s) if run.power and run.tokens_per_s else None
    )
    return ours, theirs


def _power(run: OwnRun) -> str:
    """Whose watts the two energies are made of."""
    power = datasheet_power(run.setting.slice)
    words = [f"{fixed(power.watts, 0)} W {power.source}" if power else ""]
    words += [f"{fixed(run.power.watts, 1)} W {run.power.source}" if run.power else ""]
    return "; ".join(word for word in words if word) or "not known"

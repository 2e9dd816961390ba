"""Our own and imported records that cannot be right."""

from dataclasses import replace

import numpy as np

from capacity.records.own import FORWARD, RUNTIMES, SERVED, STEP, OwnRun
from capacity.sanity.finding import ABOVE_ROOFLINE, CANNOT_FIT, Finding
from capacity.sanity.roofline import beats, memory_excess
from capacity.serving.batch_run import batch_run, batch_throughput
from capacity.timing.efficiency import IDEAL
from capacity.timing.seconds import step_time
from capacity.work.decode import decode_work
from capacity.work.forward import least_work
from capacity.work.setting import Setting
from capacity.work.software import LEAST


def findings_of(run: OwnRun) -> list[Finding]:
    """What is physically impossible about a run."""
    setting = replace(run.setting, software=LEAST)
    longest = int((run.lengths.inputs + run.lengths.outputs).max())
    found = []
    together = min(setting.slots, len(run.lengths.inputs))
    # What this host's memory holds is not in every record of a CPU.
    if setting.slice.chip.kind != "cpu" and (
        problem := memory_excess(run.setting, together, longest)
    ):
        found.append(Finding(run.name, _about(run.setting), CANNOT_FIT, "", problem))
    if run.kind == SERVED and run.tokens_per_s:
        most = batch_throughput(batch_run(setting, run.lengths), IDEAL)
        if beats(run.tokens_per_s, most, more_is_better=True):
            found.append(_above(run, run.tokens_per_s, most, "tokens/s"))
    if run.runtime_ms and beats(
        run.runtime_ms, least := _least(setting, run), more_is_better=False
    ):
        found.append(_above(run, run.runtime_ms, least, f"ms a {RUNTIMES[run.kind]}"))
    return found


def _least(setting: Setting, run: OwnRun) -> float:
    """ms of a forward, of a step of the batch, or of a step for one sequence alone: no token can
    come sooner than the weights are read."""
    if run.kind == FORWARD and run.forward is not None:
        work = least_work(replace(run.forward, windowed=True))
    else:
        rows = setting.slots if run.kind == STEP else 1
        seen = float(np.minimum(run.lengths.inputs, setting.kept_positions).mean())
        alone = setting if run.kind == STEP else replace(setting, slots=setting.replicas)
        work = decode_work(alone, rows, rows * seen)
    return float(step_time(work, setting.slice, IDEAL).total) * 1e3


def _above(run: OwnRun, measured: float, bound: float, unit: str) -> Finding:
    return Finding(
        run.name,
        _about(run.setting),
        ABOVE_ROOFLINE,
        unit,
        f"{measured:,.4g} {unit} measured, and every peak reached gives {bound:,.4g}; either the "
        "record is wrong or the chip's figures are (--chips)",
    )


def _about(setting: Setting) -> str:
    return f"{setting.model.name} on {setting.slice.name}, {setting.slots} slots"

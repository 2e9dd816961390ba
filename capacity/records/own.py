"""A run that was measured, with what it ran on."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from capacity.calibration.observation import Observation
from capacity.serving.batch_run import batch_run, batch_throughput, time_batch
from capacity.serving.cost import Power
from capacity.serving.lengths import Lengths
from capacity.serving.steady import Server
from capacity.timing.efficiency import Efficiency
from capacity.timing.seconds import step_time
from capacity.work.decode import decode_work
from capacity.work.setting import Setting

Predict = Callable[[Efficiency], float]
THROUGHPUT, TPOT, STEP = "tokens/s", "ms TPOT", "ms/step"


@dataclass(frozen=True)
class OwnRun:
    """`lengths`: of the completed requests, in the order they were asked.

    rate: requests a second; None when all were there at the start. decode_only: made in process,
    all rows of a batch together, and `tpot_ms` is a decode step. power: where the device told it.
    """

    name: str
    setting: Setting
    lengths: Lengths
    rate: float | None
    tokens_per_s: float | None = None
    tpot_ms: float | None = None
    decode_only: bool = False
    power: Power | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def tags(self) -> frozenset[str]:
        """For parameters of a scheme or a model."""
        return frozenset({self.setting.weights, self.setting.model.name})


@dataclass(frozen=True)
class Measured:
    """An observation of a run; `unit` says of what."""

    run: OwnRun
    unit: str
    observation: Observation


def observations(run: OwnRun) -> list[Measured]:
    """What a run says of the efficiencies: its throughput when all requests were there at the
    start, and the mean time between tokens.
    """
    if run.decode_only:
        return [_measured(run, STEP, run.tpot_ms, _step(run))] if run.tpot_ms else []
    if run.rate is not None:
        return [_measured(run, TPOT, run.tpot_ms, _steady(run))] if run.tpot_ms else []
    found = []
    plan = batch_run(run.setting, run.lengths)

    def throughput(efficiency: Efficiency) -> float:
        return batch_throughput(plan, efficiency)

    def tpot(efficiency: Efficiency) -> float:
        return float(np.nanmean(time_batch(plan, efficiency).tpot)) * 1e3

    if run.tokens_per_s:
        found.append(_measured(run, THROUGHPUT, run.tokens_per_s, throughput))
    if run.tpot_ms and run.lengths.outputs.max() > 1:
        found.append(_measured(run, TPOT, run.tpot_ms, tpot))
    return found


def _measured(run: OwnRun, unit: str, value: float, predict: Predict) -> Measured:
    return Measured(run, unit, Observation(f"{run.name}, {unit}", value, predict, run.tags))


def _step(run: OwnRun) -> Predict:
    rows = run.setting.slots
    positions = float((run.lengths.inputs + run.lengths.outputs / 2).mean())
    kept = min(positions, run.setting.kept_positions)
    work = decode_work(run.setting, rows, rows * kept)

    def predict(efficiency: Efficiency) -> float:
        return float(step_time(work, run.setting.slice, efficiency).total) * 1e3

    return predict


def _steady(run: OwnRun) -> Predict:
    def predict(efficiency: Efficiency) -> float:
        server = Server(run.setting, run.lengths, efficiency)
        # At and beyond its most the server is full.
        rate = min(run.rate or 0.0, server.most_requests * 0.999)
        steady = server.at_rate(rate)
        return steady.tpot * 1e3

    return predict

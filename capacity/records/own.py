"""A run that was measured, with what it ran on."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from capacity.calibration.observation import Observation
from capacity.serving.batch_run import batch_run, batch_throughput, time_batch
from capacity.serving.cost import Power
from capacity.serving.lengths import Lengths
from capacity.serving.steady import Server
from capacity.timing.efficiency import Efficiency
from capacity.timing.seconds import step_time
from capacity.work.decode import decode_work
from capacity.work.forward import Forward, forward_work
from capacity.work.reading import positions_read
from capacity.work.setting import Setting

Predict = Callable[[Efficiency], float]
SERVED, RATED, STEP, FORWARD = "served", "rated", "decode step", "forward"
RUNTIME, THROUGHPUT = "runtime_ms", "tokens_per_s"
# What runtime means for each kind of run.
RUNTIMES = {SERVED: "TPOT", RATED: "TPOT", STEP: "decode step", FORWARD: "forward"}


@dataclass(frozen=True)
class OwnRun:
    """A measurement.

    kind: SERVED when all requests were there at the start, RATED when they came at `rate` a second,
    STEP for a batch decoded in process, FORWARD for passes without a KV cache (`forward`).
    lengths: of the completed requests, in the order they were asked.
    runtime_ms: what `RUNTIMES` says of the kind. tokens_per_s: made, for FORWARD read.
    memory: bytes of a chip, where it was told. power: where the device measured it.
    """

    name: str
    kind: str
    setting: Setting
    lengths: Lengths
    rate: float | None = None
    forward: Forward | None = None
    runtime_ms: float | None = None
    tokens_per_s: float | None = None
    memory: float | None = None
    power: Power | None = None

    @property
    def tags(self) -> frozenset[str]:
        """For parameters of a scheme or a model."""
        return self.setting.tags

    @property
    def tokens(self) -> int:
        """Of a forward."""
        return self.forward.count if self.forward is not None else 0


def predictions(run: OwnRun) -> dict[str, Predict]:
    """Runtime and throughput as functions of the efficiencies."""
    if run.kind == FORWARD:
        return _forward(run)
    if run.kind == STEP:
        return _step(run)
    return _served(run) if run.kind == SERVED else _rated(run)


def observations(run: OwnRun) -> list[Observation]:
    """What a run says of the efficiencies: its runtime, and of a served run its throughput too.

    Where throughput is the runtime in other words, or is what the clients asked for, it says
    nothing of its own.
    """
    wanted = (RUNTIME, THROUGHPUT) if run.kind == SERVED else (RUNTIME,)
    found = []
    for name, predict in predictions(run).items():
        measured = getattr(run, name)
        if name in wanted and measured:
            found.append(Observation(f"{run.name}, {name}", measured, predict, run.tags))
    return found


def _served(run: OwnRun) -> dict[str, Predict]:
    plan = batch_run(run.setting, run.lengths)
    found: dict[str, Predict] = {THROUGHPUT: lambda e: batch_throughput(plan, e)}
    if run.lengths.outputs.max() > 1:
        found[RUNTIME] = lambda e: float(np.nanmean(time_batch(plan, e).tpot)) * 1e3
    return found


def _rated(run: OwnRun) -> dict[str, Predict]:
    def tpot(efficiency: Efficiency) -> float:
        server = Server(run.setting, run.lengths, efficiency)
        # At and beyond its most the server is full.
        return server.at_rate(min(run.rate or 0.0, server.most_requests * 0.999)).tpot * 1e3

    return {RUNTIME: tpot}


def _step(run: OwnRun) -> dict[str, Predict]:
    rows = run.setting.slots
    positions = float((run.lengths.inputs + run.lengths.outputs / 2).mean())
    positions = min(positions, run.setting.kept_positions)
    work = decode_work(run.setting, rows, positions_read(run.setting, rows * positions, positions))

    def seconds(efficiency: Efficiency) -> float:
        return float(step_time(work, run.setting.slice, efficiency).total)

    return {RUNTIME: lambda e: seconds(e) * 1e3, THROUGHPUT: lambda e: rows / seconds(e)}


def _forward(run: OwnRun) -> dict[str, Predict]:
    if run.forward is None:
        raise ValueError(f"{run.name}: a forward without its sizes")
    work = forward_work(run.forward)

    def seconds(efficiency: Efficiency) -> float:
        return float(step_time(work, run.setting.slice, efficiency).total)

    return {RUNTIME: lambda e: seconds(e) * 1e3, THROUGHPUT: lambda e: run.tokens / seconds(e)}

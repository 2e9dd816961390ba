"""Settings to choose from, and how much each can take by the closed form."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from capacity.hardware.chip import GIB
from capacity.hardware.slice import Slice
from capacity.memory.need import largest_batch, memory_need
from capacity.planning.curve import Curve, steady_curve
from capacity.planning.reason import Reason
from capacity.serving.lengths import Lengths
from capacity.simulation.step_model import StepModel, step_model
from capacity.simulation.target import Target, bounds_missed
from capacity.work.setting import Setting
from client.errors import UsageError

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
DOES_NOT_FIT, TOO_SLOW, IMPOSSIBLE = "does not fit", "too slow", "impossible at every peak"
NOT_KNOWN = "a figure is not known"


@dataclass(frozen=True)
class Choices:
    """What may be chosen; every combination is a candidate. batches: None for powers of two up to
    the largest that fits, and that."""

    base: Setting
    slices: Sequence[Slice]
    weights: Sequence[str]
    shardings: Sequence[str]
    cache: str | None
    cache_lengths: Sequence[int]
    batches: Sequence[int] | None = None

    def groups(self) -> Iterator[Setting]:
        """All but the batch, each with the fewest slots."""
        for where in self.slices:
            for sharding in self.shardings:
                if sharding == "batch" and where.count == 1:
                    continue
                for weights in self.weights:
                    for length in self.cache_lengths:
                        yield replace(
                            self.base,
                            slice=where,
                            sharding=sharding,
                            weights=weights,
                            cache=self.cache or ("int8" if weights == "int8" else "none"),
                            cache_length=length,
                            slots=where.count if sharding == "batch" else 1,
                        )

    def batches_of(self, setting: Setting) -> list[int]:
        """Of a group, those that fit."""
        least, most = setting.replicas, largest_batch(setting)
        if self.batches is not None:
            return [each for each in self.batches if each <= most and each % least == 0]
        found = {each * least for each in BATCHES if each * least <= most}
        return sorted(found | ({min(most, 2 * BATCHES[-1] * least)} if most else set()))


@dataclass(frozen=True)
class Candidate:
    """A setting with what a replica of it can take while it keeps the service level on average.

    rate: requests a second of a replica; replicas: that the traffic takes. active: sequences at a
    time in each.
    """

    setting: Setting
    model: StepModel
    rate: float
    replicas: int
    active: float
    ttft: float
    tpot: float

    @property
    def chips(self) -> int:
        """Of all replicas."""
        return self.replicas * self.setting.slice.count

    @property
    def key(self) -> tuple[str, str, str]:
        """Candidates with one key differ in batch and cache length only."""
        return self.setting.slice.name, self.setting.weights, self.setting.sharding


def screen(
    choices: Choices,
    group: Setting,
    lengths: Lengths,
    rate: float,
    target: Target,
    values: dict[str, float],
    load: float,
) -> tuple[list[Candidate], list[Reason]]:
    """The candidates of a group that keep the level by the closed form, and why others do not.

    `load`: the most that a replica is given, as a share of what it can take.
    """
    batches = choices.batches_of(group)
    if not batches:
        need = memory_need(group)
        return [], [
            Reason(
                DOES_NOT_FIT,
                group,
                need.total / need.limit,
                f"{need.total / GIB:.1f} GiB of {need.limit / GIB:.1f}",
            )
        ]
    try:
        impossible = bounds_missed(target, group, lengths)
    except UsageError as error:
        # A chip whose links nobody knows cannot be timed in a group.
        return [], [Reason(NOT_KNOWN, group, math.inf, str(error).splitlines()[0])]
    if impossible:
        return [], [Reason(IMPOSSIBLE, group, math.inf, "; ".join(impossible))]
    found, reasons = [], []
    for slots in batches:
        setting = replace(group, slots=slots)
        model = step_model(setting, values)
        one = _candidate(setting, model, steady_curve(model, lengths), rate, target, load)
        if isinstance(one, Candidate):
            found.append(one)
        else:
            reasons.append(one)
    # A batch that is too slow does not rule out the group when a smaller one is not.
    return found, [] if found else [min(reasons, key=lambda each: each.distance)]


def _candidate(
    setting: Setting, model: StepModel, curve: Curve, rate: float, target: Target, load: float
) -> Candidate | Reason:
    kept = curve.rate <= load * curve.most
    for name, _, limit in target.needs:
        kept &= getattr(curve, name) * 1e3 <= limit
    if not kept.any():
        over = [
            (getattr(curve, name)[0] * 1e3 / limit, name, getattr(curve, name)[0] * 1e3, limit)
            for name, _, limit in target.needs
        ]
        ratio, name, value, limit = max(over)
        text = f"{name.upper()} {value:,.3g} ms at one sequence > {limit:g} ms"
        return Reason(TOO_SLOW, setting, ratio, text)
    best = int(np.flatnonzero(kept)[-1])
    replicas = max(math.ceil(rate / float(curve.rate[best]) - 1e-9), 1)
    # Each of them then has less to do than it could.
    share = rate / replicas
    at = min(int(np.searchsorted(curve.rate, share)), best)
    return Candidate(
        setting,
        model,
        float(curve.rate[best]),
        replicas,
        float(curve.active[at]),
        float(curve.ttft[at]),
        float(curve.tpot[at]),
    )

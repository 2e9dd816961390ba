"""Error on measurements that a fit has not seen."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from capacity.calibration.fit import Posterior, fit
from capacity.calibration.interval import Interval, interval
from capacity.calibration.observation import Observation
from capacity.timing.efficiency import Prior
from client.errors import UsageError


@dataclass(frozen=True)
class HeldOut:
    """A measurement and what the others said it would be."""

    observation: Observation
    predicted: Interval

    @property
    def error(self) -> float:
        """Relative to the measurement: 0.1 is 10% too much."""
        return self.predicted.value / self.observation.measured - 1

    @property
    def inside(self) -> bool:
        """Whether the measurement is inside the interval."""
        return self.predicted.holds(self.observation.measured)


@dataclass(frozen=True)
class ErrorSummary:
    """Of absolute relative errors, as shares. `most`: what nine of ten stay within. `coverage`: of
    measurements inside their interval, `narrow` inside their 90% interval."""

    count: int
    median: float
    mean: float
    most: float
    largest: float
    coverage: float
    narrow: float

    def __str__(self) -> str:
        inside, narrow = (round(share * self.count) for share in (self.coverage, self.narrow))
        return (
            f"median {self.median:.1%}, mean {self.mean:.1%}, 90th percentile {self.most:.1%}, "
            f"largest {self.largest:.1%}; of {self.count} {inside} inside their 95% intervals, "
            f"{narrow} inside those of 90%"
        )


def leave_out(
    observations: Sequence[Observation],
    priors: Mapping[str, Prior],
    noise: float,
    group: Callable[[Observation], Hashable] | None = None,
    always: Sequence[Observation] = (),
) -> list[HeldOut]:
    """Each measurement predicted by a fit to the others; with `group`, to all other groups.

    `always` is in every fit and is not left out. UsageError when there is nothing to fit to.
    """
    if len(observations) + len(always) < 2:
        raise UsageError(
            f"{len(observations)} measurement to calibrate with; leaving one out takes two or more"
        )
    key = group or (lambda observation: id(observation))
    fits: dict[Hashable, Posterior] = {}
    found = []
    for left in observations:
        if key(left) not in fits:
            rest = [each for each in observations if key(each) != key(left)]
            fits[key(left)] = fit([*rest, *always], priors, noise)
        expected = interval(left.predict, fits[key(left)], left.tags, error=left.error)
        found.append(HeldOut(left, expected))
    return found


def summarise(held_out: Sequence[HeldOut]) -> ErrorSummary:
    """Absolute errors, and how many were inside their intervals."""
    errors = np.abs([each.error for each in held_out])
    return ErrorSummary(
        len(errors),
        float(np.median(errors)),
        float(errors.mean()),
        float(np.quantile(errors, 0.9)),
        float(errors.max()),
        float(np.mean([each.inside for each in held_out])),
        float(np.mean([each.predicted.holds(each.observation.measured, 0.9) for each in held_out])),
    )

"""How far a prediction may be off."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from capacity.calibration.fit import Posterior
from capacity.timing.efficiency import Efficiency, efficiency_of
from client.results.comparison_repeats import CONFIDENCE, student_t

_STEP = 1e-4


@dataclass(frozen=True)
class Interval:
    """A prediction with the bounds that a measurement stays within, 95 times of 100.

    freedom: of Student's t, which they were made with.
    """

    value: float
    low: float
    high: float
    freedom: float

    def holds(self, measured: float, confidence: float = CONFIDENCE) -> bool:
        """Whether a measurement is inside, of bounds that are right so often."""
        reach = np.log(self.high / self.value)
        reach *= student_t(self.freedom, confidence) / student_t(self.freedom)
        return bool(abs(np.log(measured / self.value)) <= reach)


def interval(
    predict: Callable[[Efficiency], float],
    posterior: Posterior,
    tags: frozenset[str] = frozenset(),
    noise: bool = True,
    error: float = 0.0,
) -> Interval:
    """Of what `predict` gives with the parameters of a posterior.

    In the logarithm: student_t * sqrt(g' C g + noise^2 + error^2), g the derivatives by the
    logarithms of the parameters. Without `noise` it is for the mean of many measurements; `error`
    is the own one of the measurement that is to be inside. Student's t has the freedom that the
    noise was estimated with.
    """
    value = predict(efficiency_of(posterior.values, tags))
    gradient = np.array([_derivative(predict, posterior, tags, name) for name in posterior.free])
    variance = float(gradient @ posterior.covariance @ gradient) if posterior.free else 0.0
    variance += (posterior.noise**2 if noise else 0.0) + error**2
    freedom = max(posterior.freedom, 1.0)
    reach = student_t(freedom) * np.sqrt(variance)
    return Interval(value, float(value * np.exp(-reach)), float(value * np.exp(reach)), freedom)


def _derivative(
    predict: Callable[[Efficiency], float],
    posterior: Posterior,
    tags: frozenset[str],
    name: str,
) -> float:
    def at(factor: float) -> float:
        moved = {**posterior.values, name: posterior.values[name] * factor}
        return float(np.log(predict(efficiency_of(moved, tags))))

    return (at(np.exp(_STEP)) - at(np.exp(-_STEP))) / (2 * _STEP)

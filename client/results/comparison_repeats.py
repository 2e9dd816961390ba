"""The interval of a ratio of means, from repeats."""

import math
from collections.abc import Sequence

import numpy as np

CONFIDENCE = 0.95
# Gauss-Legendre points: the tails agree with tables to more than six digits.
_POINTS = 64
# Just above the value for one degree of freedom.
_LARGEST = 13.0


def ratio_interval(baseline: Sequence[float], other: Sequence[float]) -> tuple[float, float] | None:
    """95% interval of mean(other) / mean(baseline), from at least two runs on one side.

    Student's t on the logarithm of the ratio: the variance of a mean, relative to its square, adds
    up over the sides (delta method), with Welch's degrees of freedom. A side of one run is taken to
    vary as the other does. None when both have one run or a mean is not above 0.
    """
    if max(len(baseline), len(other)) < 2 or not (baseline and other):
        return None
    means = np.mean(baseline), np.mean(other)
    if min(means) <= 0:
        return None
    parts = [_Part.of(baseline), _Part.of(other)]
    known = [part for part in parts if part.freedom]
    if len(known) == 1:
        variance = sum(known[0].variance / part.runs for part in parts)
        freedom = float(known[0].freedom)
    else:
        variance = sum(part.variance / part.runs for part in parts)
        terms = ((part.variance / part.runs) ** 2 / part.freedom for part in parts)
        below = sum(terms)
        # The squares of tiny variances are 0.
        freedom = variance**2 / below if below else float(sum(part.freedom for part in parts))
    ratio = float(means[1] / means[0])
    if variance == 0:
        return ratio, ratio
    reach = student_t(freedom) * math.sqrt(variance)
    return ratio * math.exp(-reach), ratio * math.exp(reach)


def student_t(freedom: float, confidence: float = CONFIDENCE) -> float:
    """The value Student's t stays within, either way, with this probability; by bisection.

    With t = sqrt(freedom) * tan(angle) the density becomes cos(angle)^(freedom - 1), which is
    integrated from 0. `freedom` is 1 or more.
    """
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2))
    scale /= math.sqrt(math.pi)
    nodes, weights = np.polynomial.legendre.leggauss(_POINTS)

    def below(angle: float) -> float:
        angles = (nodes + 1) * angle / 2
        return 0.5 + scale * float(weights @ np.cos(angles) ** (freedom - 1)) * angle / 2

    low, high = 0.0, math.atan(_LARGEST / math.sqrt(freedom))
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) < (1 + confidence) / 2 else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


class _Part:
    """One side: its runs, and the variance of one run relative to the square of the mean."""

    def __init__(self, runs: int, variance: float) -> None:
        self.runs = runs
        self.freedom = runs - 1
        self.variance = variance

    @classmethod
    def of(cls, values: Sequence[float]) -> "_Part":
        if len(values) < 2:
            return cls(len(values), 0.0)
        return cls(len(values), float(np.var(values, ddof=1) / np.mean(values) ** 2))

"""Rates that change over a run."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from client.errors import UsageError

RAMPS = ("linear", "exponential")


@dataclass(frozen=True)
class Ramp:
    """From `start_rate` to `end_rate`, requests per second, over the whole run.

    linear: the rate grows by the same amount every second; exponential: by the same factor.
    """

    strategy: str
    start_rate: float
    end_rate: float

    def __post_init__(self) -> None:
        if self.strategy not in RAMPS:
            raise UsageError(f"--ramp-up-strategy: {', '.join(RAMPS)}; got {self.strategy!r}")
        rates = (self.start_rate, self.end_rate)
        if not all(0 <= rate < math.inf for rate in rates) or not any(rates):
            raise UsageError(
                "--ramp-up-start-rps and --ramp-up-end-rps: requests per second, 0 or more and "
                f"not both 0; got {self.start_rate} and {self.end_rate}"
            )
        if self.strategy == "exponential" and not all(rates):
            raise UsageError(
                "an exponential ramp neither leaves nor reaches 0; give rates above 0, or "
                "--ramp-up-strategy linear"
            )

    @property
    def mean_rate(self) -> float:
        """Requests per second over the whole run."""
        start, end = self.start_rate, self.end_rate
        if self.strategy == "linear" or math.isclose(start, end, rel_tol=1e-9):
            return (start + end) / 2
        return (end - start) / math.log(end / start)

    def times(self, shares: np.ndarray) -> np.ndarray:
        """When these shares of all requests have come, as shares of the run; both 0 to 1."""
        start, end = self.start_rate, self.end_rate
        if math.isclose(start, end, rel_tol=1e-9):
            return shares
        if self.strategy == "exponential":
            return np.log1p(shares * (end / start - 1)) / math.log(end / start)
        # start * t + (end - start) * t^2 / 2 = share * (start + end) / 2, in the form that keeps
        # its digits when start and end are close.
        root = np.sqrt(start**2 + shares * (end**2 - start**2))
        return shares * (start + end) / np.maximum(start + root, np.finfo(float).tiny)


@dataclass(frozen=True)
class Stage:
    """`rate` requests per second for `seconds`."""

    rate: float
    seconds: float

    def __post_init__(self) -> None:
        if not 0 <= self.rate < math.inf or not 0 < self.seconds < math.inf:
            raise UsageError(
                "--stages: a rate of 0 or more and seconds above 0; got "
                f"{self.rate:g}:{self.seconds:g}"
            )


def stage_times(stages: Sequence[Stage], requests: np.ndarray) -> np.ndarray:
    """The seconds at which so many requests have come, each from 0 to below the total."""
    starts = np.array([0.0, *accumulate(stage.seconds for stage in stages)])[:-1]
    before = np.array([0.0, *accumulate(stage.rate * stage.seconds for stage in stages)])[:-1]
    rates = np.array([stage.rate for stage in stages])
    # From the right: a stage of rate 0 starts at the same count as the next one, and is passed by.
    at = np.searchsorted(before, requests, side="right") - 1
    return starts[at] + (requests - before[at]) / np.where(rates[at] > 0, rates[at], 1.0)

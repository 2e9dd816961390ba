"""When each request is due, fixed before the run."""

import math
from dataclasses import dataclass

import numpy as np

from client.errors import UsageError
from client.load.rates import Ramp, Stage, stage_times

PROCESSES = ("constant", "poisson", "gamma")


@dataclass(frozen=True)
class Arrivals:
    """How requests arrive. Rates in requests per second.

    `process`: constant gaps; "poisson", exponential gaps; "gamma", gamma gaps of shape
    `burstiness`: 1 is Poisson, less comes in bursts, more is evener. `rate` inf: all at once.
    With a `ramp`, or with `stages` one after another, the rate changes and `rate` stays inf.
    """

    process: str = "poisson"
    rate: float = math.inf
    burstiness: float = 1.0
    ramp: Ramp | None = None
    stages: tuple[Stage, ...] = ()

    def __post_init__(self) -> None:
        if self.process not in PROCESSES:
            raise UsageError(f"--arrivals: {', '.join(PROCESSES)}; got {self.process!r}")
        if not self.rate > 0:
            raise UsageError(f"request rate: requests per second above 0, or inf; got {self.rate}")
        if not 0 < self.burstiness < math.inf:
            raise UsageError(f"--burstiness: above 0; got {self.burstiness}")
        if self.burstiness != 1 and self.process != "gamma":
            raise UsageError(
                f"--burstiness is for --arrivals gamma, not {self.process}; leave one of them out"
            )
        given = (not math.isinf(self.rate), self.ramp is not None, bool(self.stages))
        if sum(given) > 1:
            raise UsageError("--request-rate, --ramp-up-strategy and --stages: give one of them")
        if self.stages and not any(stage.rate for stage in self.stages):
            raise UsageError("--stages: one rate at least must be above 0")

    @property
    def at_once(self) -> bool:
        """Whether all requests are due at the start."""
        return math.isinf(self.rate) and self.ramp is None and not self.stages

    @property
    def mean_rate(self) -> float:
        """Requests per second over the whole run; inf: all at once."""
        if self.ramp is not None:
            return self.ramp.mean_rate
        if self.stages:
            return self._in_stages / sum(stage.seconds for stage in self.stages)
        return self.rate

    def count_in(self, duration: float | None) -> int:
        """How many requests a run of `duration` seconds has; stages bring their own duration.

        Raises `UsageError` when that cannot be said, or is less than one.
        """
        if self.stages:
            if duration is not None:
                raise UsageError("--stages bring their own duration; leave out --duration")
            expected = self._in_stages
        elif duration is None or not 0 < duration < math.inf:
            raise UsageError(f"--duration: seconds above 0; got {duration}")
        elif self.at_once:
            raise UsageError(
                "--duration needs --request-rate, --ramp-up-strategy or --stages; all at once "
                "there is no telling how many requests"
            )
        else:
            expected = self.mean_rate * duration
        if round(expected) < 1:
            raise UsageError(
                f"so low a rate gives {expected:.2g} requests in the whole run; raise it or make "
                "the run longer"
            )
        return round(expected)

    @property
    def _in_stages(self) -> float:
        return sum(stage.rate * stage.seconds for stage in self.stages)


def check_rate(rate: float) -> float:
    """A rate in requests per second; 0 and inf mean all at once and give inf.

    Raises `UsageError` for a negative rate or one that is not a number.
    """
    if not rate >= 0:
        raise UsageError(
            f"request rate: requests per second, or 0 or inf for all at once; got {rate}"
        )
    return rate or math.inf


def arrival_times(
    arrivals: Arrivals, count: int | None, duration: float | None, seed: int
) -> np.ndarray:
    """Seconds from the start at which each request is due, in order; the first at 0.

    Give `count`, the number of requests, or `duration`, the seconds they are spread over (neither,
    where stages say it): then they are as many as the rate gives in that time, rounded. The gaps
    are drawn with mean 1 and scaled so that their mean is exactly that (a process given its count;
    a short run would otherwise miss its rate by several percent), and the inverse of the cumulative
    rate maps them to seconds. The same arguments give the same times. Raises `UsageError` when
    both are given, or more requests are asked for than stages hold.
    """
    if count is not None and duration is not None:
        raise UsageError("give a number of requests or a duration, not both")
    if count is None:
        count = arrivals.count_in(duration)
    if arrivals.at_once or count < 2:
        return np.zeros(count)
    times = _in_seconds(arrivals, count, duration, _in_requests(arrivals, count, seed))
    return np.maximum.accumulate(times)  # rounding may put one a hair before the one before it


def _in_requests(arrivals: Arrivals, count: int, seed: int) -> np.ndarray:
    """Arrivals at a rate of one a unit of time: `count` of them, from 0 to count - 1."""
    generator = np.random.default_rng(seed)
    if arrivals.process == "constant":
        return np.arange(count, dtype=float)
    if arrivals.process == "gamma":
        gaps = generator.gamma(arrivals.burstiness, size=count - 1)
        # A small shape gives gaps too small to be told from 0; all of them have no mean.
        gaps = np.maximum(gaps, np.finfo(float).tiny)
    else:
        gaps = generator.exponential(1.0, count - 1)
    return np.concatenate([[0.0], np.cumsum(gaps / gaps.mean())])


def _in_seconds(
    arrivals: Arrivals, count: int, duration: float | None, requests: np.ndarray
) -> np.ndarray:
    if arrivals.stages:
        held = arrivals.count_in(None)
        if count > held:
            raise UsageError(f"the stages hold {held} requests; asked for {count}")
        return stage_times(arrivals.stages, requests)
    if arrivals.ramp is None:
        return requests / arrivals.rate
    seconds = count / arrivals.mean_rate if duration is None else duration
    return seconds * arrivals.ramp.times(requests / (seconds * arrivals.mean_rate))

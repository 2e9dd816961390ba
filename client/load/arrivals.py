"""When each request is due, fixed before the run."""

import numpy as np

from client.errors import UsageError


def check_rate(rate: float) -> float:
    """A rate in requests per second; 0 and inf mean all at once and give inf.

    Raises `UsageError` for a negative rate or one that is not a number.
    """
    if not rate >= 0:
        raise UsageError(
            f"request rate: requests per second, or 0 or inf for all at once; got {rate}"
        )
    return rate or float("inf")


def arrival_times(count: int, rate: float, seed: int) -> np.ndarray:
    """Seconds from the start at which each of `count` requests is due, in order.

    Poisson arrivals of `rate` requests per second: exponential gaps, the first request at 0, scaled
    so that the mean gap is 1 / rate exactly (a Poisson process given its count; a short run would
    otherwise miss its rate by several percent). The same count, rate and seed give the same times.
    Rate inf: all at 0.
    """
    if rate == float("inf") or count < 2:
        return np.zeros(count)
    gaps = np.random.default_rng(seed).exponential(1.0, count - 1)
    return np.concatenate([[0.0], np.cumsum(gaps / (gaps.mean() * rate))])

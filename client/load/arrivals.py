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

    Poisson arrivals of `rate` requests per second: exponential gaps, the first request at 0. The
    same count, rate and seed give the same times. Rate inf: all at 0.
    """
    if rate == float("inf"):
        return np.zeros(count)
    gaps = np.random.default_rng(seed).exponential(1 / rate, max(count - 1, 0))
    return np.concatenate([np.zeros(min(count, 1)), np.cumsum(gaps)])

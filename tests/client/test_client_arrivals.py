"""When requests are due."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.errors import UsageError
from client.load.arrivals import arrival_times, check_rate


@given(st.integers(0, 200), st.floats(0.01, 1000), st.integers(0, 2**32))
def test_arrivals_are_fixed_by_the_seed_ordered_and_start_at_once(count, rate, seed):
    times = arrival_times(count, rate, seed)
    assert times.shape == (count,)
    assert np.array_equal(times, arrival_times(count, rate, seed))
    assert (np.diff(times) >= 0).all()
    assert count == 0 or times[0] == 0
    assert count < 2 or times[-1] == pytest.approx((count - 1) / rate)


def test_arrivals_are_poisson_at_the_rate_asked_for():
    times = arrival_times(20_000, 50.0, 3)
    counts = np.bincount(times.astype(int))[:-1]
    # The index of dispersion of a Poisson process is 1; constant gaps give 0.
    assert counts.var() / counts.mean() == pytest.approx(1.0, abs=0.2)


def test_other_seeds_give_other_arrivals():
    assert not np.array_equal(arrival_times(10, 5.0, 0), arrival_times(10, 5.0, 1))


@pytest.mark.parametrize("rate", [0.0, math.inf])
def test_zero_and_infinity_are_all_at_once(rate):
    assert arrival_times(5, check_rate(rate), 0).tolist() == [0.0] * 5


@pytest.mark.parametrize("rate", [-1.0, -math.inf, math.nan])
def test_other_rates_are_refused(rate):
    with pytest.raises(UsageError, match="requests per second"):
        check_rate(rate)

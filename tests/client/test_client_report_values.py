"""What the charts of a report show: series, shares, samples, and what counts as a number."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_inputs import made_records

from client.results.page.distributions import cumulative, histogram
from client.results.page.over_time import bin_width, series_of
from client.results.page.requests import requests_from
from client.results.page.timeline import MOST_BARS, sample
from client.results.page.values import finite, number, text
from client.results.rows import row


@given(
    st.integers(0, 40),
    st.floats(0.5, 50),
    st.integers(0, 1000),
    st.floats(0, 1),
    st.integers(1, 30),
)
def test_series_keep_every_token_and_the_peak(count, rate, seed, failing, tokens):
    records = made_records(count, tokens, rate, seed, failing)
    requests = requests_from([row(record, with_text=False) for record in records])
    duration = max((record.ended or 0.0 for record in records), default=0.0)
    series = series_of(requests, duration)
    assert 1 <= series.starts.size <= 101
    spans = np.minimum(series.starts + series.width, max(duration, 1e-3)) - series.starts
    came = sum(record.tokens for record in records)
    assert (series.tokens_per_s * spans).sum() == pytest.approx(came)
    assert series.in_flight.max() == _peak(records)


def _peak(records) -> int:
    """Counted the slow way: how many are open just after each is sent."""
    opens = [(record.sent, record.ended) for record in records]
    return max((sum(a <= at < b for a, b in opens) for at, _ in opens), default=0)


@given(st.floats(1e-3, 1e6))
def test_bins_are_round_and_few(length):
    width = bin_width(length)
    assert length / width <= 100 + 1e-6
    mantissa = width / 10 ** math.floor(math.log10(width) + 1e-9)
    assert any(mantissa == pytest.approx(step) for step in (1, 2, 5))


@given(st.lists(st.floats(0, 1e5), min_size=1, max_size=60))
def test_shares_add_up_and_grow(values):
    array = np.array(values)
    assert histogram(array, np.linspace(0, 1e5, 20)).sum() == pytest.approx(100)
    times, percent = cumulative(array)
    assert (np.diff(times) >= 0).all() and (np.diff(percent) > 0).all()
    assert (times[0], times[-1]) == (array.min(), array.max())


def test_a_sample_is_seeded_ordered_and_fair():
    chosen = sample(10 * MOST_BARS, MOST_BARS)
    assert (np.diff(chosen) > 0).all() and chosen.size == MOST_BARS
    assert (chosen == sample(10 * MOST_BARS, MOST_BARS)).all()
    tenths = Counter((chosen // MOST_BARS).tolist())
    assert min(tenths.values()) > 140 and len(tenths) == 10
    assert (sample(3, MOST_BARS) == [0, 1, 2]).all()


@pytest.mark.parametrize("value", [None, True, "7", [1], math.inf, math.nan, 10**400])
def test_only_numbers_are_numbers(value):
    assert finite(value) is None
    assert number(value) == "-"
    assert text(value)

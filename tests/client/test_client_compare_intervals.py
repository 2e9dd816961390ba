"""Intervals against tables, numpy and simulation."""

import math
from dataclasses import replace

import numpy as np
import pytest
from client_records import streamed
from hypothesis import given, settings
from hypothesis import strategies as st

from client.results.comparison_bootstrap import resample_ratios, same_requests
from client.results.comparison_column import Column
from client.results.comparison_repeats import ratio_interval, student_t
from client.results.goodput import ServiceLevel
from client.results.records import Outcome

POSITIVE = st.floats(0.01, 1e4)


@pytest.mark.parametrize(
    ("freedom", "expected"),
    # A printed table's two-sided 95% values.
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (5, 2.5706), (10, 2.2281), (30, 2.0423), (1e5, 1.96)],
)
def test_students_t_is_that_of_the_tables(freedom, expected):
    assert student_t(freedom) == pytest.approx(expected, abs=6e-5)


def test_the_interval_holds_the_true_ratio_as_often_as_it_says():
    random = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        low, high = ratio_interval(
            random.normal(100, 8, 4).tolist(), random.normal(130, 4, 5).tolist()
        )
        held += low <= 1.3 <= high
    # 380 of 400 are due; four standard deviations are 17.
    assert 363 <= held <= 397


@given(st.lists(POSITIVE, min_size=1, max_size=5), st.lists(POSITIVE, min_size=1, max_size=5))
def test_an_interval_of_repeats_is_around_the_ratio_and_turns_over_with_it(first, second):
    found = ratio_interval(first, second)
    if len(first) == len(second) == 1:
        assert found is None
        return
    ratio = np.mean(second) / np.mean(first)
    low, high = found
    assert low <= ratio * (1 + 1e-9)
    assert high >= ratio * (1 - 1e-9)
    turned = ratio_interval(second, first)
    if math.isfinite(high) and low > 1e-300:
        assert turned == pytest.approx((1 / high, 1 / low))


def test_two_runs_a_side_by_hand():
    """Relative variances of 0.02 each: Welch gives two degrees of freedom."""
    reach = 4.3027 * math.sqrt(0.02 / 2 + 0.02 / 2)
    expected = 2 * math.exp(-reach), 2 * math.exp(reach)
    assert ratio_interval([9.0, 11.0], [18.0, 22.0]) == pytest.approx(expected, rel=1e-4)


def test_a_side_of_one_run_is_taken_to_vary_as_the_other():
    alone = ratio_interval([100.0], [99.0, 101.0, 100.0])
    both = ratio_interval([99.0, 101.0, 100.0], [99.0, 101.0, 100.0])
    assert alone[0] < 1 < alone[1]
    assert alone[1] - alone[0] > both[1] - both[0]


def test_no_interval_around_nothing():
    assert ratio_interval([0.0, 0.0], [1.0, 2.0]) is None
    assert ratio_interval([], [1.0, 2.0]) is None


@given(
    st.lists(st.tuples(st.floats(0, 100), st.integers(0, 3)), min_size=1, max_size=30),
    st.lists(st.integers(0, 3), min_size=4, max_size=4),
    st.floats(0, 100),
)
def test_drawn_figures_are_numpys_over_the_repeated_values(pairs, times, percent):
    values = np.array([value for value, _ in pairs])
    owners = np.array([owner for _, owner in pairs])
    column = Column(values, owners)
    drawn = np.repeat(values, np.array(times)[owners])
    if not drawn.size:
        assert math.isnan(column.figure(percent, np.array(times)))
        return
    expected = np.quantile(drawn, percent / 100)
    assert column.figure(percent, np.array(times)) == pytest.approx(expected, abs=1e-9)
    assert column.figure(None, np.array(times)) == pytest.approx(drawn.mean())


def a_run(count, seed, factor=1.0):
    """Requests with random latencies; the prompts are the same for every seed."""
    random = np.random.default_rng(seed)
    records = []
    for index in range(count):
        first = 0.1 + random.exponential(0.2)
        times = first + np.concatenate([[0.0], np.cumsum(random.gamma(4, 0.01, 20))])
        arrivals = [(float(time) * factor + index, 1) for time in times]
        records.append(streamed(arrivals, scheduled=float(index), sent=float(index), index=index))
    return records


METRICS = ["median_ttft_ms", "mean_e2el_ms", "p99_itl_ms", "p99_ttft_ms", "completed_share"]


def test_a_run_against_itself_has_no_width():
    found = resample_ratios(a_run(60, 1), a_run(60, 1), METRICS)
    # 60 requests do not bound their 99th percentile; their 1,200 gaps do.
    assert set(found) == set(METRICS) - {"p99_ttft_ms"}
    assert {each.interval for each in found.values()} == {(1.0, 1.0)}


@settings(max_examples=5, deadline=None)
@given(st.floats(1.05, 3))
def test_the_same_requests_made_slower_give_that_ratio(factor):
    found = resample_ratios(a_run(30, 2), a_run(30, 2, factor), METRICS[:3])
    for each in found.values():
        assert each.interval == pytest.approx((factor, factor), rel=1e-6)


def test_figures_of_the_whole_runs_are_numpys():
    first, second = a_run(40, 3), a_run(40, 4)
    found = resample_ratios(first, second, METRICS)["median_ttft_ms"]
    waits = [1e3 * (record.arrivals.times[0] - record.sent) for record in first]
    assert found.baseline == pytest.approx(np.median(waits))
    low, high = found.interval
    assert low < found.other / found.baseline < high
    # The same draws again.
    assert resample_ratios(first, second, METRICS)["median_ttft_ms"].interval == (low, high)


def test_an_interval_narrows_with_more_requests():
    def width(count):
        runs = a_run(count, 5), a_run(count, 6)
        low, high = resample_ratios(*runs, ["mean_ttft_ms"])["mean_ttft_ms"].interval
        return high / low

    assert width(1600) < width(100)


def test_runs_of_few_requests_have_none():
    assert resample_ratios(a_run(9, 1), a_run(9, 2), METRICS) == {}


def test_shares_of_requests_have_an_interval():
    failed = np.random.default_rng(0).permutation(200) < 100
    half = [
        replace(record, outcome=Outcome.FAILED) if fails else record
        for record, fails in zip(a_run(200, 1), failed, strict=True)
    ]
    level = ServiceLevel(ttft=10_000)
    found = resample_ratios(a_run(200, 2), half, ["completed_share", "goodput_share"], level)
    for each in found.values():
        low, high = each.interval
        assert 0.3 < low < 0.5 < high < 0.7


def test_other_prompts_are_not_paired():
    first = a_run(20, 1)
    assert same_requests(first, a_run(20, 2))
    assert not same_requests(first, [*a_run(20, 2)[1:], streamed([(1.0, 1)])])
    assert not same_requests(first, a_run(19, 2))

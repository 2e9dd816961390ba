"""Figures against plain arithmetic written apart from them."""

import itertools
import math

import numpy as np
import pytest
from client_records import a_record, expanded
from hypothesis import given
from hypothesis import strategies as st

from client.results.cost import ChipPrice
from client.results.goodput import ServiceLevel
from client.results.metrics import (
    figures,
    itls,
    jetstream_figures,
    peak_in_flight,
    spread,
    tpot,
    ttft,
)
from client.results.records import Outcome

RECORDS = st.lists(a_record() | a_record(Outcome.FAILED), max_size=6)


@given(a_record())
def test_first_token_tpot_and_gaps_add_up_to_the_whole(record):
    times = expanded(record)
    gaps = itls(record)
    assert gaps.tolist() == [later - sooner for sooner, later in itertools.pairwise(times)]
    whole = times[-1] - record.sent
    assert math.isclose(ttft(record, record.sent) + gaps.sum(), whole, abs_tol=1e-9)
    if len(times) > 1:
        assert math.isclose(tpot(record) * (len(times) - 1), times[-1] - times[0], abs_tol=1e-9)
    else:
        assert tpot(record) is None


@given(RECORDS, st.floats(0.1, 1000))
def test_figures_are_of_completed_requests(records, duration):
    found = figures(records, duration)
    done = [record for record in records if record.outcome is Outcome.COMPLETED]
    tokens = sum(len(expanded(record)) for record in done)
    assert found["num_prompts"] == len(records)
    assert found["completed"] + found["failed"] == len(records)
    assert sum(found["failures"].values()) == found["failed"]
    assert found["total_output_tokens"] == tokens
    assert found["output_throughput"] == pytest.approx(tokens / duration)
    prompts = sum(record.prompt_tokens for record in done)
    assert found["total_token_throughput"] == pytest.approx((prompts + tokens) / duration)
    assert found["request_throughput"] == pytest.approx(len(done) / duration)


@given(st.lists(a_record(), min_size=1, max_size=6))
def test_latencies_equal_numpy_over_single_tokens(records):
    found = figures(records, 1.0)
    firsts = [1e3 * (expanded(record)[0] - record.sent) for record in records]
    wholes = [1e3 * (expanded(record)[-1] - record.scheduled) for record in records]
    gaps = [1e3 * gap for record in records for gap in np.diff(expanded(record))]
    lags = [1e3 * (record.sent - record.scheduled) for record in records]
    for name, values in {
        "ttft": firsts, "e2el_from_scheduled": wholes, "itl": gaps, "send_lag": lags,
    }.items():  # fmt: skip
        if not values:
            assert found[f"mean_{name}_ms"] is None
            continue
        assert found[f"mean_{name}_ms"] == pytest.approx(np.mean(values))
        assert found[f"std_{name}_ms"] == pytest.approx(np.std(values), abs=1e-6)
        for percent in (50, 90, 99):
            expected = np.quantile(values, percent / 100)
            assert found[f"p{percent}_{name}_ms"] == pytest.approx(expected)


@given(st.lists(a_record(), min_size=1, max_size=6))
def test_jetstream_tpot_holds_the_wait_for_the_first_token(records):
    found = jetstream_figures(records, figures(records, 2.0))
    values = [(expanded(r)[-1] - r.sent) / len(expanded(r)) * 1e3 for r in records]
    assert found["mean_TPOT_ms"] == pytest.approx(np.mean(values))
    assert set(found) == {
        "duration", "completed", "total_input_tokens", "total_output_tokens",
        "request_throughput", "input_throughput", "output_throughput",
    } | {
        f"{statistic}_{name}_ms"
        for statistic in ("mean", "median", "p99")
        for name in ("ttft", "ttst", "TPOT")
    }  # fmt: skip


@given(st.lists(a_record(), max_size=8))
def test_peak_in_flight_by_counting_at_every_start(records):
    at = [sum(r.sent <= s.sent < r.ended for r in records) for s in records]
    longer = [record for record in records if record.ended > record.sent]
    if len(longer) == len(records):
        assert peak_in_flight(records, 1e9) == max(at, default=0)


def test_nothing_completed_gives_no_latency_and_no_nan():
    found = figures([], 0.0)
    assert found["mean_ttft_ms"] is None
    assert found["output_throughput"] is None
    assert not any(isinstance(value, float) and math.isnan(value) for value in found.values())


def test_spread_leaves_out_what_is_absent():
    assert spread("x", [None, 0.001, None, 0.003])["mean_x_ms"] == pytest.approx(2.0)


@given(st.lists(a_record(), min_size=1, max_size=4), st.floats(0, 100))
def test_percentiles_asked_for_come_beside_the_usual_ones(records, percent):
    found = figures(records, 1.0, percentiles=(percent, 99))
    values = [1e3 * (expanded(record)[0] - record.sent) for record in records]
    name = f"p{percent:.0f}" if percent.is_integer() else f"p{percent}"
    assert found[f"{name}_ttft_ms"] == pytest.approx(np.quantile(values, percent / 100))
    assert {"p50_ttft_ms", "p90_ttft_ms", "p99_ttft_ms", f"{name}_send_lag_ms"} <= set(found)


@given(RECORDS)
def test_goodput_and_cost_come_only_when_asked_for(records):
    plain = figures(records, 1.0)
    assert not any("good" in key or "cost" in key for key in plain)
    level, price = ServiceLevel(ttft=1000), ChipPrice(2.0, 4)
    found = figures(records, 1.0, level=level, price=price)
    assert {"request_goodput", "cost_per_million_good_output_tokens"} <= set(found)
    assert plain.items() <= found.items()

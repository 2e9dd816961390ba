"""Stalls, tokens that came together, and the parts of TTFT."""

import numpy as np
import pytest
from client_records import a_record, expanded, streamed
from hypothesis import given
from hypothesis import strategies as st

from client.results.metrics import figures
from client.results.stalls import coalesced_share, stall_figures
from client.results.ttft_split import ttft_split

RECORDS = st.lists(a_record(), max_size=6)


@given(RECORDS)
def test_stalls_equal_plain_counting_over_single_tokens(records):
    found = stall_figures(records)
    gaps = np.array([gap for record in records for gap in np.diff(expanded(record))])
    if not gaps.size:
        assert found["max_itl_ms"] is None
        assert found["stall_share"] is None
        assert found["stalls"] == 0
        return
    assert found["max_itl_ms"] == pytest.approx(gaps.max() * 1e3)
    usual = np.median(gaps)
    if usual == 0 and gaps.any():
        usual = np.median([gap for gap in gaps if gap])
    long = [gap for gap in gaps if gap > 3 * usual]
    assert found["stalls"] == len(long)
    assert found["stall_share"] == pytest.approx(len(long) / len(gaps))
    assert found["stall_seconds"] == pytest.approx(sum(gap - usual for gap in long))


@given(RECORDS)
def test_the_largest_gap_of_a_request_is_spread_over_requests(records):
    largest = [1e3 * np.diff(expanded(r)).max() for r in records if len(expanded(r)) > 1]
    found = stall_figures(records, (25,))
    if largest:
        assert found["mean_largest_itl_ms"] == pytest.approx(np.mean(largest))
        assert found["p25_largest_itl_ms"] == pytest.approx(np.quantile(largest, 0.25))
    else:
        assert found["mean_largest_itl_ms"] is None


def test_a_stall_is_seen_in_a_steady_stream():
    times = [0.02 * at for at in range(50)] + [0.98 + 0.5, 0.98 + 0.52]
    found = stall_figures([streamed([(time, 1) for time in times])])
    assert found["stalls"] == 1
    assert found["stall_share"] == pytest.approx(1 / 51)
    assert found["stall_seconds"] == pytest.approx(0.48)
    assert found["max_itl_ms"] == pytest.approx(500)


def test_tokens_in_fours_are_no_stalls():
    """Most gaps are 0 then; the usual gap is the one between messages."""
    found = stall_figures([streamed([(0.04 * at, 4) for at in range(25)])])
    assert found["stalls"] == 0
    slow = stall_figures([streamed([(0.04 * at + (at > 12), 4) for at in range(25)])])
    assert slow["stalls"] == 1
    assert slow["stall_share"] == pytest.approx(1 / 99)


def token_by_token(record):
    """For each token after the first message, whether another came at its time."""
    times = expanded(record)
    return [times.count(time) > 1 for time in times[record.arrivals.counts[0] :]]


@given(st.lists(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3)), min_size=1), max_size=4))
def test_tokens_that_share_a_read_are_counted(streams):
    records = [streamed([(float(time), count) for time, count in sorted(each)]) for each in streams]
    together = [found for record in records for found in token_by_token(record)]
    expected = np.mean(together) if together else None
    assert coalesced_share(records) == (None if expected is None else pytest.approx(expected))


def test_nothing_completed_has_no_stalls():
    found = figures([], 1.0)
    assert (found["stalls"], found["max_itl_ms"], found["coalesced_share"]) == (0, None, None)


@given(st.lists(a_record(timed=True), min_size=1, max_size=5), st.lists(a_record(), max_size=2))
def test_the_parts_of_ttft_add_up(timed, untimed):
    found = ttft_split([*timed, *untimed])
    whole = np.mean([1e3 * (expanded(record)[0] - record.scheduled) for record in timed])
    parts = [found[f"mean_ttft_{name}_ms"] for name in (
        "client_queue", "server_queue", "server_prefill", "rest",
    )]  # fmt: skip
    assert sum(parts) == pytest.approx(whole, abs=1e-6)
    waits = [1e3 * (record.sent - record.scheduled) for record in timed]
    assert found["p90_ttft_client_queue_ms"] == pytest.approx(np.quantile(waits, 0.9))
    prefills = [1e3 * record.server_prefill for record in timed]
    assert found["median_ttft_server_prefill_ms"] == pytest.approx(np.median(prefills))


@given(RECORDS)
def test_without_the_servers_timings_there_is_no_split(records):
    assert ttft_split(records) == {}
    assert not any("rest" in key for key in figures(records, 1.0))

"""Goodput against plain counting, and what may never raise it."""

from dataclasses import replace

import numpy as np
import pytest
from client_records import a_record, expanded, streamed
from hypothesis import given
from hypothesis import strategies as st

from client.errors import UsageError
from client.results.goodput import ServiceLevel, good, goodput_figures, parse_goodput
from client.results.records import Outcome

LIMITS = st.dictionaries(
    st.sampled_from(["ttft", "tpot", "itl", "e2el"]), st.floats(1, 400_000), min_size=1
)
RECORDS = st.lists(
    a_record()
    | a_record(Outcome.FAILED)
    | a_record(Outcome.UNFINISHED)
    | a_record(Outcome.NOT_SENT),
    max_size=6,
)


def latencies(record, start):
    """Milliseconds, token by token; nothing where there is nothing to limit."""
    times = expanded(record)
    found = {"ttft": times[0] - start, "e2el": times[-1] - start}
    if len(times) > 1:
        found["tpot"] = (times[-1] - times[0]) / (len(times) - 1)
        found["itl"] = np.quantile(np.diff(times), 0.99)
    return {name: value * 1e3 for name, value in found.items()}


def keeps(record, limits, start):
    if record.outcome is not Outcome.COMPLETED:
        return False
    found = latencies(record, start)
    return all(found[name] <= limit for name, limit in limits.items() if name in found)


@given(RECORDS, LIMITS, st.floats(0.1, 1000))
def test_goodput_equals_plain_counting(records, limits, duration):
    found = goodput_figures(records, duration, ServiceLevel(**limits))
    due = [r for r in records if r.outcome in (Outcome.COMPLETED, Outcome.FAILED)]
    kept = [r for r in due if keeps(r, limits, r.scheduled)]
    sent = [r for r in due if keeps(r, limits, r.sent)]
    assert found["goodput"] == limits
    assert found["request_goodput"] == pytest.approx(len(kept) / duration)
    assert found["request_goodput_from_sent"] == pytest.approx(len(sent) / duration)
    assert found["good_output_tokens"] == sum(len(expanded(r)) for r in kept)
    if not due:
        assert found["goodput_share"] is None
        return
    assert found["goodput_share"] == pytest.approx(len(kept) / len(due))
    for name, limit in limits.items():
        alone = sum(keeps(r, {name: limit}, r.scheduled) for r in due)
        assert found[f"goodput_share_{name}"] == pytest.approx(alone / len(due))


@given(RECORDS, LIMITS, st.floats(1, 10))
def test_looser_limits_never_lower_goodput(records, limits, factor):
    tight = goodput_figures(records, 1.0, ServiceLevel(**limits))
    looser = {name: limit * factor for name, limit in limits.items()}
    loose = goodput_figures(records, 1.0, ServiceLevel(**looser))
    for key in tight.keys() - {"goodput"}:
        assert tight[key] is None or tight[key] <= loose[key]


@given(RECORDS, st.integers(0, 5), LIMITS)
def test_a_failure_never_raises_goodput(records, which, limits):
    level = ServiceLevel(**limits)
    before = goodput_figures(records, 1.0, level)
    if which < len(records) and records[which].outcome is Outcome.COMPLETED:
        records[which] = replace(records[which], outcome=Outcome.FAILED, cause="timeout")
    after = goodput_figures(records, 1.0, level)
    for key in before.keys() - {"goodput"}:
        assert before[key] is None or after[key] <= before[key]


@given(a_record(), LIMITS)
def test_what_is_good_from_the_schedule_is_good_from_sending(record, limits):
    level = ServiceLevel(**limits)
    assert good(record, level, "sent") or not good(record, level)


def test_a_client_that_sends_late_does_not_hide_the_wait():
    late = streamed([(2.1, 1), (2.2, 1)], scheduled=0.0, sent=2.0)
    level = ServiceLevel(ttft=500)
    assert good(late, level, "sent")
    assert not good(late, level)


def test_one_stall_in_many_gaps_breaks_a_limit_on_itl():
    steady = [(0.1 + 0.02 * at, 1) for at in range(50)]
    stalled = [*steady, (steady[-1][0] + 1.0, 1)]
    level = ServiceLevel(itl=100, tpot=100)
    assert good(streamed(steady), level)
    assert not good(streamed(stalled), level)
    assert good(streamed(stalled), ServiceLevel(tpot=100))


def test_a_single_token_has_no_gap_to_be_late_in():
    assert good(streamed([(0.1, 1)]), ServiceLevel(tpot=1, itl=1))


@pytest.mark.parametrize(
    ("words", "limits"),
    [
        (["ttft:500", "tpot:50"], {"ttft": 500, "tpot": 50}),
        (["ttft:500,tpot:50.5"], {"ttft": 500, "tpot": 50.5}),
        (["e2el:2e4", "itl:100,"], {"e2el": 20_000, "itl": 100}),
    ],
)
def test_a_service_level_is_read(words, limits):
    assert parse_goodput(words).limits == limits


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ([], "got nothing"),
        (["ttft"], "NAME:MILLISECONDS"),
        (["ttft:"], "'ttft:'"),
        (["ttft:fast"], "'ttft:fast'"),
        (["latency:5"], "no objective 'latency'; they are ttft, tpot, itl, e2el"),
        (["ttft:5", "ttft:6"], "ttft is given twice"),
        (["ttft:0"], "above 0; got 0"),
        (["tpot:-3"], "above 0; got -3"),
        (["itl:inf"], "above 0; got inf"),
        (["itl:nan"], "above 0; got nan"),
    ],
)
def test_a_service_level_that_is_wrong_is_told_so(words, part):
    with pytest.raises(UsageError, match="--goodput") as caught:
        parse_goodput(words)
    assert part in str(caught.value)

"""When a run says more of its client than of its server."""

import pytest

from client.load.health import WorkerHealth
from client.results.verdict import health_figures, reasons_against

WELL = {
    "num_prompts": 200,
    "not_sent": 0,
    "median_ttft_ms": 100.0,
    "median_send_lag_ms": 0.2,
    "p99_send_lag_ms": 1.0,
    "sent_request_rate": 10.0,
}


def worker(**changes) -> WorkerHealth:
    usual = {
        "seconds": 60.0, "cpu_seconds": 12.0, "loop_lag_p50_ms": 0.1, "loop_lag_p99_ms": 1.0,
        "loop_lag_max_ms": 9.0, "requests": 100, "tokens": 1000, "host": "here",
    }  # fmt: skip
    return WorkerHealth(**(usual | changes))


def reasons(figures=(), workers=(), **asked) -> list[str]:
    usual = {"rate": 10.0, "timed": True, "lost": 0, "own_failures": 0}
    return reasons_against(WELL | dict(figures), workers or [worker()], **(usual | asked))


def test_nothing_against_a_run_that_went_well():
    assert reasons() == []
    assert reasons_against({}, []) == []


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"lost": 1}, "a client worker died"),
        ({"lost": 2}, "2 client workers died"),
        ({"own_failures": 1}, "a request failed for want of files or ports on the client"),
        ({"own_failures": 7}, "7 requests failed for want of files or ports on the client"),
        ({"workers": [worker(), worker(cpu_seconds=54.0)]},
         "a client worker used 0.90 of its core: more --workers, or a lower rate"),
        ({"workers": [worker(), worker(loop_lag_p99_ms=25.0, late_turns=6)]},
         "the client read late: its event loop lagged by 25 ms at p99"),
        ({"workers": [worker(), worker(late_turns=1, late_seconds=1.5)]},
         "the client stood still for 1.5 of 60.0 s"),
        ({"figures": {"p99_send_lag_ms": 21.0}}, "requests were sent late: 21 ms at p99"),
        ({"figures": {"num_prompts": 99, "median_send_lag_ms": 30.0}},
         "requests were sent late: 30 ms at median"),
        ({"figures": {"sent_request_rate": 9.89}},
         "9.89 requests/s were sent where 10 were asked for"),
        ({"figures": {"sent_request_rate": 10.11}},
         "10.11 requests/s were sent where 10 were asked for"),
    ],
)  # fmt: skip
def test_each_reason_alone(given, reason):
    assert reasons(**given) == [reason]


@pytest.mark.parametrize(
    "given",
    [
        {"workers": [worker(cpu_seconds=53.0)]},
        # Any machine has hiccups.
        {"workers": [worker(loop_lag_p99_ms=25.0, late_turns=5)]},
        {"workers": [worker(late_turns=5, late_seconds=0.49)]},
        {"workers": [worker(late_turns=5, late_seconds=0.59)]},
        # Delays that are no good part of what is measured.
        {"figures": {"median_ttft_ms": 1000.0},
         "workers": [worker(loop_lag_p99_ms=90.0, late_turns=50)]},
        {"figures": {"median_ttft_ms": 1000.0, "p99_send_lag_ms": 99.0}},
        {"figures": {"p99_send_lag_ms": 19.0, "median_ttft_ms": 1.0}},
        # One request alone makes the tail of a few.
        {"figures": {"num_prompts": 99, "p99_send_lag_ms": 500.0}},
        {"figures": {"num_prompts": 99, "sent_request_rate": 5.0}},
        # Cut short, or without a rate or times of their own.
        {"figures": {"not_sent": 1, "sent_request_rate": 5.0}},
        {"figures": {"sent_request_rate": 5.0}, "rate": None},
        {"figures": {"p99_send_lag_ms": 500.0}, "timed": False},
    ],
)  # fmt: skip
def test_what_is_no_reason(given):
    assert reasons(**given) == []


def test_nothing_was_measured_and_the_client_was_late():
    """Without a TTFT any long delay matters."""
    figures = {"median_ttft_ms": None, "p99_send_lag_ms": 21.0}
    assert reasons(figures) == ["requests were sent late: 21 ms at p99"]


def test_health_is_that_of_the_worst_worker():
    found = health_figures([worker(tokens=500), worker(cpu_seconds=30.0, host="there")])
    assert found["cpu_share"] == 0.5
    assert found["cpu_seconds"] == 42.0
    assert found["balance"] == 0.5
    assert found["hosts"] == ["here", "there"]
    assert health_figures([]) == {}

"""Nothing is left out: a server or a client that stands still shows as arithmetic says."""

import signal
import time

import numpy as np
import pytest
from client_rig import outcome
from load_rig import conversations, load_command, run_load, running, wait_for_requests

from client.calibration.floor import truth_server

STALL, RATE, SECONDS, TOKENS = 1.5, 60, 4, 8
TTFT, ITL = 0.03, 0.02


@pytest.fixture(scope="module")
def stalled(tmp_path_factory, tokenizer_path):
    """A run in the middle of which the whole server stands still, and when it did so."""
    options = ("--ttft-ms", str(TTFT * 1e3), "--itl-ms", str(ITL * 1e3))
    with truth_server(*options, "--stall-at", "1", "--stall", str(STALL)) as ports:
        return run_load(
            tmp_path_factory.mktemp("stalled"), tokenizer_path, ports["http"],
            conversations(RATE * SECONDS, TOKENS),
            *("--arrivals", "constant", "--request-rate", str(RATE), "--duration", str(SECONDS)),
            *("--goodput", "ttft:500"),
        )  # fmt: skip


def expected() -> tuple[np.ndarray, np.ndarray]:
    """TTFT of each request and all gaps, seconds, of a server that stands still from 1 s on.

    A request that comes meanwhile is read when the server goes on; a token that was due then
    leaves then.
    """
    due = np.arange(RATE * SECONDS) / RATE
    until = 1 + STALL
    received = np.where((due > 1) & (due < until), until, due)
    tokens = received[:, None] + TTFT + ITL * np.arange(TOKENS)
    tokens = np.where((tokens > 1) & (tokens < until), until, tokens)
    return tokens[:, 0] - due, np.diff(tokens).ravel()


def test_a_server_that_stands_still_shows_in_ttft_from_the_schedule(stalled):
    ttft, _ = expected()
    record = stalled.record
    assert record["completed"] == RATE * SECONDS
    for percent in (50, 90, 99):
        measured = record[f"p{percent}_ttft_from_scheduled_ms"]
        assert measured == pytest.approx(np.percentile(ttft, percent) * 1e3, abs=60)
    # 1.5 of 4 s: over a third of the requests came into it, and half a second of them is good.
    late = (ttft > 0.5).mean()
    assert record["goodput_share"] == pytest.approx(1 - late, abs=0.04)


def test_a_server_that_stands_still_shows_in_its_gaps(stalled):
    _, gaps = expected()
    record = stalled.record
    assert record["p99_itl_ms"] == pytest.approx(np.percentile(gaps, 99) * 1e3, abs=60)
    assert record["max_itl_ms"] == pytest.approx(STALL * 1e3, abs=100)
    assert record["median_itl_ms"] == pytest.approx(ITL * 1e3, abs=4)


def test_a_server_that_stands_still_is_not_the_clients_fault(stalled):
    assert stalled.status == 0, stalled.out
    assert stalled.record["verdict"] == "VALID"
    assert stalled.record["sent_request_rate"] == pytest.approx(RATE, rel=0.01)
    assert stalled.record["p99_send_lag_ms"] < 100


@pytest.mark.parametrize("shape", ["open loop", "closed loop"])
def test_a_client_that_stands_still_says_so(tmp_path, tokenizer_path, shape):
    load = {
        "open loop": ("--request-rate", "50", "--duration", "3"),
        "closed loop": ("--max-concurrency", "4", "--duration", "3"),
    }[shape]
    with truth_server("--ttft-ms", "30", "--itl-ms", "10") as ports:
        command = load_command(
            tmp_path, tokenizer_path, ports["http"], conversations(400, TOKENS), *load
        )
        with running(command) as process:
            wait_for_requests(ports["http"], 20)
            process.send_signal(signal.SIGSTOP)
            time.sleep(1.2)
            process.send_signal(signal.SIGCONT)
            out, err = process.communicate(timeout=30)
    done = outcome(tmp_path, process.returncode, out, err, judged=True)
    record = done.record
    assert done.status == 3
    assert record["verdict"] == "INVALID"
    assert out.splitlines()[1] == "INVALID"
    assert any("stood still for 1." in reason for reason in record["verdict_reasons"])
    assert record["health"]["loop_lag_max_ms"] > 1150
    if shape == "open loop":
        # Over a third of the requests were due while it stood still.
        assert any("sent late" in reason for reason in record["verdict_reasons"])
        assert record["p99_send_lag_ms"] > 1000
        assert record["p99_ttft_from_scheduled_ms"] > 1000
        # From when they were really sent there is nothing to see.
        assert record["p50_ttft_ms"] < 300

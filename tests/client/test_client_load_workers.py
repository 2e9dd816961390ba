"""Worker processes: the same load whatever their number, and none that is left behind."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from client_rig import ENVIRONMENT, Outcome, outcome, wait_for
from load_rig import (
    conversations,
    load_command,
    of_session,
    run_load,
    running,
    wait_for_requests,
    workers_of,
)

from client.calibration.floor import read_truth, truth_server

WORKERS = (1, 2, 3)
Runs = dict[int, tuple[Outcome, dict[str, tuple[float, list[float]]]]]
_RATES = {"constant": (200, 1.5), "poisson": (600, 2)}


@pytest.fixture(scope="module")
def constant(tmp_path_factory: pytest.TempPathFactory, tokenizer_path: Path) -> Runs:
    """(outcome, truth) of one load at a constant rate, by the number of workers."""
    return on_workers("constant", tmp_path_factory, tokenizer_path)


@pytest.fixture(scope="module")
def poisson(tmp_path_factory: pytest.TempPathFactory, tokenizer_path: Path) -> Runs:
    """As `constant`, of Poisson arrivals."""
    return on_workers("poisson", tmp_path_factory, tokenizer_path)


def on_workers(arrivals: str, folders: pytest.TempPathFactory, tokenizer_path: Path) -> Runs:
    rate, seconds = _RATES[arrivals]
    data, found = conversations(int(rate * seconds), 4), {}
    for workers in WORKERS:
        with truth_server("--ttft-ms", "10", "--itl-ms", "5") as ports:
            done = run_load(
                folders.mktemp("run"), tokenizer_path, ports["http"], data,
                *("--request-rate", str(rate), "--duration", str(seconds), "--seed", "5"),
                *("--arrivals", arrivals, "--workers", str(workers)),
            )  # fmt: skip
            found[workers] = done, read_truth(ports["http"])
    return found


@pytest.mark.parametrize("arrivals", _RATES)
def test_workers_send_the_same_requests_at_the_same_times(request, arrivals):
    (first, truth), *others = request.getfixturevalue(arrivals).values()
    assert first.record["completed"] == first.record["num_prompts"] == len(truth)
    scheduled = [row["scheduled"] for row in first.rows]
    for done, told in others:
        assert done.record["workload_digest"] == first.record["workload_digest"]
        assert sorted(told) == sorted(truth)
        assert [row["prompt_id"] for row in done.rows] == [row["prompt_id"] for row in first.rows]
        assert [row["scheduled"] for row in done.rows] == pytest.approx(scheduled, abs=1e-6)
        assert done.record["completed"] == len(truth)


@pytest.mark.parametrize("workers", WORKERS)
def test_every_worker_has_its_part(constant, workers):
    done, _ = constant[workers]
    health = done.record["health"]
    assert health["workers"] == workers
    parts = health["requests_of_workers"]
    assert sum(parts) == 300
    assert max(parts) - min(parts) <= 1
    assert health["balance"] == pytest.approx(min(parts) / max(parts))


@pytest.mark.parametrize("workers", WORKERS)
def test_a_constant_rate_is_met(constant, workers):
    done, truth = constant[workers]
    rate, _ = _RATES["constant"]
    due = np.array([row["scheduled"] for row in done.rows])
    assert (len(due) - 1) / (due[-1] - due[0]) == pytest.approx(rate, rel=1e-3)
    assert np.diff(due) == pytest.approx(1 / rate, rel=1e-3)
    # At the server: the later ones are no later, against their times, than the earlier ones.
    late = _received(done, truth) - due
    third = len(due) // 3
    drift = np.median(late[-third:]) - np.median(late[:third])
    assert abs(drift) < 0.005 * (due[-1] - due[0])


@pytest.mark.parametrize("workers", WORKERS)
def test_poisson_arrivals_are_poisson_and_reach_the_server_so(poisson, workers):
    """Workers that all drew from one seed would come together: a dispersion of their number."""
    done, truth = poisson[workers]
    due = np.array([row["scheduled"] for row in done.rows])
    assert _dispersion(due, 0.002) == pytest.approx(1, abs=0.1)
    # They reach the server as they were due; where this machine stands still some cannot.
    late = _received(done, truth) - due
    assert (np.abs(late - np.median(late)) < 0.025).mean() > 0.8


def _received(done: Outcome, truth: dict) -> np.ndarray:
    """When the server had each request, in the order of the rows."""
    return np.array([truth[f"prompt {int(row['prompt_id']):05}"][0] for row in done.rows])


def _dispersion(times: np.ndarray, window: float) -> float:
    """Variance over mean of the number in windows of so many seconds."""
    counts = np.bincount(((times - times.min()) / window).astype(int))
    return counts.var() / counts.mean()


def test_a_worker_that_is_killed_costs_its_own_requests_only(tmp_path, tokenizer_path):
    with truth_server("--ttft-ms", "25", "--itl-ms", "25") as ports:
        command = load_command(
            tmp_path, tokenizer_path, ports["http"], conversations(60, 20),
            *("--num-prompts", "60", "--request-rate", "60", "--workers", "2"),
        )  # fmt: skip
        with running(command) as process:
            wait_for_requests(ports["http"], 20)
            workers_of(process)[1].kill()
            out, err = process.communicate(timeout=30)
    done = outcome(tmp_path, process.returncode, out, err, judged=True)
    assert done.status == 3
    assert done.record["verdict"] == "INVALID"
    assert "a client worker died" in done.record["verdict_reasons"]
    assert done.record["failures"] == {"client worker lost": 30}
    assert done.record["completed"] == 30
    assert {row["index"] % 2 for row in done.rows if row["outcome"] == "failed"} == {1}
    assert "client worker 2 of 2 died" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("signaled", ["SIGINT", "SIGTERM", "the whole group"])
def test_an_interrupt_writes_what_all_workers_measured(tmp_path, tokenizer_path, signaled):
    with truth_server("--ttft-ms", "50", "--itl-ms", "50") as ports:
        command = load_command(
            tmp_path, tokenizer_path, ports["http"], conversations(400, 8),
            *("--num-prompts", "400", "--request-rate", "40", "--workers", "2"),
        )  # fmt: skip
        with running(command) as process:
            wait_for_requests(ports["http"], 40)
            if signaled == "the whole group":  # as a terminal does
                os.killpg(process.pid, signal.SIGINT)
            else:
                process.send_signal(signal.Signals[signaled])
            out, err = process.communicate(timeout=20)
    done = outcome(tmp_path, process.returncode, out, err)
    assert done.status == 130, err
    assert done.record["interrupted"] is True
    counts = [done.record[name] for name in ("completed", "unfinished", "not_sent")]
    assert all(counts), counts
    assert sum(counts) == 400
    assert all(each > 0 for each in done.record["health"]["requests_of_workers"])
    assert "Traceback" not in err


def test_ctrl_c_while_workers_start_is_no_traceback(tmp_path, tokenizer_path):
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        command = load_command(
            tmp_path, tokenizer_path, reserved.getsockname()[1], conversations(4), "--workers", "3"
        )
        with running(command) as process:
            wait_for(lambda: len(workers_of(process)) > 1)
            os.killpg(process.pid, signal.SIGINT)
            _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "interrupted before anything was measured"
    assert "Traceback" not in err


@pytest.mark.parametrize("when", ["connecting", "measuring"])
def test_workers_end_when_their_parent_is_killed(tmp_path, tokenizer_path, when):
    with truth_server("--ttft-ms", "50", "--itl-ms", "50") as ports, socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = ports["http"] if when == "measuring" else reserved.getsockname()[1]
        command = load_command(
            tmp_path, tokenizer_path, port, conversations(400, 50),
            *("--num-prompts", "400", "--request-rate", "20", "--workers", "2"),
        )  # fmt: skip
        with running(command) as process:
            if when == "measuring":
                wait_for_requests(port, 10)
            else:
                assert process.stderr is not None
                while "waiting for the server" not in process.stderr.readline():
                    assert process.poll() is None
            process.kill()
            wait_for(lambda: not of_session(process.pid))
            _, err = process.communicate(timeout=10)
    assert "Traceback" not in err
    assert not psutil.pid_exists(process.pid)


def test_no_server_is_one_line_from_all_workers(tmp_path, tokenizer_path):
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        done = run_load(
            tmp_path, tokenizer_path, reserved.getsockname()[1], conversations(4),
            *("--workers", "3", "--connect-timeout", "1"),
        )  # fmt: skip
    assert done.status == 2
    waiting = [line for line in done.err.splitlines() if "waiting for the server" in line]
    failed = [line for line in done.err.splitlines() if "no ready server" in line]
    assert len(failed) == 1 and len(waiting) <= 1
    assert done.err.splitlines()[-1] == failed[0]
    assert "Traceback" not in done.err


def test_a_result_larger_than_a_pipe_comes_back_whole(tmp_path, tokenizer_path):
    with truth_server("--ttft-ms", "1", "--itl-ms", "1") as ports:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "client.benchmark", "--backend", "openai"),
                *("--server", "127.0.0.1", "--port", str(ports["http"]), "--dataset", "synthetic"),
                *("--random-input-len", "8", "--random-output-len", "300", "--num-prompts", "60"),
                *("--max-concurrency", "20", "--workers", "2", "--disable-tqdm"),
                *("--tokenizer", str(tokenizer_path), "--result-dir", str(tmp_path)),
                "--save-request-outputs",
            ],
            capture_output=True, text=True, timeout=60, env=ENVIRONMENT, check=False,
        )  # fmt: skip
    (path,) = (path for path in tmp_path.glob("loadstone-*.json") if "outputs" not in path.name)
    record = json.loads(path.read_text())
    assert record["completed"] == 60, done.stderr
    assert record["total_output_tokens"] == 60 * 300

"""The command against real servers, in processes of their own."""

import json
import os
import pty
import re
import signal
import socket
import subprocess
import termios
import time

import pytest
from client_rig import (
    ENVIRONMENT,
    Link,
    Outcome,
    benchmark_command,
    conversation,
    outcome,
    serving,
    wait_for,
)

from client.benchmark import main


def asked(script: str, tokens: int = 8, name: str = "c"):
    """A conversation that makes the scripted server follow a script for some tokens."""
    return conversation(f"{script} please", "a" * tokens, name)


def test_a_run_counts_times_and_records_everything(server, benchmark):
    done = benchmark(server.port, [asked("go", 10, "x"), asked("go", 6, "y")], "--num-prompts", "2")
    assert done.status == 0, done.err
    record = done.record
    assert (record["num_prompts"], record["completed"], record["failed"]) == (2, 2, 0)
    assert record["total_output_tokens"] == 16
    assert record["total_input_tokens"] == 2 * len("?go please")
    assert record["counted_by"] == "token_ids"
    assert record["finish_reasons"] == {"length": 2}
    assert record["notes"] == []
    assert (record["mean_server_queue_ms"], record["mean_server_prefill_ms"]) == (250, 500)
    assert "2 distinct prompts, each used once" in done.out
    rows = {row["prompt_id"]: row for row in done.rows}
    assert {name: row["output_len"] for name, row in rows.items()} == {"x": 10, "y": 6}
    assert len(rows["x"]["itls"]) == 9


def test_times_follow_the_servers_schedule(benchmark):
    with serving("--ttft", "0.2", "--itl", "0.02") as slow:
        done = benchmark(slow.port, [asked("go", 11)], "--num-prompts", "4")
    record = done.record
    # The first message of a stream is empty and comes at once: it is not the first token.
    assert 200 <= record["median_ttft_ms"] < 400
    assert record["median_tpot_ms"] == pytest.approx(20, abs=8)
    assert record["mean_itl_ms"] == pytest.approx(record["mean_tpot_ms"])
    assert record["median_e2el_ms"] == pytest.approx(
        record["median_ttft_ms"] + 10 * record["median_tpot_ms"], rel=0.05
    )
    assert record["jetstream"]["metrics"]["median_TPOT_ms"] > 30
    assert 0.4 <= record["duration"] < 2


def test_jetstream_itself_needs_none_of_our_fields(benchmark):
    with serving("--jetstream") as theirs:
        done = benchmark(theirs.port, [asked("go", 8)], "--num-prompts", "3")
    assert done.status == 0, done.err
    assert done.record["total_output_tokens"] == 24
    assert "mean_server_queue_ms" not in done.record


def test_failures_are_counted_by_cause_and_not_retried(server, benchmark):
    scripts = ["refuse", "refuse", "unwell", "break", "cut", "nothing", "silent", "stuck", "go"]
    done = benchmark(
        server.port,
        [asked(script, 8, f"{script}{number}") for number, script in enumerate(scripts)],
        *("--num-prompts", "9", "--request-timeout", "2"),
    )
    assert done.status == 1
    assert done.record["failures"] == {
        "RESOURCE_EXHAUSTED": 2, "timeout": 2, "INTERNAL": 1, "UNAVAILABLE": 1,
        "empty stream": 1, "truncated stream": 1,
    }  # fmt: skip
    assert done.record["completed"] == 1
    # Only what completed is in the throughput.
    assert done.record["total_output_tokens"] == 8
    assert done.record["incomplete_output_tokens"] == 6
    assert done.record["duration"] < 10
    rows = {row["prompt_id"]: row for row in done.rows}
    assert rows["break3"]["detail"] == "the step failed"
    assert "RESOURCE_EXHAUSTED" in done.out


def test_a_server_that_dies_ends_the_run(benchmark, tmp_path, tokenizer_path):
    with serving("--ttft", "0.1", "--itl", "0.1") as doomed:
        command = benchmark_command(
            tmp_path, tokenizer_path, doomed.port, [asked("go", 300)],
            *("--num-prompts", "5", "--request-rate", "5"),
        )  # fmt: skip
        with subprocess.Popen(command, env=ENVIRONMENT, text=True) as running:
            wait_for(lambda: (tmp_path / "runs").exists())
            time.sleep(1.5)
            doomed.process.kill()
            status = running.wait(timeout=20)
    found = outcome(tmp_path, status, "", "")
    assert found.status == 1
    assert found.record["failures"] == {"connection lost": 5}
    assert found.record["incomplete_output_tokens"] > 0


@pytest.mark.parametrize(
    ("broken", "cause"), [("half_close", "connection lost"), ("freeze", "timeout")]
)
def test_a_connection_that_breaks_ends_the_run(tmp_path, tokenizer_path, broken, cause):
    with serving("--itl", "0.05") as running:
        link = Link(running.port)
        command = benchmark_command(
            tmp_path, tokenizer_path, link.port, [asked("go", 300)],
            *("--num-prompts", "4", "--request-timeout", "4"),
        )  # fmt: skip
        with subprocess.Popen(command, env=ENVIRONMENT, text=True) as client:
            wait_for(lambda: (tmp_path / "runs").exists())
            time.sleep(1.5)
            getattr(link, broken)()
            status = client.wait(timeout=20)
        link.close()
    found = outcome(tmp_path, status, "", "")
    assert found.status == 1
    assert found.record["failures"] == {cause: 4}
    assert found.record["incomplete_output_tokens"] > 0


def test_too_many_streams_for_a_connection_are_not_a_lost_connection(benchmark):
    with serving("--streams", "2", "--ttft", "0.1") as limited:
        data = [asked("go", 4)]
        done = benchmark(limited.port, data, "--num-prompts", "20", "--channels", "1")
    # gRPC holds some back and the server refuses others; which is up to the library.
    assert set(done.record["failures"]) <= {"stream refused"}
    assert done.record["completed"] + done.record["failed"] == 20


def test_an_interrupt_before_the_run_is_no_traceback(tmp_path, tokenizer_path):
    with socket.socket() as reserved:
        reserved.bind(("localhost", 0))
        command = benchmark_command(
            tmp_path, tokenizer_path, reserved.getsockname()[1], [asked("go")]
        )
        with subprocess.Popen(
            command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
        ) as waiting:
            assert waiting.stderr is not None
            while "waiting for the server" not in waiting.stderr.readline():
                assert waiting.poll() is None
            waiting.send_signal(signal.SIGINT)
            _, err = waiting.communicate(timeout=15)
    assert waiting.returncode == 130
    assert err.strip() == "interrupted before anything was measured"


@pytest.mark.parametrize("rate", ["inf", "2"])
def test_an_interrupted_run_writes_what_it_has(server, tmp_path, tokenizer_path, rate):
    data = [asked("go", 4, "quick"), asked("stuck", 4, "stuck")]
    command = benchmark_command(
        tmp_path, tokenizer_path, server.port, data, "--num-prompts", "40", "--request-rate", rate
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=ENVIRONMENT, **pipes) as running:
        wait_for(lambda: (tmp_path / "runs").exists())
        time.sleep(2.5)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=15)
    found = outcome(tmp_path, running.returncode, out, err)
    assert found.status == 130, err
    record = found.record
    assert record["interrupted"] is True
    assert record["completed"] > 0
    assert record["unfinished"] > 0
    assert (record["not_sent"] > 0) is (rate == "2")
    assert record["completed"] + record["unfinished"] + record["not_sent"] == 40
    assert "Unfinished" in out
    assert "Traceback" not in err


def test_no_server_is_an_error_in_one_line(benchmark):
    with socket.socket() as reserved:
        reserved.bind(("localhost", 0))
        done = benchmark(reserved.getsockname()[1], [asked("go")], "--connect-timeout", "1")
    assert done.status == 2
    assert "no ready server at localhost:" in done.err.splitlines()[-1]
    assert done.record == {}


def test_a_server_that_accepts_and_says_nothing_is_not_ready(benchmark):
    with socket.create_server(("localhost", 0)) as mute:
        port = mute.getsockname()[1]
        done = benchmark(port, [asked("go")], "--connect-timeout", "1", "--no-health-check")
    assert done.status == 2
    assert "no ready server" in done.err


def test_a_server_that_is_loading_is_waited_for(benchmark):
    with serving("--not-live", "2") as loading:
        done = benchmark(loading.port, [asked("go")], "--num-prompts", "1")
    assert done.status == 0
    assert "not live yet" in done.err


def test_as_many_requests_as_asked_from_few_prompts_all_at_once(benchmark):
    """Within one wait for a first token: a limit of streams a connection must not queue them."""
    with serving("--streams", "100", "--ttft", "1.5") as limited:
        data = [asked("go", 4, str(number)) for number in range(5)]
        done = benchmark(limited.port, data, "--num-prompts", "2000")
    assert done.status == 0, done.err
    assert "5 distinct prompts, each used up to 400 times" in done.out
    assert done.record["completed"] == 2000
    assert done.record["max_concurrent_requests"] == 2000
    assert done.record["duration"] < 12
    starts = [row["sent"] for row in done.rows]
    assert max(starts) < 1.5


def test_without_repeats_fewer_are_sent_and_it_says_so(server, benchmark):
    data = [asked("go", 4, str(number)) for number in range(3)]
    done = benchmark(server.port, data, "--num-prompts", "7", "--no-repeat")
    assert done.status == 0
    assert (done.record["num_prompts_asked"], done.record["num_prompts"]) == (7, 3)
    assert "7 requests were asked for, but the data supply 3 prompts" in done.out


def test_a_rate_spreads_requests_and_latency_counts_from_the_schedule_too(server, benchmark):
    done = benchmark(server.port, [asked("go", 4)], "--num-prompts", "40", "--request-rate", "40")
    record = done.record
    assert 0.97 < record["duration"] < 4
    assert record["max_concurrent_requests"] < 40
    lag = record["mean_send_lag_ms"]
    assert 0 <= lag < 50
    assert record["mean_ttft_from_scheduled_ms"] == pytest.approx(record["mean_ttft_ms"] + lag)
    assert record["sent_request_rate"] == pytest.approx(40, rel=0.1)
    assert "TTFT from scheduled" in done.out


def test_a_live_line_shows_tokens_a_second(tmp_path, tokenizer_path):
    with serving("--itl", "0.02") as slow:
        command = benchmark_command(
            tmp_path, tokenizer_path, slow.port, [asked("go", 80)], "--num-prompts", "5"
        )
        command.remove("--disable-tqdm")
        shown = on_a_terminal(command)
    rates = [float(rate.replace(",", "")) for rate in re.findall(r"([\d,]+) tok/s", shown)]
    # Five streams of 50 tokens a second.
    assert max(rates) == pytest.approx(250, rel=0.4)
    assert "5/5" in shown


def on_a_terminal(command: list[str]) -> str:
    """What a command shows on the error stream when that is a terminal."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 120))
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 4096):
            shown += part
    except OSError:  # how Linux says that the other end is closed
        pass
    assert process.wait(timeout=30) == 0
    os.close(ours)
    return shown.decode()


@pytest.mark.parametrize(
    ("script", "flags", "tokens", "source", "note"),
    [
        ("early", (), 3, "token_ids", ""),
        ("early", ("--ignore-eos",), 8, "token_ids", ""),
        ("early", ("--send", "tokens"), 8, "token_ids", ""),
        ("burst", (), 8, "token_ids", "4.00 tokens a message"),
        ("textual", (), 8, "tokenizer", "without token ids"),
        ("go", ("--use-chat-template", "--temperature", "0.5"), 8, "token_ids", ""),
    ],
)
def test_tokens_are_those_that_came(server, benchmark, script, flags, tokens, source, note):
    done = benchmark(server.port, [asked(script)], "--num-prompts", "1", *flags)
    assert done.status == 0, done.err
    assert done.record["total_output_tokens"] == tokens
    assert done.record["counted_by"] == source
    assert note in " ".join(done.record["notes"])


def test_warm_up_stays_out_of_the_figures(server, benchmark):
    data = [asked("go" + "o" * length, 4, str(length)) for length in (0, 1, 40)]
    done = benchmark(server.port, data, "--num-prompts", "6", "--warmup-mode", "sampled")
    assert done.record["warmup"] == {"sent": 2, "failed": 0}
    assert done.record["completed"] == 6
    done = benchmark(server.port, [asked("refuse")], "--num-prompts", "3", "--warmup-mode", "full")
    assert "3 of 3 warm-up requests failed" in done.out


def test_files_that_were_asked_for(server, benchmark, tmp_path):
    outputs = tmp_path / "elsewhere" / "outputs.json"
    done: Outcome = benchmark(
        server.port, [asked("go", 5)], "--num-prompts", "2", "--model", "a/b c",
        *("--save-result", "--save-request-outputs", "--request-outputs-file-path", str(outputs)),
        *("--metadata", "chips=4", "--additional-metadata-metrics-to-save", '{"run": 7}'),
    )  # fmt: skip
    assert done.record["metadata"] == {"chips": "4", "run": 7}
    assert [row["generated_text"] for row in done.rows] == ["xxxxx", "xxxxx"]
    assert json.loads(outputs.read_text())[0] | {"latency": 0} == {
        "prompt": "go please", "original_output": "aaaaa", "generated_text": "xxxxx",
        "success": True, "latency": 0, "prompt_len": 10,
    }  # fmt: skip
    (path,) = done.folder.glob("JetStream-infqps-a-b-c-*.json")
    theirs = json.loads(path.read_text())
    assert theirs["dimensions"]["run"] == 7
    assert theirs["metrics"]["num_prompts"] == theirs["metrics"]["completed"] == 2
    assert theirs == done.record["jetstream"]
    assert not list(done.folder.glob(".*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset-path", "absent.json"], "absent.json"),
        (["--request-rate", "-1"], "requests per second"),
        (["--request-rate", "fast"], "invalid float"),
        (["--num-prompts", "0"], "1 or more"),
        (["--dataset", "mmlu"], "sharegpt-hub"),
        (["--tokenizer", "absent"], "absent"),
        (["--conversation-starter", "me"], "human"),
        (["--max-output-length", "-1"], "max_output_length"),
        (["--min-input-length", "9", "--max-input-length", "8"], "min_input_length"),
        (["--port", "0"], "port"),
        (["--channels", "-2"], "connections"),
        (["--metadata", "chips"], "NAME=VALUE"),
        (["--additional-metadata-metrics-to-save", "[1]"], "JSON object"),
        (["--additional-metadata-metrics-to-save", '{"a": NaN}'], "not JSON"),
        (["--dataset", "sharegpt-hub", "--dataset-path", "x"], "leave out"),
        (["--nonsense"], "--nonsense"),
        (["--result-dir", "/dev/null/runs"], "/dev/null/runs"),
    ],
)
def test_bad_input_is_one_line_and_status_two(arguments, message, capsys, tmp_path, tokenizer_path):
    data = tmp_path / "data.json"
    data.write_text(json.dumps([asked("go")]))
    usual = ["--dataset-path", str(data), "--tokenizer", str(tokenizer_path)]
    if "sharegpt-hub" in arguments:
        usual = usual[2:]
    try:
        status = main([*usual, "--result-dir", str(tmp_path / "runs"), *arguments])
    except SystemExit as exit_:
        status = exit_.code
    error = capsys.readouterr().err
    assert status == 2
    assert len(error.splitlines()) == 1
    assert message in error

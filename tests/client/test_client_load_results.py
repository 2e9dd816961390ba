"""What a run leaves: its table, its files, and no secret in them."""

import json
import subprocess

import pytest
from client_rig import ENVIRONMENT, conversation, outcome
from load_rig import conversations, load_command, run_load

from client.benchmark import main
from client.calibration.floor import truth_server


def asked(count: int = 6) -> list[dict]:
    """Conversations of 8 tokens each for the scripted server."""
    return [conversation(f"go {number}", "a" * 8, str(number)) for number in range(count)]


def test_the_table_says_first_whether_it_is_valid(server, benchmark):
    done = benchmark(
        server.port, asked(), "--num-prompts", "6", "--max-concurrency", "3",
        *("--goodput", "ttft:5000", "e2el:1", "--chip-hour-price", "2.5", "--chips", "4"),
    )  # fmt: skip
    record, lines = done.record, done.out.splitlines()
    assert lines[0].startswith("== ")
    assert lines[1] == record["verdict"] == "VALID"
    assert record["verdict_reasons"] == []
    assert record["goodput_share"] == 0
    assert (record["goodput_share_ttft"], record["goodput_share_e2el"]) == (1, 0)
    cost = 2.5 * 4 * record["duration"] / 3600
    assert record["cost_per_million_output_tokens"] == pytest.approx(cost / 48 * 1e6)
    shown = {line[:40].strip(): line[40:].strip() for line in lines}
    assert shown["kept ttft"] == "100.0%"
    assert shown["kept e2el"] == "0.0%"
    assert float(shown["Per million output tokens"].replace(",", "")) == pytest.approx(
        cost / 48 * 1e6, abs=1e-3
    )
    assert shown["Per million good output tokens"] == "-"
    # The scripted server says 250 ms of queue and 500 ms of prefill.
    (queue,) = [line for line in lines if line.startswith("server queue")]
    (prefill,) = [line for line in lines if line.startswith("prefill")]
    assert queue.split()[2:] == ["250.00"] * 4
    assert prefill.split()[1:] == ["500.00"] * 4


def test_files_as_jetstream_and_vllm_write_them(tmp_path, tokenizer_path):
    with truth_server("--ttft-ms", "10", "--itl-ms", "5") as ports:
        done = run_load(
            tmp_path, tokenizer_path, ports["http"], conversations(4), "--num-prompts", "4",
            *("--save-result", "--save-detailed", "--label", "mine", "--model", "org/tiny"),
            *("--max-concurrency", "2", "--metadata", "chips=4"),
        )  # fmt: skip
    assert done.status == 0, done.err
    (vllm,) = done.folder.glob("mine-infqps-concurrency2-tiny-*.json")
    (jetstream,) = done.folder.glob("JetStream-*.json")
    found = json.loads(vllm.read_text())
    assert (found["label"], found["chips"], found["max_concurrency"]) == ("mine", "4", 2)
    assert found["completed"] == 4 and len(found["ttfts"]) == 4
    assert found["median_ttft_ms"] == done.record["median_ttft_ms"]
    assert json.loads(jetstream.read_text()) == done.record["jetstream"]
    assert done.record["label"] == "mine"
    # The server lists another model: the one named is what it was asked for.
    assert done.record["settings"]["target"]["model"] == "org/tiny"


def test_results_are_added_to_a_file(tmp_path, tokenizer_path):
    with truth_server("--ttft-ms", "10", "--itl-ms", "5") as ports:
        for _ in range(2):
            done = run_load(
                tmp_path, tokenizer_path, ports["http"], conversations(4), "--num-prompts", "4",
                *("--append-result", "--result-filename", "all/runs.jsonl"),
            )  # fmt: skip
            assert done.status == 0, done.err
    lines = (done.folder / "all" / "runs.jsonl").read_text().splitlines()
    assert [json.loads(line)["completed"] for line in lines] == [4, 4]


def test_what_cannot_be_written_is_said_before_anything_is_measured(tmp_path, capsys):
    folder = tmp_path / "runs"
    (folder / "all").mkdir(parents=True)
    (folder / "bytes").write_bytes(b"\xff\xfe")
    for arguments, message in (
        (["--result-filename", "all"], "is a directory"),
        (["--result-filename", "bytes", "--append-result"], "cannot add to"),
        (["--result-filename", "bytes/x.json"], "cannot make the directory"),
    ):
        assert main(["--result-dir", str(folder), *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error and len(error.splitlines()) == 1


def test_no_secret_is_written_or_shown(tmp_path, tokenizer_path):
    with truth_server("--ttft-ms", "10", "--itl-ms", "5") as ports:
        command = load_command(
            tmp_path, tokenizer_path, ports["http"], conversations(4), "--num-prompts", "4",
            *("--api-key-env", "SECRET", "--header", "X-Pass=hidden-value", "--workers", "2"),
            *("--save-result", "--save-detailed", "--save-request-outputs"),
        )  # fmt: skip
        ran = subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False,
            env=ENVIRONMENT | {"SECRET": "hidden-key"},
        )  # fmt: skip
    done = outcome(tmp_path, ran.returncode, ran.stdout, ran.stderr)
    assert done.status == 0, done.err
    assert done.record["settings"]["target"]["headers"] == ["X-Pass"]
    written = [path.read_text() for path in done.folder.rglob("*") if path.is_file()]
    assert len(written) == 5
    for text in (*written, done.out, done.err):
        assert "hidden" not in text


def test_every_run_has_its_own_record(tmp_path, tokenizer_path):
    with truth_server("--ttft-ms", "5", "--itl-ms", "1") as ports:
        for _ in range(2):
            done = run_load(
                tmp_path, tokenizer_path, ports["http"], conversations(4), "--num-prompts", "4"
            )
    assert len(list(done.folder.glob("*.json"))) == 2

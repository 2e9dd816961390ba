"""Closed and open loops, durations and conversations, judged by what the server saw."""

import json

import numpy as np
import pytest
from client_rig import Outcome
from load_rig import asked_of, chatting, conversations, load_command, most_at_once, run_load

from client.benchmark import main
from client.calibration.floor import read_truth, truth_server
from client.workloads.encoding import encode_chat
from tokenization import Tokenizer

Truth = dict[str, tuple[float, list[float]]]


@pytest.fixture
def load(tmp_path, tokenizer_path):
    """Runs the command against a truth server: `load(conversations, "--flag", ..)`."""

    def run(data: list, *arguments: str, itl: float = 20) -> tuple[Outcome, Truth]:
        with truth_server("--ttft-ms", str(itl), "--itl-ms", str(itl)) as ports:
            done = run_load(tmp_path, tokenizer_path, ports["http"], data, *arguments)
            return done, read_truth(ports["http"])

    return run


def in_flight(truth: Truth) -> int:
    """The most requests the server had at one time."""
    return most_at_once([(received, sends[-1]) for received, sends in truth.values()])


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_closed_loop_keeps_so_many_in_flight(load, workers):
    done, truth = load(
        conversations(60), "--num-prompts", "60", "--max-concurrency", "5", "--workers", workers
    )
    assert done.record["completed"] == 60
    assert in_flight(truth) <= 5
    assert done.record["max_concurrent_requests"] == 5
    # 60 requests of 80 ms by 5 users, each asking again at once.
    assert 0.9 < done.record["duration"] < 3


def test_users_ask_again_while_others_still_come(load):
    done, truth = load(
        conversations(200), "--num-prompts", "200",
        *("--max-concurrency", "4", "--ramp-up-seconds", "2", "--duration", "2.2"),
    )  # fmt: skip
    came = np.sort([received for received, _ in truth.values()])
    came -= came[0]
    # A user comes every half second; a request takes 80 ms.
    assert 3 <= (came < 0.45).sum() <= 6
    sent = [(row["sent"], row["ended"]) for row in done.rows]
    for users in (1, 2, 3):
        assert most_at_once([each for each in sent if each[0] < 0.5 * users - 0.01]) <= users
    assert most_at_once(sent) == 4


def test_a_closed_loop_ends_by_the_clock(load):
    done, truth = load(
        conversations(500), "--max-concurrency", "4", "--duration", "1.2", "--num-prompts", "500"
    )
    assert done.status == 0, done.err
    record = done.record
    assert record["num_prompts"] == record["completed"] == len(truth) == len(done.rows)
    assert 20 < len(truth) < 70
    assert all(row["sent"] < 1.25 for row in done.rows)
    assert 1.1 < record["duration"] < 3
    assert not any("used up" in note for note in record["notes"])


def test_a_closed_loop_that_runs_out_says_so(load):
    done, _ = load(
        conversations(8), "--max-concurrency", "4", "--duration", "30", "--num-prompts", "8"
    )
    assert done.record["completed"] == 8
    assert done.record["duration"] < 10
    assert "the 8 prompts were used up before 30 s were over" in done.record["notes"]


def test_an_open_loop_lasts_as_long_as_its_rate_says(load):
    done, truth = load(conversations(60), "--request-rate", "40", "--duration", "1.5")
    assert done.record["num_prompts"] == len(truth) == 60
    assert done.rows[-1]["scheduled"] == pytest.approx(1.5 * 59 / 60, rel=1e-6)


def test_a_trace_ends_by_the_clock(load, tmp_path):
    trace = tmp_path / "trace.jsonl"
    lines = [
        {"timestamp": number / 10, "prompt": f"prompt {number:05}", "output_len": 3}
        for number in (*range(20), 3600)
    ]
    trace.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done, truth = load([], "--dataset", "jsonl", "--dataset-path", str(trace), "--duration", "1.05")
    assert done.status == 0, done.err
    assert sorted(truth) == [f"prompt {number:05}" for number in range(11)]
    due = [row["scheduled"] for row in done.rows]
    assert due == pytest.approx(np.arange(11) / 10, abs=1e-6)
    assert "TTFT from scheduled" in done.out


def test_loads_that_contradict_themselves_are_refused(tmp_path, tokenizer_path, capsys):
    command = load_command(tmp_path, tokenizer_path, 9, conversations(4))
    for arguments, message in (
        (("--duration", "5"), "--duration needs"),
        (("--duration", "-1", "--request-rate", "1"), "--duration: seconds above 0"),
        (("--duration", "5", "--num-prompts", "7", "--request-rate", "1"), "leave one of them"),
        (("--ramp-up-seconds", "5"), "closed loop"),
        (("--max-concurrency", "0"), "1 or more"),
        (("--workers", "0"), "1 or more"),
        (("--num-warmups", "-1"), "0 or more"),
        (("--num-warmups", "1", "--warmup-mode", "full"), "give one"),
        (("--append-result",), "--result-filename"),
        (("--real-history",), "--multi-turn"),
        (("--real-history", "--multi-turn"), "openai-chat"),
    ):
        with pytest.raises(SystemExit) as exit_:
            main([*command[3:], *arguments])
        error = capsys.readouterr().err
        assert exit_.value.code == 2
        assert message in error and len(error.splitlines()) == 1


def test_a_limit_on_an_open_loop_shows_its_wait_in_latency_from_the_schedule(load):
    """50 a second are asked for, 2 at a time of 100 ms each are 20 a second."""
    done, truth = load(
        conversations(30, 4), "--num-prompts", "30", "--request-rate", "50",
        *("--arrivals", "constant", "--max-concurrency", "2"), itl=25,
    )  # fmt: skip
    record = done.record
    assert record["verdict"] == "VALID", record["verdict_reasons"]
    assert in_flight(truth) <= 2
    waits = [row["sent"] - row["scheduled"] for row in done.rows]
    least = [max(0, number // 2 * 0.1 - number / 50) for number in range(30)]
    assert all(wait > floor - 0.005 for wait, floor in zip(waits, least, strict=True))
    assert record["max_concurrent_requests"] <= 2
    assert record["p99_e2el_from_scheduled_ms"] - record["p99_e2el_ms"] > 700


def test_warm_ups_are_the_first_prompt_so_many_times(load):
    done, truth = load(conversations(4), "--num-prompts", "4", "--num-warmups", "3")
    assert done.record["warmup"] == {"sent": 3, "failed": 0}
    assert done.record["completed"] == 4
    assert len(truth) == 4  # by prompt: the warm-ups asked the first one of the run
    assert done.record["duration"] < 3


def talk(turns: int, name: str, refuse: int | None = None) -> dict:
    """A conversation; the turn numbered `refuse` makes the server refuse."""
    said = []
    for turn in range(turns):
        what = "refuse" if turn == refuse else "go"
        said.append({"from": "human", "value": f"{what} {name} {turn}"})
        said.append({"from": "gpt", "value": f"data {name} {turn}"})
    return {"id": name, "conversations": said}


@pytest.fixture
def chat(tmp_path, tokenizer_path):
    """Runs the command against a chat server: the outcome, and what the server was asked."""

    def run(data: list, *arguments: str) -> tuple[Outcome, list[dict]]:
        with chatting("--seconds", "0.02") as server:
            done = run_load(
                tmp_path, tokenizer_path, server.port, data, "--backend", "openai-chat",
                "--multi-turn", *arguments,
            )  # fmt: skip
            return done, asked_of(server.port)

    return run


def test_turns_follow_their_answers_after_a_time_to_think(chat):
    data = [talk(4, name) for name in "abcde"]
    done, asked = chat(data, "--num-prompts", "5", "--think-time", "0.15")
    assert done.status == 0, done.err
    assert done.record["num_prompts"] == 20
    rows = {row["prompt_id"]: row for row in done.rows}
    came = {each["messages"][-1]["content"]: each for each in asked}
    waits = []
    for name in "abcde":
        for turn in (1, 2, 3):
            before, now = rows[f"{name}/{turn - 1}"], rows[f"{name}/{turn}"]
            waits.append(now["scheduled"] - before["ended"])
            seen = came[f"go {name} {turn}"]["came"] - came[f"go {name} {turn - 1}"]["left"]
            assert seen > waits[-1] - 0.02
            # The event loop's timers are good to a millisecond.
            assert now["sent"] >= now["scheduled"] - 0.001
            assert now["scheduled"] > before["ended"]
    # Exponential with this mean, from 15 of them; the seed fixes which.
    assert 0.06 < np.mean(waits) < 0.4
    assert len(set(np.round(waits, 6))) == 15


def test_without_real_history_later_turns_carry_what_the_data_say(chat):
    _, asked = chat([talk(3, "x")], "--num-prompts", "1")
    assert [message["content"] for message in asked[-1]["messages"]] == [
        "go x 0", "data x 0", "go x 1", "data x 1", "go x 2",
    ]  # fmt: skip


def test_real_history_carries_what_the_model_said(chat, tokenizer: Tokenizer):
    done, asked = chat([talk(3, name) for name in "xyz"], "--num-prompts", "3", "--real-history")
    assert done.status == 0, done.err
    said = {each["messages"][-1]["content"]: each for each in asked}
    for name in "xyz":
        first, second, third = (said[f"go {name} {turn}"] for turn in range(3))
        assert [message["content"] for message in third["messages"]] == [
            f"go {name} 0", first["answer"], f"go {name} 1", second["answer"], f"go {name} 2",
        ]  # fmt: skip
        roles = [message["role"] for message in third["messages"]]
        assert roles == ["user", "assistant", "user", "assistant", "user"]
    # What was really asked is what is counted.
    for row in done.rows:
        name, turn = row["prompt_id"].split("/")
        sent = said[f"go {name} {turn}"]["messages"]
        messages = [(message["role"], message["content"]) for message in sent]
        assert row["input_len"] == len(encode_chat(messages, tokenizer).token_ids)


@pytest.mark.parametrize("history", [(), ("--real-history",)])
def test_a_turn_that_fails_ends_its_conversation_alone(chat, history):
    data = [talk(4, "bad", refuse=1), talk(4, "good")]
    done, asked = chat(data, "--num-prompts", "2", *history)
    assert done.status == 1
    assert done.record["completed"] == 5
    assert done.record["failures"] == {"earlier turn failed": 2, "HTTP 500": 1}
    rows = {row["prompt_id"]: row for row in done.rows}
    assert rows["bad/1"]["detail"] == "I would not"
    assert rows["bad/3"]["detail"] == "turn 2: HTTP 500"
    assert rows["bad/3"]["sent"] is None
    assert sum("bad" in each["messages"][-1]["content"] for each in asked) == 2


def test_conversations_end_by_the_clock_too(chat):
    data = [talk(4, str(number)) for number in range(40)]
    done, asked = chat(
        data, "--max-concurrency", "2", "--duration", "1", "--think-time", "0.1",
        "--num-prompts", "40",
    )  # fmt: skip
    assert done.status == 0, done.err
    assert done.record["num_prompts"] == done.record["completed"] == len(asked)
    assert all(row["sent"] < 1.2 for row in done.rows)
    assert done.record["duration"] < 3

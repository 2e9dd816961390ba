"""The error floor: compared rightly, kept for this host, over a server that tells the truth."""

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import hpack
import numpy as np
import pytest
from client_rig import ENVIRONMENT
from load_rig import conversations, run_load

from client.calibrate import main
from client.calibration.floor import Trial, compare, read_truth, truth_server
from client.calibration.kept import load_calibration
from client.errors import NotReadyError, UsageError
from client.load.health import WorkerHealth
from client.load.share import ShareResult
from client.results.host import describe_host
from client.targets.exchange import OK, Answer, Exchange, Piece
from client.targets.grpc_wire import framed
from client.targets.http2_frames import frame, read_frames
from protos import orchestrator_pb2 as pb

QUICK = ("--streams", "8", "--tokens", "10", "--generations", "2", "--rounds", "2")
QUICK += ("--ttft-ms", "40", "--itl-ms", "10")


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a quick calibration of both wires kept."""
    path = tmp_path_factory.mktemp("kept") / "deep" / "calibration.json"
    before = os.sched_getaffinity(0)
    assert main([*QUICK, "--out", str(path)]) == 0
    assert os.sched_getaffinity(0) == before
    return path


def test_what_is_kept(calibration):
    found = json.loads(calibration.read_text())
    assert found["rounds"] == 2
    assert found["host"] == describe_host()
    assert [floor["kind"] for floor in found["floors"]] == ["openai", "jetstream"]
    for floor in found["floors"]:
        assert floor["counts_agree"]
        assert (floor["streams"], floor["transport"], floor["workers"]) == (8, "fast", 1)
        assert floor["offered_tokens_per_s"] == pytest.approx(800)
        # 9 gaps and a first wait for 10 tokens: 8 streams bring 8 * 10 in 130 ms.
        assert 200 < floor["reached_tokens_per_s"] <= 620
        assert -5 < floor["ttft_error_p50_ms"] < 50
        assert 0 < floor["read_lag_p50_ms"] < 50
        assert floor["cpu_ms_per_1000_tokens"] > 0


@pytest.mark.parametrize("arguments", [("--transport", "grpcio"), ("--workers", "2")])
def test_other_transports_and_workers(tmp_path, arguments, capsys):
    path = tmp_path / "calibration.json"
    quick = (*QUICK, "--rounds", "1", "--targets", "jetstream", "--out", str(path))
    assert main([*quick, *arguments]) == 0
    (floor,) = json.loads(path.read_text())["floors"]
    assert floor["counts_agree"]
    given = dict([arguments])
    assert floor["transport"] == given.get("--transport", "fast")
    assert floor["workers"] == int(given.get("--workers", 1))
    name = "jetstream, grpcio" if "grpcio" in arguments else "jetstream"
    assert f"| {name} | {floor['workers']} | 8 | 800 |" in capsys.readouterr().out


def test_later_records_of_this_host_carry_it(calibration, tmp_path, tokenizer_path):
    other = tmp_path / "other.json"
    found = json.loads(calibration.read_text())
    other.write_text(json.dumps(found | {"host": found["host"] | {"node": "elsewhere"}}))
    with truth_server("--ttft-ms", "10", "--itl-ms", "5") as ports:
        ours, theirs = (
            run_load(
                tmp_path / name, tokenizer_path, ports["http"], conversations(4),
                *("--num-prompts", "4", "--calibration", str(path)),
            )
            for name, path in (("ours", calibration), ("theirs", other))
        )  # fmt: skip
    assert ours.record["calibration"] == found
    floor = found["floors"][0]
    shown = f"{floor['ttft_error_p99_ms']:+.2f} / {floor['itl_error_p99_ms']:+.2f} at 800 tok/s"
    assert shown in ours.out
    assert theirs.record["calibration"] is None
    assert "not calibrated" in theirs.out


@pytest.mark.parametrize("text", ["", "[]", "7", "{}", '{"host": 1}', '{"host": {}, "floors": []}'])
def test_a_file_that_is_no_calibration_is_none(tmp_path, text):
    path = tmp_path / "calibration.json"
    path.write_text(text)
    assert load_calibration(path) is None
    path.write_text(json.dumps({"host": describe_host(), "floors": [{"kind": "openai"}]}))
    assert load_calibration(path) is None
    path.write_bytes(b"\xff\xfe")
    assert load_calibration(path) is None
    assert load_calibration(tmp_path) is None


def test_an_interrupt_keeps_the_old_one(tmp_path):
    path = tmp_path / "calibration.json"
    path.write_text("the old one")
    command = [sys.executable, "-m", "client.calibrate", *QUICK, "--tokens", "400"]
    with subprocess.Popen(
        [*command, "--out", str(path)],
        env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        assert "openai, 8 streams" in process.stderr.readline()
        time.sleep(1.5)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err == "interrupted; the last calibration stands\n"
    assert out == ""
    assert path.read_text() == "the old one"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--streams", "0"], "--streams: 1 or more; got 0"),
        (["--tokens", "1"], "--tokens: 2 or more"),
        (["--generations", "0"], "--generations: 1 or more"),
        (["--itl-ms", "0"], "--itl-ms: above 0"),
        (["--ttft-ms", "nan"], "--ttft-ms: 0 or more"),
        (["--workers", "-1"], "--workers: 1 or more"),
        (["--targets", "openai", "--transport", "grpcio"], "is not for openai"),
        (["--out", "/dev/null/calibration.json"], "/dev/null"),
    ],
)
def test_bad_options_are_one_line(arguments, message, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def result(
    index: int, sent: float, times: list[float], started: float = 0.0, cpu: float = 0.1
) -> ShareResult:
    """A worker with one request; times from its start, which it reads on a clock of its own."""
    exchange = Exchange(scheduled=sent, sent=sent, ended=times[-1], status=OK)
    answer = Answer([Piece(started + time, (), "x") for time in times])
    health = WorkerHealth(2.0, cpu, 0.0, 3.0 + index, 0.0)
    return ShareResult([index], [exchange], [answer], times[-1], False, health, started)


def test_errors_are_ours_less_the_truth_by_hand():
    trial = Trial("openai", streams=2, tokens=3, generations=1, ttft=0.1, itl=0.05)
    truth = {
        "request 0": (1000.01, [1000.11, 1000.16, 1000.21]),
        "request 1": (1000.51, [1000.61, 1000.66, 1000.71]),
    }
    # The first reads each token 4 ms after it left, the second 8 ms but for one, 18 ms.
    results = [
        result(0, 0.0, [0.114, 0.164, 0.214], started=1000.0),
        result(1, 0.0, [0.118, 0.168, 0.228], started=1000.5, cpu=0.5),
    ]
    floor = compare(trial, results, truth)
    assert floor.counts_agree
    # TTFT: 114 and 118 ms where 100 and 100 were true.
    assert floor.ttft_error_p50_ms == pytest.approx(16)
    assert floor.ttft_error_p99_ms == pytest.approx(14 + 4 * 0.99)
    # Gaps: 50, 50, 50 and 60 ms where all were 50.
    assert floor.itl_error_p50_ms == pytest.approx(0, abs=1e-6)
    assert floor.itl_error_p99_ms == pytest.approx(10 * (0.99 * 3 - 2))
    assert floor.read_lag_p50_ms == pytest.approx(6)
    assert floor.read_lag_p99_ms == pytest.approx(np.percentile([4, 4, 4, 8, 8, 18], 99))
    assert floor.reached_tokens_per_s == pytest.approx(6 / 0.228)
    assert floor.cpu_ms_per_1000_tokens == pytest.approx(600 / 6 * 1000)
    assert floor.cpu_share == pytest.approx(0.25)
    assert floor.loop_lag_p99_ms == 4.0
    assert (floor.workers, floor.offered_tokens_per_s) == (2, 40)


def test_tokens_that_were_lost_are_told():
    trial = Trial("openai", streams=2, tokens=3, generations=1)
    truth = {"request 0": (0.0, [0.1, 0.2, 0.3]), "request 1": (0.0, [0.1, 0.2, 0.3])}
    whole, short = result(0, 0.0, [0.1, 0.2, 0.3]), result(1, 0.0, [0.1, 0.2])
    assert not compare(trial, [whole, short], truth).counts_agree
    assert compare(trial, [whole], truth).counts_agree
    with pytest.raises(NotReadyError, match="no request"):
        compare(trial, [whole], {})


def test_a_trial_that_cannot_be():
    with pytest.raises(UsageError, match="--targets"):
        Trial("vllm")


def test_a_truth_server_that_is_gone_is_an_error():
    with truth_server() as ports:
        assert read_truth(ports["http"]) == {}
    with pytest.raises(NotReadyError, match="does not say"):
        read_truth(ports["http"])


def test_the_truth_server_keeps_to_windows():
    """A client that takes a little at a time gets all in order, told as they left."""
    with truth_server("--ttft-ms", "0", "--itl-ms", "1") as ports:
        with socket.create_connection(("127.0.0.1", ports["grpc"])) as client:
            client.settimeout(10)
            settings = frame(4, 0, 0, struct.pack(">HI", 4, 0))
            asked = pb.DecodeRequest(max_tokens=5)
            asked.text_content.text = "windows"
            block = hpack.Encoder().encode([(":method", "POST"), (":path", "/x/Decode")])
            client.sendall(
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings + frame(1, 4, 1, block)
                + frame(0, 1, 1, framed(asked.SerializeToString()))
            )  # fmt: skip
            time.sleep(0.3)  # by now all of them are due
            assert read_truth(ports["http"])["windows"][1] == []
            began, messages = time.perf_counter(), []
            while len(messages) < 5:
                client.sendall(frame(8, 0, 1, struct.pack(">I", 30)))
                messages += _messages(client, len(messages) == 4)
            assert [message.stream_content.samples[0].finish_reason for message in messages] == [
                0, 0, 0, 0, pb.FINISH_REASON_LENGTH,
            ]  # fmt: skip
        _, sends = read_truth(ports["http"])["windows"]
        assert len(sends) == 5
        assert began < sends[0] and sends == sorted(sends)


def _messages(client: socket.socket, last: bool) -> list[pb.DecodeResponse]:
    """What comes until there is a message, or for the last one until the stream ends."""
    data, found = b"", []
    while True:
        data += client.recv(65536)
        frames, at = read_frames(data)
        data = data[at:]
        for kind, flags, number, payload in frames:
            if kind == 0 and number == 1:
                found.append(pb.DecodeResponse.FromString(payload[5:]))
            if kind == 1 and flags & 1:
                return found
        if found and not last:
            return found

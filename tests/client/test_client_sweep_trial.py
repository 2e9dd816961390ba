"""Trials with a client that ends as it is told to."""

import json
import sys
from pathlib import Path

import pytest

from client.sweep import run
from client.sweeping.options import SweepOptions

CLIENT = """
import json, pathlib, sys, time
given = json.loads(sys.argv[1])
folder = pathlib.Path(sys.argv[sys.argv.index("--result-dir") + 1])
(folder / "arguments.json").write_text(json.dumps(sys.argv))
for name, text in given["files"].items():
    (folder / name).write_text(text)
print(given["says"])
time.sleep(given.get("seconds", 0))
sys.exit(given["status"])
"""
SERVER = """
import json, pathlib, socket, sys, time
given = json.loads(sys.argv[1])
print(given.get("says", ""), flush=True)
if "plan" in given:
    ready = {"port": 7, "plan": given["plan"]}
    pathlib.Path(sys.argv[2]).write_text(json.dumps(ready))
else:
    listener = socket.create_server(("localhost", int(sys.argv[2])))
time.sleep(given.get("seconds", 60))
print("bye")
"""
PLAN = {
    "device_kind": "cpu",
    "devices": 1,
    "weight_bytes": 2_000_000,
    "cache_bytes_per_position": 500,
    "parameters": 1_000_000,
}
ROWS = [(10, 5, 6, "completed"), (3, 1, 6, "completed"), (90, 30, 40, "failed")]


def rows() -> str:
    """Requests: prompt, answer and tokens asked for."""
    names = ("input_len", "output_len", "max_tokens", "outcome")
    return "".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in ROWS)


def record(**more) -> str:
    """A run's record."""
    return json.dumps(
        {
            "format": "loadstone-run-1",
            "output_throughput": 50.0,
            "p50_ttft_ms": 20.0,
            "p99_ttft_ms": 30.4,
            "p50_tpot_ms": None,
            "num_prompts": 3,
            "interrupted": False,
            "failures": {"timeout": 1},
            **more,
        }
    )


FILES = {"loadstone-x.jsonl": rows(), "loadstone-x.json": record(), "JetStream-x.json": "{}"}


@pytest.fixture
def trial(tmp_path, capsys):
    """Runs one cell: what client and server do; gives the exit status, the cell and the output."""
    for name, text in (("client.py", CLIENT), ("server.py", SERVER)):
        (tmp_path / name).write_text(text)

    def one(client, server=None, **settings):
        told = tmp_path / "server.json"
        server = {"plan": PLAN} if server is None else server
        words = json.dumps(server).replace("{", "{{").replace("}", "}}")
        place = "{ready_file}" if "plan" in server else "{port}"
        options = SweepOptions(
            batch_sizes=(4,),
            cache_lengths=(12,),
            model=None,
            server_command=f"{sys.executable} {tmp_path / 'server.py'} '{words}' {place}",
            out=tmp_path / "out",
            **({"bandwidth_gbps": 1.0, "peak_tflops": 1.0} | settings),
        )
        told.unlink(missing_ok=True)
        filled = {"says": "", "status": 0, "files": FILES} | client
        command = (sys.executable, str(tmp_path / "client.py"), json.dumps(filled))
        status = run(options, "sweep", command)
        (cell,) = json.loads((tmp_path / "out" / "sweep.json").read_text())["cells"]
        return status, cell, capsys.readouterr().out

    return one


def arguments(tmp_path: Path) -> list[str]:
    """What the client was given, after its own instructions."""
    return json.loads((tmp_path / "out" / "b4-c12-none-model" / "arguments.json").read_text())[2:]


def test_invalid_figures_are_kept_and_marked(trial):
    status, cell, out = trial({"status": 3, "says": "INVALID: the client was busy\nrecord: x"})
    assert status == 1
    assert (cell["status"], cell["reason"]) == ("invalid", "INVALID: the client was busy")
    assert cell["figures"]["output_throughput"] == 50
    assert "| 50.0 (invalid) |" in out and "20 / 30" in out
    assert "interrupted" not in cell["figures"] and "p50_tpot_ms" not in cell["figures"]
    assert cell["record"] == "b4-c12-none-model/loadstone-x.json"


def test_the_fraction_of_the_roofline_follows_its_definition(trial):
    # One request decodes four tokens, reading 11, 12, 12 and 12 positions of a cache of 12.
    positions = (11 + 12 + 12 + 12) / 4
    moved = 2_000_000 + 4 * positions * 500
    _, cell, out = trial({})
    assert cell["roofline_tokens_per_s"] == pytest.approx(4 / (moved / 1e9))
    assert cell["roofline_fraction"] == pytest.approx(50 / (4 / (moved / 1e9)))
    assert f"| {cell['roofline_fraction']:.1%} |" in out
    # Lengths are those of all requests, not only of those that completed.
    assert "| cpu | float32 | 4 | 12 | 90 | 40 | 50.0 | model |" in out
    assert cell["rolling"] is True


def test_weights_that_a_step_does_not_read_are_left_out(trial):
    plan = PLAN | {"step_weight_bytes": 1_000_000, "device_kind": "H100"}
    _, cell, out = trial({}, {"plan": plan})
    moved = 1_000_000 + 4 * 11.75 * 500
    assert cell["roofline_tokens_per_s"] == pytest.approx(4 / (moved / 1e9))
    assert "| H100 | bfloat16 |" in out


def test_arithmetic_can_be_the_limit(trial):
    _, cell, _ = trial({}, peak_tflops=1e-6)
    assert cell["roofline_tokens_per_s"] == pytest.approx(1e6 / 2e6)


@pytest.mark.parametrize("missing", [*PLAN, "all"])
def test_without_a_whole_plan_there_is_no_fraction(trial, missing):
    plan = {name: value for name, value in PLAN.items() if name != missing}
    needed = missing not in ("device_kind", "devices")
    _, cell, _ = trial({}, {"plan": plan} if missing != "all" else {})
    assert cell["status"] == "ok"
    assert (cell["roofline_fraction"] is None) == needed


def test_what_was_measured_on_this_host_says_nothing_of_a_gpu(trial, monkeypatch):
    monkeypatch.setattr("client.sweeping.peaks.measure_bandwidth", lambda: 1e9)
    _, cell, out = trial({}, {"plan": PLAN | {"device_kind": "H100"}}, bandwidth_gbps=None)
    assert cell["roofline_fraction"] is None
    assert "no fraction of the roofline for H100: give --bandwidth-gbps and --peak-tflops" in out


def test_failed_requests_make_a_failed_cell(trial):
    status, cell, out = trial({"status": 1})
    assert status == 1
    assert (cell["status"], cell["reason"]) == ("failed", "1 of 3 requests failed: 1 timeout")
    assert cell["figures"]["output_throughput"] == 50
    assert "50.0" not in out and cell["roofline_fraction"] is None


def test_a_server_that_ran_out_of_memory_and_lives_on(trial):
    said = "XlaRuntimeError: RESOURCE_EXHAUSTED: out of memory"
    _, cell, _ = trial({"status": 1}, {"plan": PLAN, "says": said})
    assert (cell["status"], cell["reason"]) == ("oom", said)


@pytest.mark.parametrize(
    ("client", "reason"),
    [
        ({"status": 2, "says": "error: no ready server\nbye"}, "status 2: error: no ready server"),
        ({"files": {}}, "the benchmark left no record"),
        ({"files": FILES | {"loadstone-x.json": "{"}}, "the record cannot be read"),
        ({"files": FILES | {"loadstone-x.jsonl": "{}"}}, "the record cannot be read"),
        ({"seconds": 60, "says": "slowly"}, "the benchmark did not end within 1 s"),
    ],
)
def test_other_ends_of_the_client_fail_the_cell(trial, client, reason):
    status, cell, _ = trial(client, benchmark_seconds=1)
    assert (status, cell["status"]) == (1, "failed")
    assert reason in cell["reason"]


def test_a_server_without_a_ready_file_is_ready_when_it_listens(trial, tmp_path):
    status, cell, _ = trial({}, {}, client_options=("--seed", "3"))
    assert (status, cell["status"], cell["plan"]) == (0, "ok", None)
    given = arguments(tmp_path)
    assert given[given.index("--port") + 1] == cell["server_command"][-1]
    assert given[-2:] == ["--seed", "3"]
    assert given[given.index("--warmup-mode") + 1] == "sampled"
    assert "--model" not in given


def test_the_port_goes_where_the_clients_options_say(trial, tmp_path):
    trial({}, client_options=("--server", "http://localhost:{port}/v1"))
    assert arguments(tmp_path)[-1] == "http://localhost:7/v1"
    assert "--port" not in arguments(tmp_path)


def test_a_client_that_waits_for_a_dead_server_is_stopped(trial, monkeypatch):
    monkeypatch.setattr("client.sweeping.trial._ALONE_SECONDS", 0.2)
    _, cell, _ = trial({"seconds": 60}, {"plan": PLAN, "seconds": 0.5})
    assert (cell["status"], cell["reason"]) == ("failed", "the server ended with status 0: bye")

"""The sweep command against real servers, interrupted, killed and resumed."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sweep_rig import Rig

from client.sweep import main
from client.sweeping.files import locked


@pytest.fixture
def rig(tmp_path: Path, tokenizer_path: Path) -> Rig:
    """A folder to sweep in."""
    return Rig(tmp_path, tokenizer_path)


def test_each_setting_gets_its_answer_and_the_sweep_goes_on(rig):
    settings = ["--batch-sizes", "8", "--cache-lengths", "16"]
    words = "refuse,killed,none,memory,dies,crash"
    done = rig.run(*settings, "--quantize", words, "--shardings", "batch")
    assert done.status == 1, done.err
    assert rig.processes() == []
    cells = rig.cells()
    statuses = {word: cell["status"] for word, cell in cells.items()}
    assert statuses == {
        "refuse": "refused",
        "killed": "oom",
        "none": "ok",
        "memory": "oom",
        "dies": "oom",
        "crash": "failed",
    }
    assert cells["refuse"]["reason"] == "error: batch 8 does not | fit"
    assert "cannot allocate the cache" in cells["memory"]["reason"]
    assert "status 1: RuntimeError: the weights are upside down" in cells["crash"]["reason"]
    assert rig.state()["remaining"] == 0

    good = cells["none"]
    record = json.loads((rig.out / good["record"]).read_text())
    assert record["completed"] == 4 and record["warmup"]["sent"] == 1
    assert good["figures"]["output_throughput"] == record["output_throughput"]
    assert good["reason"] == "" and good["seconds"] > record["duration"]
    # 10 prompt tokens and 8 asked for: more than 16.
    assert (good["max_input_length"], good["max_output_length"], good["rolling"]) == (10, 8, True)
    assert good["server_command"][1].endswith("sweep_server.py")
    assert 0 < good["roofline_fraction"] < 1
    assert (rig.out / "b8-c16-none-batch" / "server.log").exists()

    assert (rig.out / "table.md").read_text() == done.out
    (row,) = [line for line in done.out.splitlines() if "| ok |" in line]
    values = [value.strip() for value in row.strip("|").split("|")]
    speed = f"{record['output_throughput']:,.1f}"
    assert values[1:9] == ["cpu x 2", "float32", "8", "16", "10", "8", speed, "batch"]
    assert values[-2:] == ["rolling", "ok"]
    assert "b8-c16-refuse-batch: refused: error: batch 8 does not \\| fit" in done.out
    assert "python -m client.sweep" in done.out


def test_killed_interrupted_and_resumed_it_does_each_setting_once(rig):
    settings = ["--quantize", "refuse,none", "--batch-sizes", "1,2", "--cache-lengths", "64"]
    server = f"--gate {rig.gate}"
    finished = lambda: [cell["batch_size"] for cell in rig.state()["cells"]]  # noqa: E731
    with rig.started(*settings, server=server) as sweep:
        # Both refusals are in, and a server that will not answer for a minute takes requests.
        rig.wait_for(lambda: (rig.out / "b1-c64-none-model" / "client.log").exists())
        sweep.send_signal(signal.SIGKILL)
        sweep.wait(10)
    assert finished() == [1, 2]
    rig.wait_for(lambda: rig.processes() == [])
    refused = {path: path.stat().st_mtime_ns for path in rig.out.glob("*refuse*/*")}
    assert refused

    with rig.started(*settings, server=server) as sweep:
        rig.wait_for(lambda: (rig.out / "b1-c64-none-model" / "client.log").exists())
        rig.wait_for(lambda: len(rig.processes()) >= 5)
        sweep.send_signal(signal.SIGINT)
        out, err = sweep.communicate(timeout=30)
    assert sweep.returncode == 130
    assert "2 of 4 settings tried" in out and "to go on: python -m client.sweep" in err
    assert finished() == [1, 2] and rig.state()["remaining"] == 2
    assert rig.processes() == []

    rig.gate.touch()
    done = rig.run(*settings, server=server)
    assert done.status == 0, done.err
    assert "2 of 4 settings are done already" in done.err
    assert finished() == [1, 2, 1, 2]
    assert {path: path.stat().st_mtime_ns for path in rig.out.glob("*refuse*/*")} == refused
    assert done.out.count("| ok |") == 2 and done.out.count("| full |") == 2
    records = list(rig.out.glob("*none*/loadstone-*.json"))
    assert len(records) == 2

    other = rig.run(*settings, "--batch-sizes", "1,4", server=server)
    assert other.status == 2
    assert "batch_sizes was [1, 2] and is now [1, 4]" in other.err
    assert finished() == [1, 2, 1, 2]


def test_a_server_that_hangs_is_killed_and_tried_again_only_when_asked(rig):
    settings = ["--quantize", "hang", "--batch-sizes", "1", "--ready-seconds", "2"]
    done = rig.run(*settings)
    assert done.status == 1
    assert rig.processes() == []
    (cell,) = rig.state()["cells"]
    assert cell["status"] == "failed"
    assert cell["reason"].endswith("not ready within 2 s; its log ends: compiling 1/9")

    assert rig.run(*settings).status == 1
    assert rig.state()["cells"] == [cell]

    again = rig.run(*settings, "--retry-failed", "--ready-seconds", "1")
    assert again.status == 1
    assert "within 1 s" in rig.state()["cells"][0]["reason"]


def test_a_second_interrupt_waits_for_nothing(rig):
    with rig.started("--quantize", "hang", "--batch-sizes", "1", "--stop-seconds", "80") as sweep:
        rig.wait_for(lambda: any("sweep_server" in line for line in rig.processes()[1:]))
        rig.wait_for(lambda: "compiling" in _text(rig.out / "b1-c1024-hang-model" / "server.log"))
        sweep.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert sweep.poll() is None
        sweep.send_signal(signal.SIGINT)
        sweep.communicate(timeout=30)
    assert sweep.returncode == 130
    assert rig.processes() == []
    assert rig.state()["cells"] == []


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch-sizes", "8,x"], "--batch-sizes: whole numbers from 1 on"),
        (["--batch-sizes", "8,0"], "--batch-sizes: whole numbers from 1 on"),
        (["--batch-sizes", "8,8"], "--batch-sizes: 8 stands there twice"),
        (["--quantize", "int4"], "--quantize: none, int8; got 'int4'"),
        (["--quantize", "none,"], "--quantize: words"),
        (["--shardings", "both"], "--shardings: model, batch; got 'both'"),
        (["--num-prompts", "0"], "--num-prompts: 1 or more; got 0"),
        (["--bandwidth-gbps", "nan"], "--bandwidth-gbps: a number above 0"),
        (["--ready-seconds", "-1"], "--ready-seconds: a number above 0"),
        (["--server-command", "python {size} {port}"], "{size} is not known; known are"),
        (["--server-command", "python {port"], "--server-command: expected '}'"),
        (["--server-command", "python 'a {port}"], "--server-command: No closing quotation"),
        (["--server-command", ""], "--server-command: is empty"),
        (["--server-command", "python {batch_size}"], "needs {port} or {ready_file}"),
        (["--server-command", "no-such-program {port}"], "there is no program 'no-such-program'"),
        (["--server-command", "python {port}"], "has no {batch_size}, so it cannot take 3"),
        (["--client", "--port", "9"], "--client: --port is set by the sweep"),
        (["--client", "--num-prompts=9"], "the sweep has an option --num-prompts"),
        (["--client", "--no-such"], "client.benchmark: error: unrecognized arguments: --no-such"),
        (["--client", "--top-p", "x", "--", "--devices", "2"], "argument --top-p"),
    ],
)
def test_bad_input_is_named_before_anything_starts(arguments, message, capsys, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", None)
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2
    assert message in capsys.readouterr().err


def test_a_folder_belongs_to_one_sweep_at_a_time(tmp_path, capsys):
    (tmp_path / "sweep").mkdir()
    with locked(tmp_path / "sweep"):
        assert main(["--out", str(tmp_path / "sweep")]) == 2
    assert "another sweep is at work in" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"format": "loadstone-sweep-9"}'])
def test_a_foreign_state_file_is_refused_and_kept(tmp_path, capsys, text):
    (tmp_path / "sweep.json").write_text(text)
    assert main(["--out", str(tmp_path), "--bandwidth-gbps", "1", "--peak-tflops", "1"]) == 2
    assert "is not the state of a sweep" in capsys.readouterr().err
    assert (tmp_path / "sweep.json").read_text() == text


def test_another_machine_may_not_go_on_with_a_sweep(rig):
    settings = ["--quantize", "refuse", "--batch-sizes", "1"]
    assert rig.run(*settings).status == 0
    state = rig.state()
    state["machine"]["cpu"] = "abacus"
    (rig.out / "sweep.json").write_text(json.dumps(state))
    done = rig.run(*settings)
    assert done.status == 2
    assert 'cpu was "abacus" and is now' in done.err


def test_python_finds_no_jax_in_it():
    code = "import client.sweep, sys; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

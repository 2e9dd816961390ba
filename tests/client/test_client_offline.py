"""The in-process benchmark as a command: real processes that end in every way, resumed."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from offline_rig import Rig

from client.engines.cell import OFFLINE
from client.offline import main
from client.results.comparison_sides import read_side
from client.sweeping.files import locked


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """A folder to run in."""
    return Rig(tmp_path)


def test_each_point_gets_its_answer_and_the_run_goes_on(rig):
    kinds = "none,upto8,memory,chip,aborts,killed,absent,crash,short"
    done = rig.run(
        "--quantize", kinds, "--batch-sizes", "2,16,32", "--memory-limit-gib", "0.5"
    )  # fmt: skip
    assert done.status == 1, done.err
    assert rig.processes() == []
    cells = {(cell["kind"], cell["batch_size"]): cell for cell in rig.state()["cells"]}
    statuses = {kind: cells[kind, 16]["status"] for kind in kinds.split(",")}
    assert statuses == {
        "none": "ok",
        "upto8": "refused",
        "memory": "oom",
        "chip": "oom",
        "aborts": "oom",
        "killed": "oom",
        "absent": "unavailable",
        "crash": "failed",
        "short": "failed",
    }
    assert cells["upto8", 2]["status"] == "ok"
    assert cells["upto8", 16]["reason"].startswith("batch 16 | does not fit")
    assert cells["chip", 2]["reason"].startswith("RESOURCE_EXHAUSTED")
    assert "bad_alloc" in cells["aborts", 2]["reason"]
    assert "no such library" in cells["absent", 2]["reason"]
    assert "the weights are upside down" in cells["crash", 2]["reason"]
    assert "made 4 tokens a row; asked for 5" in cells["short", 2]["reason"]
    # What did not fit is not tried with more.
    for kind, first in (("upto8", 16), ("memory", 2), ("killed", 2)):
        for batch in (b for b in (16, 32) if b > first):
            cell = cells[kind, batch]
            assert cell["seconds"] == 0 and f"batch {first}, 3 tokens was" in cell["reason"]

    good = cells["none", 16]
    assert len(good["runs"]) == 2 and all(0.005 <= run[0] < 1 for run in good["runs"])
    assert all(0.001 <= run[1] < run[0] for run in good["runs"])
    total = sum(run[0] for run in good["runs"])
    assert good["figures"]["output_throughput"] == pytest.approx(2 * 16 * 5 / total)
    assert 0 < good["figures"]["roofline_fraction"] < 1
    assert good["cold"]["ready"] < good["seconds"]
    assert good["memory"]["while_timed"] and good["memory"]["peak_bytes"] > 2**20
    assert (rig.out / "table.md").read_text() == done.out
    row = next(line for line in done.out.splitlines() if line.startswith("| 16 |"))
    assert [value.strip() for value in row.strip("|").split("|")][2:] == [
        "refused", "oom", "oom", "oom", "oom", "unavailable", "failed", "failed",
    ]  # fmt: skip
    assert "upto8, batch 16: refused: batch 16 \\| does not fit" in done.out


def test_the_record_of_a_point_is_one_of_the_clients(rig):
    assert rig.run("--quantize", "none", "--batch-sizes", "3").status == 0
    (cell,) = rig.state()["cells"]
    side = read_side(str(rig.out / cell["record"]))
    (measured,) = side.runs
    record = measured.figures
    assert record["output_throughput"] == pytest.approx(cell["figures"]["output_throughput"])
    assert (record["completed"], record["total_output_tokens"]) == (6, 30)
    # Prompts of 3, 2 and 3 tokens, twice.
    assert record["total_input_tokens"] == 16
    assert record["mean_ttft_ms"] == pytest.approx(cell["figures"]["mean_ttft_ms"])
    assert record["mean_tpot_ms"] == pytest.approx(cell["figures"]["mean_tpot_ms"])
    rows = measured.records()
    assert [row.max_tokens for row in rows] == [5] * 6
    assert rows[3].sent == pytest.approx(cell["runs"][0][0])


def test_killed_interrupted_and_resumed_it_does_each_point_once(rig):
    settings = ["--quantize", "none,gate", "--batch-sizes", "1,2"]
    finished = lambda: [  # noqa: E731
        (cell["kind"], cell["batch_size"]) for cell in rig.state()["cells"]
    ]
    waiting = rig.out / "points" / "tiny-loadstone-gate-flash-b1-c3-r1" / "worker.log"
    with rig.started(*settings) as command:
        rig.wait_for(waiting.exists)
        command.send_signal(signal.SIGKILL)
        command.wait(10)
    assert finished() == [("none", 1)]
    rig.wait_for(lambda: rig.processes() == [])
    kept = (rig.out / "points" / "tiny-loadstone-none-flash-b1-c3-r1" / "result.json").stat()

    with rig.started(*settings) as command:
        # The command, its guard and the worker.
        rig.wait_for(lambda: len(rig.processes()) >= 3 and waiting.exists())
        command.send_signal(signal.SIGINT)
        out, err = command.communicate(timeout=30)
    assert command.returncode == 130
    assert "1 of 4 points tried" in out and "to go on: python -m client.offline" in err
    assert finished() == [("none", 1)] and rig.state()["remaining"] == 3
    assert rig.processes() == []

    rig.gate.touch()
    done = rig.run(*settings)
    assert done.status == 0, done.err
    assert "1 of 4 points are done already" in done.err
    assert finished() == [("none", 1), ("gate", 1), ("none", 2), ("gate", 2)]
    path = rig.out / "points" / "tiny-loadstone-none-flash-b1-c3-r1" / "result.json"
    assert path.stat().st_mtime_ns == kept.st_mtime_ns

    other = rig.run(*settings, "--new-tokens", "6")
    assert other.status == 2
    assert "new_tokens was 5 and is now 6" in other.err
    # What is only shown may change.
    page = rig.run(*settings, "--definition", "page")
    assert page.status == 0 and "tokens/sec | msec/token" in page.out
    assert path.stat().st_mtime_ns == kept.st_mtime_ns


def test_a_point_that_hangs_is_killed_and_tried_again_only_when_asked(rig):
    settings = ["--quantize", "hangs", "--batch-sizes", "1,2"]
    done = rig.run(*settings, "--point-seconds", "1")
    assert done.status == 1
    assert rig.processes() == []
    first, second = rig.state()["cells"]
    assert first["status"] == second["status"] == "timeout"
    assert first["reason"] == "not done within 1 s; its log ends: compiling 1/9"
    assert second["seconds"] == 0
    assert rig.run(*settings, "--point-seconds", "1").status == 1
    assert rig.state()["cells"] == [first, second]
    rig.run(*settings, "--point-seconds", "2", "--retry-failed")
    assert rig.state()["cells"][0]["reason"].startswith("not done within 2 s")


def test_rounds_go_over_all_points_one_after_the_other(rig):
    done = rig.run("--quantize", "none", "--batch-sizes", "1,2", "--rounds", "2")
    assert done.status == 0, done.err
    cells = rig.state()["cells"]
    order = [(cell["batch_size"], cell["round"]) for cell in cells]
    assert order == [(1, 1), (2, 1), (1, 2), (2, 2)]
    runs = [run[0] for cell in cells if cell["batch_size"] == 2 for run in cell["runs"]]
    rate = f"| 2 | {2 * 5 * 4 / sum(runs):,.1f} |"
    assert rate in done.out


def test_the_other_tasks_run_through_the_same_worker(rig):
    forward = ["--preset", "uncached-forward", "--contexts", "8,16", "--batch-sizes", "2"]
    forward += ["--attention", "reference", "--quantize", "none", "--minibatch-forwards", "3"]
    done = rig.run(*forward, "--timed", "2")
    assert done.status == 0, done.err
    assert "tiny: s for 3 passes over the whole context" in done.out
    assert [cell["context"] for cell in rig.state()["cells"]] == [8, 16]
    assert all(run[0] >= 0.003 for cell in rig.state()["cells"] for run in cell["runs"])
    loss = ["--preset", "forward-loss", "--contexts", "8", "--batch-sizes", "4"]
    done = rig.run(*loss, "--out", str(rig.folder / "loss"), "--tdp-watts", "100")
    assert done.status == 0, done.err
    (row,) = [line for line in done.out.splitlines() if line.startswith("| tiny |")]
    assert "| 4 x 8 |" in row and " TDP |" in row and "| 0.4000 |" in row


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "page-9"], "--preset: invalid choice: 'page-9' (choose from"),
        (["--engines", "vllm"], "--engines: loadstone, transformers, torch_xla; got 'vllm'"),
        (["--batch-sizes", "0"], "--batch-sizes: numbers from 1 on; got '0'"),
        (["--batch-sizes", "8:1:1"], "--batch-sizes: numbers from 1 on"),
        (["--batch-sizes", "1:9"], "--batch-sizes: whole numbers or FROM:TO:STEP"),
        (["--batch-sizes", "1:9:0"], "--batch-sizes: whole numbers or FROM:TO:STEP"),
        (["--batch-sizes", "8,8"], "--batch-sizes: 8 stands there twice"),
        (["--quantize", "int8,"], "--quantize: words separated by commas"),
        (["--quantize", "a/b"], "loadstone: a word of letters"),
        (["--new-tokens", "1"], "--new-tokens: 2 or more; got 1"),
        (["--timed", "0"], "--timed: 1 or more; got 0"),
        (["--warmups", "-1"], "--warmups: 0 or more; got -1"),
        (["--rounds", "0"], "--rounds: 1 or more"),
        (["--min-seconds", "nan"], "--min-seconds: 0 or more"),
        (["--memory-limit-gib", "0"], "--memory-limit-gib: a number above 0"),
        (["--point-seconds", "0"], "--point-seconds: a number above 0"),
        (["--tdp-watts", "-3"], "--tdp-watts: a number above 0"),
        (["--engine-options", "'x"], "--engine-options: No closing quotation"),
        (["--transformers-python", "/no/such"], "--transformers-python: there is no program"),
        (["--definition", "theirs"], "--definition: invalid choice"),
    ],
)
def test_bad_options_are_named_before_anything_starts(arguments, message, capsys, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", None)
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--quantize", "int9"], "--quantize: none, bf16, int8, int8-dynamic,"),
        (["--attention", "slow"], "--attention: flash, reference; got 'slow'"),
        (["--models", "bloom-9t"], "'bloom-9t' is neither a known name nor a folder"),
        (["--against", "/no/such.json"], "--against: cannot read /no/such.json: No such file"),
        (["--against", "{file}"], "--against: {file} is not an offline.json"),
        (["--estimates", "{file}"], "--estimates: {file}: Expecting"),
        (["--quality", "/no/such.json"], "cannot read /no/such.json"),
        (["--quality", "{file}"], "{file}: not JSON"),
    ],
)
def test_bad_files_are_named_before_anything_starts(
    arguments, message, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(subprocess, "Popen", None)
    file = tmp_path / "file.json"
    file.write_text("{")
    given = [word.format(file=file) for word in arguments]
    assert main([*given, "--out", str(tmp_path / "run")]) == 2
    assert message.format(file=file) in capsys.readouterr().err


def test_an_earlier_run_must_have_measured_the_same(rig, capsys):
    assert rig.run("--quantize", "none", "--batch-sizes", "1").status == 0
    again = ["--preset", "generate", "--prompts", "3,2", "--new-tokens", "6", "--engines"]
    again += ["loadstone", "--models", str(rig.model), "--out", str(rig.folder / "other")]
    assert main([*again, "--against", str(rig.out)]) == 2
    assert "measured something else: new_tokens 5 there and 6 here" in capsys.readouterr().err


def test_a_folder_belongs_to_one_run_at_a_time(tmp_path, capsys):
    with locked(tmp_path):
        assert main(["--out", str(tmp_path)]) == 2
    assert "is at work in" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"format": "loadstone-offline-9"}'])
def test_a_foreign_state_file_is_refused_and_kept(tmp_path, capsys, text):
    (tmp_path / "offline.json").write_text(text)
    assert main(["--out", str(tmp_path), "--bandwidth-gbps", "1", "--peak-tflops", "1"]) == 2
    assert "offline.json is not the state of" in capsys.readouterr().err
    assert (tmp_path / "offline.json").read_text() == text


def test_a_library_that_is_not_there_is_a_reason_and_no_crash(tmp_path, rig):
    """Through the starter for other environments, from a folder of its own."""
    probe = "import importlib.util, sys; sys.exit(importlib.util.find_spec('{}') is not None)"
    for library, engine in (("transformers", "transformers"), ("torch_xla", "torch_xla")):
        if subprocess.run([sys.executable, "-c", probe.format(library)], check=False).returncode:
            pytest.skip(f"{library} is installed here")
        out = tmp_path / engine
        words = ["--engines", engine, "--models", str(rig.model), "--batch-sizes", "1"]
        words += ["--transformers-kinds", "float32", "--bandwidth-gbps", "1", "--peak-tflops", "1"]
        assert main([*words, "--out", str(out)]) == 0
        (cell,) = json.loads((out / "offline.json").read_text())["cells"]
        assert cell["status"] == "unavailable"
        assert "cannot be imported: No module named" in cell["reason"]
        assert OFFLINE.read(cell).as_json() == cell


def test_python_finds_no_jax_in_it():
    code = "import client.offline, sys; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_second_interrupt_waits_for_nothing(rig):
    with rig.started("--quantize", "hangs", "--batch-sizes", "1", "--stop-seconds", "80") as run:
        log = rig.out / "points" / "tiny-loadstone-hangs-flash-b1-c3-r1" / "worker.log"
        rig.wait_for(lambda: log.exists() and "compiling" in log.read_text())
        run.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert run.poll() is None
        run.send_signal(signal.SIGINT)
        run.communicate(timeout=30)
    assert run.returncode == 130
    assert rig.processes() == [] and rig.state()["cells"] == []

"""Own records: a sweep gives back the efficiencies that made it; what cannot be read is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from capacity_records import MACHINE, MODEL, TRUE, cpu, write_rows, write_sweep
from capacity_settings import setting

from capacity.__main__ import BAD_INPUT, OK, main
from capacity.calibration.fit import fit
from capacity.hardware.chips import known_chips
from capacity.records.own import FORWARD, RATED, SERVED, STEP, OwnRun, observations
from capacity.records.places import Places, host_of
from capacity.records.read import Given, Reader
from capacity.sanity.finding import ABOVE_ROOFLINE, CANNOT_FIT
from capacity.sanity.own import findings_of
from capacity.serving.lengths import Lengths
from capacity.timing.efficiency import Prior
from client.errors import UsageError

FIXTURES = Path(__file__).parents[1] / "fixtures" / "models"
PRIORS = {
    "weights": Prior(0.8, 0.3),
    "cache": Prior(0.6, 0.5),
    "compute": Prior(0.5, 0.3),
    "step_s": Prior(2e-3, 0.7),
    "sequence_s": Prior(5e-5, 0.7),
    "request_s": Prior(2e-3, 0.7),
    "overlap": Prior(1.0, 0.0),
}


def reader(**given: object) -> Reader:
    """With the known chips."""
    return Reader(Places(known_chips(), cpu), Given(**given))  # type: ignore[arg-type]


def test_a_sweep_calibrates_back_to_what_made_it(tmp_path: Path) -> None:
    runs, notes = reader().read([write_sweep(tmp_path / "s").parent])
    assert (len(runs), notes) == (4, [])
    assert runs[0].setting.slice.chip.bandwidth == 30e9
    assert (runs[0].setting.compute, runs[0].setting.weights) == ("fp32", "none")
    measured = [each for run in runs for each in observations(run)]
    assert len(measured) == 8
    values = fit(measured, PRIORS, 0.01).values
    for name in ("weights", "compute"):
        assert values[name] == pytest.approx(getattr(TRUE, name), rel=0.15)
    for each in measured:
        assert each.predict(TRUE) == pytest.approx(each.measured)


def test_records_of_one_host_share_the_largest_peaks_that_any_of_them_measured(
    tmp_path: Path,
) -> None:
    busy = write_sweep(tmp_path / "busy", batches=(2,))
    other = write_sweep(tmp_path / "other", batches=(3,))
    quiet = write_sweep(tmp_path / "quiet", batches=(4,))
    for state, differs in (
        (busy, {"bandwidth_gbps": 20.0, "peak_tflops": 0.25}),
        (other, {"cpu": "another", "bandwidth_gbps": 99.0}),
    ):
        document = json.loads(state.read_text())
        document["machine"] |= differs
        state.write_text(json.dumps(document))
    runs, _ = reader().read([busy, quiet, other])
    chips = [run.setting.slice.chip for run in runs]
    assert [chip.bandwidth for chip in chips] == [30e9, 30e9, 99e9]
    assert [chip.peak("fp32") for chip in chips] == [0.25e12, 0.25e12, 0.2e12]


def test_cells_that_were_not_measured_are_left_out(tmp_path: Path) -> None:
    refused = write_sweep(tmp_path / "refused", status="refused")
    with pytest.raises(UsageError, match="no measured run"):
        reader().read([refused])
    doubtful = write_sweep(tmp_path / "doubtful", status="invalid")
    with pytest.raises(UsageError, match="the client was the limit"):
        reader().read([doubtful])
    silent = write_sweep(tmp_path / "silent", plan=None)
    with pytest.raises(UsageError, match="did not say what it ran on"):
        reader().read([silent])
    plan = {"model": MODEL, "device_kind": "cpu", "devices": 2, "slots": 4, "cache_length": 256}
    virtual = write_sweep(tmp_path / "virtual", plan=plan)
    with pytest.raises(UsageError, match="virtual devices"):
        reader().read([virtual])


def test_devices_are_found_by_the_names_that_jax_gives_them(tmp_path: Path) -> None:
    plan = {"device_kind": "TPU v5 lite", "devices": 8, "slots": 8, "cache_length": 256}
    path = write_sweep(tmp_path / "s", plan={"model": "llama2-7b", **plan})
    runs, _ = reader().read([path])
    assert {run.setting.slice.name for run in runs} == {"v5e-8"}
    plan["device_kind"] = "Abacus 3000"
    path = write_sweep(tmp_path / "t", plan={"model": "llama2-7b", **plan})
    with pytest.raises(UsageError, match="Abacus 3000"):
        reader().read([path])


def write_run(folder: Path, **changes: object) -> Path:
    """A record alone."""
    folder.mkdir(exist_ok=True)
    path = folder / "loadstone-run.json"
    document = {
        "format": "loadstone-run-1", "verdict": "VALID", "request_rate": "inf",
        "max_concurrency": None, "output_throughput": 500.0, "mean_tpot_ms": 20.0,
        "sent_request_rate": 3.0,
    }  # fmt: skip
    path.write_text(json.dumps({**document, **changes}))
    write_rows(path.with_suffix(".jsonl"), Lengths(np.array([50]), np.array([20]), "made"))
    return path


def test_a_record_alone_takes_the_rest_from_the_command_line(tmp_path: Path) -> None:
    path = write_run(tmp_path / "r")
    with pytest.raises(UsageError, match="give --model, --slice, --batch-size"):
        reader().read([path])
    given = {"model": MODEL, "slice": "h100", "slots": 4, "cache_length": 128, "weights": "int8"}
    ((run,), _) = reader(**given).read([path])
    assert (run.setting.slots, run.setting.cache, run.kind) == (4, "int8", SERVED)
    assert run.lengths.inputs.tolist() == [50]


def test_what_the_server_wrote_beside_a_record_is_used(tmp_path: Path) -> None:
    path = write_run(tmp_path / "r")
    plan = {"model": MODEL, "device_kind": "NVIDIA H200", "devices": 1, "slots": 8}
    ready = path.parent / "ready.json"
    ready.write_text(json.dumps({"port": 1, "plan": {**plan, "cache_length": 256}}))
    ((run,), _) = reader(weights="none").read([path])
    assert (run.setting.slice.name, run.setting.slots) == ("h200", 8)
    ready.write_text("{")
    with pytest.raises(UsageError, match=r"cannot read .*ready.json"):
        reader(weights="none").read([path])


def test_a_rated_run_calibrates_its_tpot_alone(tmp_path: Path) -> None:
    given = {"model": MODEL, "slice": "h100", "slots": 4, "cache_length": 128, "weights": "none"}
    ((run,), _) = reader(**given).read([write_run(tmp_path / "r", request_rate=3.0)])
    assert run.rate == 3.0
    assert run.kind == RATED
    (only,) = observations(run)
    assert only.predict(TRUE) > 0


def test_a_run_in_process_is_a_decode_step(tmp_path: Path) -> None:
    ask = {
        "task": "generate", "engine": "transformers", "kind": "bf16", "batch": 8,
        "prompts": [64], "new_tokens": 100,
    }  # fmt: skip
    facts = {"device": "NVIDIA H100 80GB HBM3", "devices": 1}
    path = write_run(
        tmp_path / "r",
        endpoint_type="offline",
        settings={"ask": ask},
        engine=facts,
        model_id="llama3.1-8b",
        label="bf16",
    )
    ((run,), _) = reader().read([path])
    assert run.kind == STEP and run.setting.software.name == "torch"
    (only,) = observations(run)
    assert only.measured == 20.0
    assert run.setting.cache_length == 164
    assert run.lengths.inputs.tolist() == [64] * 8


PASS = {
    "model": "clm-60m", "engine": "loadstone", "kind": "none", "attention": "flash",
    "batch_size": 16, "context": 1024, "round": 1, "status": "ok", "runs": [[2.0, None]] * 5,
    "joules": 1500.0, "energy_source": "a counter", "memory": {"peak_bytes": 3 * 2**30},
    "facts": {"device": "NVIDIA H200", "devices": 1}, "figures": {"mean_e2el_ms": 200.0},
}  # fmt: skip


def write_passes(folder: Path, *cells: dict, **settings: object) -> Path:
    """As client.offline keeps passes without a cache."""
    document = {"format": "loadstone-offline-1", "machine": MACHINE, "settings": settings}
    path = folder / "offline.json"
    path.write_text(json.dumps({**document, "cells": cells}))
    return path


def test_passes_in_process(tmp_path: Path) -> None:
    write_passes(tmp_path, PASS, {**PASS, "batch_size": 99, "status": "oom"}, task="loss")
    ((run,), _) = reader().read([tmp_path])
    assert run.kind == FORWARD and run.forward is not None and run.forward.fused
    assert (run.runtime_ms, run.memory) == (200.0, 3 * 2**30)
    assert run.tokens_per_s == pytest.approx(16 * 1024 / 0.2)
    assert run.power is not None and run.power.watts == 150.0
    assert "a counter" in run.power.source
    write_passes(tmp_path, PASS, task="forward", new_tokens=16)
    ((run,), _) = reader().read([tmp_path])
    assert run.runtime_ms == 12.5


def test_bf16_is_a_scheme_of_ours_and_the_compute_type_of_others(tmp_path: Path) -> None:
    """On a CPU; its rate is known where the record says that it has the instruction."""
    on_cpu = {**PASS, "facts": {"device": "cpu", "devices": 1}}
    ours, theirs = ({**on_cpu, "engine": name} for name in ("loadstone", "transformers"))
    cells = [{**ours, "kind": "bf16"}, {**theirs, "kind": "bfloat16"}]
    path = write_passes(tmp_path, *cells, task="loss")
    first, second = reader().read([path])[0]
    assert (first.setting.weights, first.setting.compute) == ("bf16", "fp32")
    assert (second.setting.weights, second.setting.compute) == ("none", "bf16")
    for known, rate in ((True, 2 * MACHINE["peak_tflops"]), (False, None)):
        assert host_of({**MACHINE, "avx512_bf16": known}).get("bf16_tops") == rate


def test_a_runs_own_models_and_repeats(tmp_path: Path) -> None:
    """A model that only the run's folder knows; rounds of a point go by one name."""
    folder = tmp_path / "models" / "tiny"
    folder.mkdir(parents=True)
    shutil.copy(FIXTURES / "qwen25" / "config.json", folder)
    tiny = {**PASS, "model": "tiny"}
    write_passes(tmp_path, tiny, {**tiny, "round": 2}, {**tiny, "batch_size": 8}, task="loss")
    runs, _ = reader().read([tmp_path])
    assert [run.setting.model.family for run in runs] == ["qwen2"] * 3
    assert runs[0].name == runs[1].name != runs[2].name


def test_of_records_of_several_one_is_chosen(tmp_path: Path, capsys) -> None:
    cells = [PASS, {**PASS, "engine": "transformers", "kind": "bfloat16"}]
    path = str(write_passes(tmp_path, *cells, task="loss"))
    assert main(["calibrate", path]) == BAD_INPUT
    assert "records of loadstone and torch: --software says" in capsys.readouterr().err
    assert main(["calibrate", path, "--software", "torch"]) == OK
    shown = capsys.readouterr().out
    assert "torch on" in shown and "1 runs of other software left out" in shown


def test_an_invalid_run_does_not_calibrate(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the client was the limit"):
        reader().read([write_run(tmp_path / "r", verdict="INVALID")])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is not JSON"),
        ("[]", "has the format None"),
        ('{"format": "loadstone-run-9"}', "loadstone-run-1"),
        ('{"format": "loadstone-sweep-1"}', "a damaged loadstone-sweep-1"),
        ('{"format": "loadstone-sweep-1", "machine": {}, "cells": 3}', "damaged"),
    ],
)
def test_what_is_no_record_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "loadstone-x.json"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        reader().read([path])
    assert says in str(caught.value)
    with pytest.raises(UsageError, match="cannot read"):
        reader().read([tmp_path / "absent.json"])
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UsageError, match="no record"):
        reader().read([empty])


def test_damaged_rows_are_refused(tmp_path: Path) -> None:
    given = {"model": MODEL, "slice": "h100", "slots": 4, "cache_length": 128, "weights": "none"}
    path = write_run(tmp_path / "r")
    rows = path.with_suffix(".jsonl")
    rows.write_text(rows.read_text()[:30])
    with pytest.raises(UsageError, match="not the rows of a run"):
        reader(**given).read([path])
    rows.unlink()
    with pytest.raises(UsageError, match="cannot read the rows"):
        reader(**given).read([path])


def own(**values: object) -> OwnRun:
    """A run on an H100."""
    lengths = Lengths(np.full(8, 100), np.full(8, 100), "made")
    base = {
        "name": "x",
        "setting": setting(where="h100", slots=8),
        "kind": SERVED,
        "lengths": lengths,
    }
    return OwnRun(**{**base, **values})  # type: ignore[arg-type]


def test_a_record_above_the_roofline_is_found() -> None:
    # 13.5 GB of weights at 3.35 TB/s: 4 ms a token, 8 at a time 1,900 tokens/s.
    assert findings_of(own(tokens_per_s=1500.0, runtime_ms=5.0)) == []
    (fast,) = findings_of(own(tokens_per_s=2500.0))
    assert fast.kind == ABOVE_ROOFLINE and "2,500 tokens/s measured" in fast.arithmetic
    (quick,) = findings_of(own(runtime_ms=3.0))
    assert quick.kind == ABOVE_ROOFLINE
    big = own(setting=setting(where="h100", slots=800, cache_length=8192), tokens_per_s=1.0)
    assert findings_of(big) == []
    long = Lengths(np.full(800, 1000), np.full(800, 100), "made")
    assert [each.kind for each in findings_of(own(setting=big.setting, lengths=long))] == [
        CANNOT_FIT
    ]

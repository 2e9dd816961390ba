"""Dispatches told from when tokens came: of runs whose dispatches are known."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from capacity_settings import setting
from plain_simulation import PlainReplica

from capacity.calibration.fit import fit
from capacity.records.steps import Dispatch, read_dispatches, step_observations, step_priors
from capacity.simulation.step_model import StepModel, step_model
from capacity.timing.efficiency import Efficiency
from capacity.timing.profiles import LOADSTONE
from capacity.work.reading import positions_read
from capacity.work.setting import Setting
from client.errors import UsageError

DECODE = Efficiency(0.6, 0.8, 0.5, 0.8, 0.4, 0.5, 2e-3, 0.0, 5e-5, overlap=2.0)
PREFILL = Efficiency(0.6, 0.8, 0.5, 0.8, 0.2, 0.5, 4e-3, 0.0, 5e-5, 1e-3, overlap=2.0)
BASE = setting(where="h100", slots=16, chunk=256)


def write_rows(path: Path, streams: int, seed: int, base: Setting = BASE) -> None:
    """A closed loop of so many streams on a server of known efficiencies, as a client saw it."""
    random = np.random.default_rng(seed)
    asked, free = [], [0.0] * streams
    for _ in range(6 * streams):
        prompt, answer = int(random.integers(8, 250)), int(random.integers(5, 60))
        asked.append((free[0], prompt, answer))
        free = sorted([*free[1:], free[0] + 0.02 * answer])
    model = StepModel(base, DECODE, PREFILL)
    plain = PlainReplica(model, model.prefills, 1, 1)
    asked.sort()
    plain.run(asked)
    rows = []
    for index, (sent, prompt, answer) in enumerate(asked):
        # Streams are written one after another, within a fraction of a millisecond.
        times = np.array(plain.came[index]) + 1e-5 * (index % streams)
        rows.append(
            {
                "outcome": "completed",
                "sent": sent,
                "ttft": times[0] - sent,
                "itls": np.diff(times).tolist(),
                "input_len": prompt,
                "output_len": answer,
            }
        )
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")


def test_dispatches_of_a_run_are_found_as_they_were(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    write_rows(rows, 8, 0)
    model = StepModel(BASE, DECODE, PREFILL)
    found = read_dispatches(rows, BASE.chunk)
    assert sum(bool(each.prompts) for each in found) > 20
    for each in found:
        truth = (
            model.read([(0, prompt) for prompt in each.prompts])
            if each.prompts
            else model.step(each.active, positions_read(BASE, each.live, each.longest))
        )
        assert each.seconds == pytest.approx(truth, rel=0.02, abs=2e-4)


def test_a_fit_to_them_predicts_steps_that_it_has_not_seen(tmp_path: Path) -> None:
    observations = []
    for seed, streams in enumerate((1, 8, 32)):
        rows = tmp_path / f"{streams}.jsonl"
        write_rows(rows, streams, seed)
        observations += step_observations(f"{streams}", BASE, read_dispatches(rows, BASE.chunk))
    posterior = fit(observations, step_priors(LOADSTONE), 0.03)
    fitted, truth = step_model(BASE, posterior.values), StepModel(BASE, DECODE, PREFILL)
    for active, each in ((1, 100), (4, 300), (12, 150), (16, 200)):
        read = positions_read(BASE, active * each, each)
        assert fitted.step(active, read) == pytest.approx(truth.step(active, read), rel=0.03)
    for chunks in ([(0, 20)], [(0, 100), (0, 90)], [(0, 250)]):
        assert fitted.read(chunks) == pytest.approx(truth.read(chunks), rel=0.08)


def test_an_observation_is_predicted_as_the_mean_of_what_it_averages(tmp_path: Path) -> None:
    """Where idle rows are skipped, dispatches of one size take what their own prompts take."""
    rows, cpu = tmp_path / "rows.jsonl", replace(BASE.slice.chip, kind="cpu")
    base = replace(BASE, slice=replace(BASE.slice, chip=cpu))
    assert base.skips_idle
    write_rows(rows, 24, 3, base)
    found = [
        (each, DECODE if ", decode, " in each.name else PREFILL)
        for each in step_observations("run", base, read_dispatches(rows, base.chunk))
    ]
    assert sum(efficiency is PREFILL for _, efficiency in found) >= 2
    for each, efficiency in found:
        assert each.predict(efficiency) == pytest.approx(each.measured, rel=0.02)


def test_only_what_tokens_do_not_explain_makes_a_mean_uncertain() -> None:
    lengths = np.random.default_rng(0).integers(130, 256, 200)

    def error(scatter: float) -> float:
        times = 0.05 + 1e-3 * lengths + np.random.default_rng(1).normal(0, scatter, len(lengths))
        found = [
            Dispatch(float(seconds), prompts=(int(length),))
            for seconds, length in zip(times, lengths, strict=True)
        ]
        (one,) = step_observations("run", BASE, found)
        return one.error * one.measured

    assert error(0.0) == pytest.approx(0.0, abs=1e-9)
    assert error(0.01) == pytest.approx(0.01 / np.sqrt(200), rel=0.15)


def test_steps_whose_tokens_came_all_together_tell_nothing() -> None:
    late = [Dispatch(0.0, active=2, live=300, longest=200)] * 5
    known = [Dispatch(0.02, active=4, live=600, longest=200)] * 30
    names = [each.name for each in step_observations("run", BASE, [*late, *known])]
    assert names and all("decode, 4.0 sequences" in name for name in names)
    assert step_observations("run", BASE, late) == []


def test_a_prompt_of_several_chunks_hides_what_was_dispatched_meanwhile(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    short = {"outcome": "completed", "sent": 0.0, "ttft": 0.1, "itls": [0.1] * 5, "input_len": 9}
    long = {"outcome": "completed", "sent": 0.15, "ttft": 0.5, "itls": [0.1], "input_len": 600}
    rows.write_text(json.dumps(short) + "\n" + json.dumps(long) + "\n")
    assert [each.active for each in read_dispatches(rows, 512)] == [1]
    assert len(read_dispatches(rows, 600)) > 2


def test_what_are_no_rows_is_refused(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    with pytest.raises(UsageError, match="cannot read the rows"):
        read_dispatches(rows, 512)
    rows.write_text('{"outcome": "completed"}\n')
    with pytest.raises(UsageError, match="not the rows of a run"):
        read_dispatches(rows, 512)

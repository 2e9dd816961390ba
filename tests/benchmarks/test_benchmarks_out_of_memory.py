"""Predicted beside measured, over engines that are made up, and one that is real."""

import json
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from benchmarks.memory_limit import GIB, Ended, Limit
from benchmarks.memory_prediction import Chip, planned_bytes, predict
from benchmarks.memory_setting import DEFAULTS, Setting, read_settings
from benchmarks.memory_trial import Ask
from benchmarks.memory_trials import Base, TrialError, Trials, measure_base
from benchmarks.out_of_memory import measure
from tests.cache import CACHE

MIB = 2**20
SETTING = Setting("smollm2-135m", "int8", "int8", 1024)
BASE = Base(200 * MIB, 0)


@dataclass(frozen=True)
class MadeUp(Trials):
    """A batch takes `fixed` and `each` for every slot. Remembers what it was asked."""

    fixed: int = 700 * MIB
    each: int = 13 * MIB
    asked: list[int] = field(default_factory=list)

    def start(self, ask: Ask, limit: Limit | None) -> Ended:
        self.asked.append(ask.batch)
        taken = self.fixed + self.each * ask.batch
        stage = json.dumps({"stage": "done", "resident": taken})
        if limit is None or taken <= limit.size:
            return Ended("ok", taken - 1, 1.0, (stage,), "")
        return Ended("out of memory", limit.size, 1.0, ('{"stage": "rea',), "killed")


def made_up(folder: Path, **values: int) -> MadeUp:
    return MadeUp(folder, "cpu", "resident", 60.0, "", lambda _: None, **values)


def test_the_measured_batch_stands_beside_the_predicted(tmp_path: Path) -> None:
    trials = made_up(tmp_path)
    cell = measure(trials, BASE, SETTING, 3 * GIB, 0.0)
    assert not cell.problem
    assert cell.works == (3 * GIB - 700 * MIB) // (13 * MIB)
    assert cell.fails == cell.works + 1
    assert cell.taken == 700 * MIB + cell.works * 13 * MIB
    # What is predicted for 183 slots of 12.5 MiB each, the weights and the base.
    assert 2 * GIB < cell.planned < 4 * GIB
    assert cell.predicted.careful < cell.predicted.batch


def test_a_trial_that_has_ended_is_not_run_again(tmp_path: Path) -> None:
    first = made_up(tmp_path)
    cell = measure(first, BASE, SETTING, 3 * GIB, 0.0)
    again = made_up(tmp_path)
    assert measure(again, BASE, SETTING, 3 * GIB, 0.0) == cell
    assert first.asked and not again.asked
    # Another limit is another matter.
    measure(again, BASE, SETTING, 2 * GIB, 0.0)
    assert again.asked


def test_what_says_nothing_about_memory_is_a_problem_and_not_kept(tmp_path: Path) -> None:
    class Broken(MadeUp):
        def start(self, ask: Ask, limit: Limit | None) -> Ended:
            return Ended("failed", 0, 1.0, (), "ZeroDivisionError")

    broken = Broken(tmp_path, "cpu", "resident", 60.0, "", lambda _: None)
    cell = measure(broken, BASE, SETTING, 3 * GIB, 0.0)
    assert "ZeroDivisionError" in cell.problem
    assert not list(tmp_path.glob("*.json"))
    with pytest.raises(TrialError, match="ZeroDivisionError"):
        measure_base(broken)


def test_a_kept_trial_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    trials = made_up(tmp_path)
    measure(trials, BASE, SETTING, 3 * GIB, 0.0)
    kept = sorted(tmp_path.glob("*.json"))[0]
    kept.write_text("{")
    with pytest.raises(TrialError, match=kept.name):
        trials.tried(SETTING, Limit(3 * GIB))


def test_a_prediction_is_that_of_the_command(tmp_path: Path) -> None:
    """More memory or less of it reserved: more slots; the last one fills what is there."""
    some = predict(SETTING, Chip("cpu", 3 * GIB, 200 * MIB), tmp_path)
    more = predict(SETTING, Chip("cpu", 3 * GIB, 100 * MIB), tmp_path)
    assert 0 < some.careful < some.batch < more.batch
    room = 3 * GIB - 200 * MIB
    chip = Chip("cpu", 3 * GIB, 200 * MIB)
    last, more_yet = planned_bytes(SETTING, chip, tmp_path, some.batch, some.batch + 1)
    assert last <= room < more_yet
    none = predict(replace(SETTING, model="llama2-7b"), Chip("cpu", GIB, MIB), tmp_path)
    assert (none.careful, none.batch) == (0, 0)


def test_settings_are_read_from_their_names() -> None:
    assert read_settings(",".join(each.name for each in DEFAULTS)) == DEFAULTS
    for wrong in ("smollm2-135m", "smollm2-135m:int8:int8:0", "no:int8:int8:8", "a:b:c:d"):
        with pytest.raises(ValueError, match=r"got|at least"):
            read_settings(wrong)


@pytest.mark.slow
def test_a_small_engine_in_little_memory(tmp_path: Path) -> None:
    """The whole command: the smallest model in 1 GiB, then once more without a trial."""
    command = [
        sys.executable, "-m", "benchmarks.out_of_memory", "--out", str(tmp_path), "--limits", "1",
        "--settings", "clm-60m:int8:int8:1024", "--cache-dir", str(CACHE), "--resolution", "0.05",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr
    row = [word.strip() for word in done.stdout.splitlines()[-1].split("|")]
    predicted, measured = int(row[7]), int(row[8].split()[0])
    assert abs(predicted / measured - 1) < 0.2
    again = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert again.stdout == done.stdout and "batch" not in again.stderr

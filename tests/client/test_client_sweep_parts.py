"""Parts of a sweep that need no server."""

import math
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.sweeping.cell import Cell, Status, cell_from_json
from client.sweeping.log import last_error, last_line
from client.sweeping.options import SweepOptions, parse_sweep
from client.sweeping.peaks import find_peaks, measure_bandwidth, measure_flops
from client.sweeping.processes import LAUNCH
from client.sweeping.roofline import Footprint, bound, live_positions
from client.sweeping.setting import Setting, grid

LENGTHS = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 60)), max_size=5)


@given(LENGTHS, st.integers(1, 80))
def test_live_positions_are_those_of_every_step(lengths, cache_length):
    reads = [
        min(prompt + step, cache_length) for prompt, answer in lengths for step in range(1, answer)
    ]
    mean = live_positions(lengths, cache_length)
    assert mean == (pytest.approx(sum(reads) / len(reads)) if reads else None)


@given(st.integers(1, 4096), st.floats(1, 1e5), st.floats(1e9, 1e13), st.floats(1e9, 1e16))
def test_a_bound_is_reached_by_no_faster_step(batch, positions, bandwidth, flops):
    model = Footprint(weight_bytes=16e9, position_bytes=131_072, parameters=8e9)
    seconds = batch / bound(model, find_peaks(bandwidth / 1e9, flops / 1e12), batch, positions)
    moving = (16e9 + 131_072 * positions * batch) / bandwidth
    computing = 16e9 * batch / flops
    assert seconds == pytest.approx(moving) or seconds == pytest.approx(computing)
    assert seconds >= max(moving, computing) * (1 - 1e-9)


def test_this_hosts_peaks_can_be_measured():
    assert 1e6 < measure_bandwidth(1 << 20) < 1e15
    assert 1e6 < measure_flops(64) < 1e16


def test_a_cell_is_the_same_after_json():
    cell = Cell(
        setting=Setting(8, 16, "int8", "batch"),
        status=Status.OOM,
        reason="why",
        date="2026-01-31T12:00:00",
        seconds=1.5,
        server_command=("a", "b"),
        figures={"x": 1.0},
        plan={"model": "m"},
    )
    assert cell_from_json(cell.as_json()) == cell
    with pytest.raises(TypeError):
        cell_from_json(cell.as_json() | {"surprise": 1})


def test_a_grid_holds_every_combination_once():
    settings = grid((1, 2), (64, 128), ("none", "int8"), ("model", "batch"))
    assert len(settings) == len({setting.name for setting in settings}) == 16
    assert [setting.batch_size for setting in settings[:3]] == [1, 2, 1]


def test_our_own_server_is_started_with_its_options(tmp_path):
    own = ["--batch-sizes", "4", "--model", "a{b}", "--virtual-cpu-devices", "8"]
    rest = ["--client", "--seed", "1", "--", "--rolling", "--cache-dir", "{x}"]
    options = parse_sweep([*own, *rest])
    words = options.command.fill(options.cells[0], 1, tmp_path / "ready")
    assert words[1:] == (
        *("-m", "server", "--model", "a{b}", "--virtual-cpu-devices", "8"),
        *("--port", "0", "--ready-file", str(tmp_path / "ready")),
        *("--batch-size", "4", "--cache-length", "1024", "--quantize", "none"),
        *("--sharding", "model", "--rolling", "--cache-dir", "{x}"),
    )
    assert options.client_options == ("--seed", "1")


def test_each_set_of_settings_has_a_folder_of_its_own():
    ours = SweepOptions()
    assert ours.folder == SweepOptions(ready_seconds=5).folder
    assert ours.folder != SweepOptions(num_prompts=51).folder
    assert ours.folder.name.startswith("sweep-smollm2-135m-")


def test_a_log_ends_with_what_a_terminal_would_show(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(b"old\nValueError: bad \xff\x1b[0m\n\r10%\r  90%\r\n\n")
    assert last_line(log) == "90%"
    assert last_error(log).startswith("ValueError: bad")
    assert last_error(log).isprintable()
    assert last_line(tmp_path / "none") == ""
    log.write_text("x" * 2_000_000)
    assert len(last_line(log)) <= 400


def test_settings_must_be_finite():
    with pytest.raises(ValueError, match="peak-tflops"):
        SweepOptions(peak_tflops=math.inf)


@pytest.mark.parametrize(("told", "runs"), [(b"go\n", True), (b"", False), (b"g", False)])
def test_nothing_runs_that_the_guard_was_not_told_of(tmp_path, told, runs):
    # A sweep that is killed while it starts a server closes the pipe without a word.
    subprocess.run([*LAUNCH, "touch", str(tmp_path / "ran")], input=told, check=False)
    assert (tmp_path / "ran").exists() == runs

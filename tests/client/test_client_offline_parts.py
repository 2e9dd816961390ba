"""Pieces of the in-process benchmark: models, presets, memory, energy, the worker's files."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import gpu_pages
from client.engines import boot, memory
from client.engines.ask import GENERATE, Ask, Model, ask_from_json
from client.engines.energy import find_meter
from client.engines.measuring import Measuring
from client.engines.models import EMBEDDED, find_model, shapes
from client.engines.options import parse_offline
from client.engines.presets import PRESETS, SIZES, preset_values
from client.engines.variant import LOADSTONE, TORCH_XLA, TRANSFORMERS, Variant
from client.errors import UsageError
from server.models.catalogue import catalogue
from server.models.families import spec_from_config

MIB = 2**20


def none_embedded() -> Path:
    """There is no model with us."""
    raise ValueError("the model is not installed")


def test_every_model_is_one_that_the_server_knows():
    known = catalogue()
    for name, config in shapes().items():
        spec = spec_from_config(name, config)
        if not name.endswith("-small"):
            wanted = known[name]
            assert replace(spec, eos_ids=wanted.eos_ids, bos_id=wanted.bos_id) == wanted


def test_models_are_found_by_name_folder_and_file(tmp_path):
    named = find_model("bloom-small", tmp_path, none_embedded)
    assert json.loads((Path(named.config) / "config.json").read_text()) == shapes()["bloom-small"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    assert find_model(str(tmp_path / "mine"), tmp_path, none_embedded).config is not None
    (tmp_path / "mine" / "model.safetensors").write_text("")
    trained = find_model(str(tmp_path / "mine"), tmp_path, none_embedded)
    assert trained == Model("mine", checkpoint=str(tmp_path / "mine"))
    (tmp_path / "x.gguf").write_text("")
    file = find_model(str(tmp_path / "x.gguf"), tmp_path, none_embedded)
    assert (file.name, file.config) == ("x", None)
    ours = find_model(EMBEDDED, tmp_path, lambda: tmp_path / "x.gguf")
    assert ours.checkpoint == str(tmp_path / "x.gguf")
    with pytest.raises(UsageError, match="not installed"):
        find_model(EMBEDDED, tmp_path, none_embedded)
    with pytest.raises(UsageError, match=r"known names: smollm2-135m, bloom-1\.3b"):
        find_model("bloom", tmp_path, none_embedded)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_whole_and_every_setting_can_be_given(name, size):
    what = Measuring(**preset_values(name, size))
    assert all(model in (EMBEDDED, *shapes()) for model in what.models)
    given = parse_offline(
        [
            *("--preset", name, "--size", size, "--models", "clm-60m", "--batch-sizes", "3,4:8:2"),
            *("--engines", "torch_xla,loadstone", "--quantize", "int8", "--attention", "reference"),
            *("--torch-xla-kinds", "float32", "--prompts", "5,6", "--contexts", "7"),
            *("--new-tokens", "8", "--warmups", "0", "--timed", "9", "--min-seconds", "1.5"),
            *("--rounds", "2", "--seed", "3", "--platform", "cpu", "--memory-limit-gib", "4"),
        ]
    ).measuring
    assert given.batch_sizes == (3, 4, 6, 8)
    assert given.variants == (
        Variant(TORCH_XLA, "float32", "auto"),
        Variant(LOADSTONE, "int8", "reference"),
    )
    assert given.lengths == ((6,) if given.task == GENERATE else (7,))
    assert (given.new_tokens, given.warmups, given.timed, given.rounds) == (8, 0, 9, 2)
    assert len(given.points(["clm-60m"])) == 2 * 4 * 2


def test_engines_stand_beside_each_other_at_each_size():
    what = parse_offline(["--size", "small", "--batch-sizes", "8,1", "--rounds", "2"]).measuring
    points = what.points(["m"])
    assert [(p.turn, p.batch) for p in points[::5]] == [(1, 1), (1, 8), (2, 1), (2, 8)]
    assert [p.variant.engine for p in points[:5]] == [LOADSTONE] * 2 + [TRANSFORMERS] * 3
    assert len({point.name for point in points}) == len(points)


def test_an_ask_survives_its_file():
    ask = Ask(
        "loadstone", "int8", "flash", GENERATE, Model("m", config="/m"), 8,
        prompts=(7, 3), new_tokens=5, options=("--devices", "2"),
    )  # fmt: skip
    assert ask_from_json(ask.as_json()) == ask
    with pytest.raises(ValueError, match=r"unknown keys \['speed'\]; known: \['engine'"):
        ask_from_json(json.dumps({**json.loads(ask.as_json()), "speed": 9}))
    with pytest.raises(ValueError, match="a config or a checkpoint, and not both"):
        Model("m", config="/m", checkpoint="/m")


def test_the_starter_for_other_environments_brings_the_client_alone(tmp_path):
    ask = Ask(
        "transformers", "float32", "auto", GENERATE, Model("m", config="/none"), 1, (2,), 0, 2
    )
    (tmp_path / "ask.json").write_text(ask.as_json())
    # Isolated, as an interpreter that has none of our packages.
    words = [sys.executable, "-I", "-S", boot.__file__, "ask.json", "result.json"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["status"] == "unavailable"
    assert "No module named 'torch'" in result["reason"]


def test_the_peak_of_memory_is_that_since_the_reset():
    code = (
        "from client.engines import memory\n"
        "held = b'x' * (96 << 20); before = memory.peak_resident(); del held\n"
        "reset = memory.reset_peak(); low = memory.peak_resident()\n"
        "held = b'x' * (48 << 20); print(reset, before, low, memory.peak_resident())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    reset, *peaks = done.stdout.split()
    before, low, high = map(int, peaks)
    assert before > 96 * MIB
    if reset == "True":
        assert low < before - 90 * MIB
        assert 40 * MIB < high - low < 60 * MIB


def test_memory_beyond_the_limit_is_refused():
    code = (
        "from client.engines import memory\nmemory.limit(300 << 20)\n"
        "try:\n    bytearray(400 << 20)\nexcept MemoryError:\n    print('refused')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "refused\n"
    assert memory.peak_resident() > 0


def test_energy_is_what_the_processors_count_even_when_they_start_again(tmp_path):
    packages = [tmp_path / f"intel-rapl:{n}" for n in range(2)]
    for package, value in zip(packages, (9_000_000, 500_000), strict=True):
        package.mkdir()
        (package / "max_energy_range_uj").write_text("10000000\n")
        (package / "energy_uj").write_text(f"{value}\n")
    meter = find_meter("cpu", 1, tmp_path)
    assert meter is not None and meter.source.startswith("RAPL")
    before = meter.read()
    (packages[0] / "energy_uj").write_text("2000000\n")
    (packages[1] / "energy_uj").write_text("700000\n")
    assert meter.read() - before == pytest.approx(3.0 + 0.2)
    assert find_meter("cpu", 1, tmp_path / "none") is None
    assert find_meter("TPU v5e", 8, tmp_path) is None


@pytest.mark.parametrize("page", gpu_pages.pages(), ids=lambda page: page.name)
def test_the_pages_for_a_gpu_are_commands_that_can_be_read(page, tmp_path):
    options = parse_offline([*page.words, "--out", str(tmp_path)])
    assert options.measuring.preset == page.name
    assert options.measuring.models == tuple(preset_values(page.name, "page")["models"])


def test_peaks_are_those_of_the_card():
    assert gpu_pages._peaks("NVIDIA H100 80GB HBM3") == (3350.0, 989.0)
    assert gpu_pages._peaks("NVIDIA A100-SXM4-40GB") == (1555.0, 312.0)
    assert gpu_pages._peaks("NVIDIA GeForce RTX 4090") is None


def test_the_script_for_a_gpu_keeps_to_its_time_and_goes_on(tmp_path):
    words = ["--out", str(tmp_path), "--device", "NVIDIA H100", "--pages", "generate"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_pages", *words, "--minutes", "0"],
        capture_output=True, text=True, check=False, cwd=Path(gpu_pages.__file__).parents[1],
    )  # fmt: skip
    assert done.returncode == 1
    assert "generate: no time is left" in done.stdout

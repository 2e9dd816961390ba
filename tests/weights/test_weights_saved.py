"""Quantized weights kept between starts: the same ones, and a file that is not right is refused."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors import safe_open

from server.engine.config import EngineConfig
from server.engine.open import ModelChoice, load_engine, open_source
from server.models.parameters import Parameters
from server.weights.saved import SavedWeights
from server.weights.source import CheckpointError
from tests.cache import CACHE

MODELS = Path(__file__).parents[1] / "fixtures" / "models"
Start = Callable[..., Parameters]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A copy, which a test may change."""
    return Path(shutil.copytree(MODELS / "qwen25", tmp_path / "model"))


@pytest.fixture
def start(checkpoint: Path, tmp_path: Path) -> Start:
    """Loads an engine's weights and keeps them in `tmp_path / "kept"`."""

    def start(weights: str = "int8", devices: int = 1, folder: str = "kept") -> Parameters:
        source = open_source(checkpoint)
        lines.clear()
        _, parameters = load_engine(
            ModelChoice(source.spec, checkpoint, source),
            EngineConfig(slots=devices, cache_length=32, chunk=32, weights=weights),
            frozenset(),
            devices=jax.devices()[:devices],
            cache_dir=CACHE,
            save_quantized=tmp_path / folder,
            report=lines.append,
        )
        return parameters

    lines: list[str] = []
    start.lines = lines  # type: ignore[attr-defined]
    return start


def kept(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "kept").iterdir())


def bits(parameters: Parameters) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(parameters)]


@pytest.mark.parametrize("weights", ["bf16", "int8", "nf4-dq", "fp8"])
@pytest.mark.parametrize("devices", [1, 2])
def test_the_second_start_has_the_weights_of_the_first(
    start: Start, tmp_path: Path, weights: str, devices: int
) -> None:
    """In the kernel's layout and in plain XLA's, and placed on the same devices."""
    first = start(weights, devices)
    (path,) = kept(tmp_path)
    assert f"saved: {path}" in start.lines and weights in path.name
    second = start(weights, devices)
    assert f"weights: from {path}" in start.lines
    assert not any(line.startswith(("weights: layer", "saved")) for line in start.lines)
    assert bits(first) == bits(second) and kept(tmp_path) == [path]
    for one, two in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        assert one.sharding == two.sharding and one.dtype == two.dtype


def test_it_is_a_safetensors_file_that_says_what_it_is(start: Start, tmp_path: Path) -> None:
    parameters = start("nf4")
    (path,) = kept(tmp_path)
    with safe_open(path, framework="np") as file:
        about = file.metadata()
        assert about["scheme"] == "nf4"
        names = [name for name, _, _ in json.loads(about["checkpoint"])]
        assert names == sorted(file.name for file in (MODELS / "qwen25").glob("*.[js]*"))
        assert "layers.0.qkv.packed" in set(file.keys())
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(parameters))
    assert held < path.stat().st_size < held + 20_000


def test_other_settings_have_files_of_their_own(start: Start, tmp_path: Path) -> None:
    for weights, devices in (("int8", 1), ("int4", 1), ("int8", 2)):
        start(weights, devices)
    assert len(kept(tmp_path)) == 3


def test_a_changed_checkpoint_is_quantized_anew(
    start: Start, checkpoint: Path, tmp_path: Path
) -> None:
    start()
    file = min(checkpoint.glob("*.safetensors"))
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))
    start()
    assert any(line.startswith("saved") for line in start.lines) and len(kept(tmp_path)) == 2


@pytest.mark.parametrize("left", [0, 7, 300, -1])
def test_a_file_cut_off_is_refused_by_name(start: Start, tmp_path: Path, left: int) -> None:
    start()
    (path,) = kept(tmp_path)
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(CheckpointError, match=r"cannot be read.*delete it") as caught:
        start()
    assert str(path) in str(caught.value)


def test_a_file_made_from_something_else_is_refused_by_name(start: Start, tmp_path: Path) -> None:
    start("int8")
    (other,) = kept(tmp_path)
    start("int4")
    (path,) = set(kept(tmp_path)) - {other}
    path.write_bytes(other.read_bytes())
    with pytest.raises(CheckpointError, match="its scheme is 'int8', expected 'int4'") as caught:
        start("int4")
    assert str(path) in str(caught.value)


def test_a_file_of_other_code_is_refused(start: Start, tmp_path: Path) -> None:
    start()
    (path,) = kept(tmp_path)
    text = path.read_bytes()
    with safe_open(path, framework="np") as file:
        code = file.metadata()["code"]
    path.write_bytes(text.replace(code.encode(), b"0" * len(code), 1))
    with pytest.raises(CheckpointError, match=r"its code is '0+'"):
        start()


def test_an_interrupted_save_leaves_nothing(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("server.weights.saved.os.fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        start()
    assert kept(tmp_path) == []


def test_a_full_disk_is_told_and_does_not_stop_the_start(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SavedWeights, "_write", full)
    start()
    assert kept(tmp_path) == []
    assert any("not saved" in line and "No space left" in line for line in start.lines)


def test_there_is_nothing_to_keep_without_quantization(start: Start, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--save-quantized .*not quantized; choose a scheme"):
        start("none")
    source = open_source(MODELS / "qwen25")
    with pytest.raises(ValueError, match=r"--save-quantized .*random weights"):
        load_engine(
            ModelChoice(source.spec, None, None),
            EngineConfig(slots=1, cache_length=32, chunk=32, weights="int8"),
            frozenset(),
            devices=jax.devices()[:1],
            save_quantized=tmp_path,
        )

"""A directory with Hugging Face `config.json` and safetensors files."""

import json
from functools import cached_property
from pathlib import Path

import ml_dtypes  # noqa: F401  (registers bfloat16 with numpy, which safetensors then returns)
import numpy as np
from safetensors import SafetensorError, safe_open

from server.models.families import spec_from_config
from server.models.spec import ModelSpec
from server.weights.source import CheckpointError


class SafetensorsSource:
    """Reads `model.safetensors`, or the shards that `model.safetensors.index.json` lists."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.spec = _read_spec(directory)

    def names(self) -> set[str]:
        """Every tensor in it."""
        return set(self._files)

    def tensor(self, name: str) -> np.ndarray:
        """One tensor, float32."""
        path = self._files[name]
        try:
            with safe_open(path, framework="np") as file:
                return np.asarray(file.get_tensor(name)).astype(np.float32, copy=False)
        except (SafetensorError, OSError, TypeError) as error:
            raise CheckpointError(f"{path}: tensor {name} cannot be read: {error}") from error

    @cached_property
    def _files(self) -> dict[str, Path]:
        index = self.directory / "model.safetensors.index.json"
        if index.exists():
            return {name: self.directory / file for name, file in _read_index(index).items()}
        files = {}
        for path in sorted(self.directory.glob("*.safetensors")):
            try:
                with safe_open(path, framework="np") as file:
                    files.update(dict.fromkeys(file.keys(), path))
            except (SafetensorError, OSError) as error:
                raise CheckpointError(
                    f"{path}: not a readable safetensors file: {error}"
                ) from error
        if not files:
            raise CheckpointError(f"{self.directory}: no .safetensors file in it")
        return files


def _read_spec(directory: Path) -> ModelSpec:
    path = directory / "config.json"
    if not path.exists():
        raise CheckpointError(
            f"{directory}: no config.json; a checkpoint is a directory with config.json, "
            ".safetensors files and a tokenizer, or one .gguf file"
        )
    config = _read_json(path)
    try:
        return spec_from_config(directory.name, config)
    except (TypeError, KeyError) as error:
        raise CheckpointError(f"{path}: {error!r}") from error


def _read_index(path: Path) -> dict[str, str]:
    files = _read_json(path).get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(file, str) for file in files.values()):
        raise CheckpointError(f"{path}: weight_map must be an object of file names by tensor")
    return files


def _read_json(path: Path) -> dict:
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(values).__name__}")
    return values

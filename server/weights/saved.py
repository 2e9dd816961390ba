"""Quantized parameters in a file, for the next start: safetensors, one for each way to hold them.

A file is found by what it was made from and for: the checkpoint's files (name, size, time of
change), the scheme, the arrays the engine wants, and the code that makes them. All of that stands
in the file, too, and a file that says otherwise is refused.
"""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import jax
import numpy as np
from safetensors import SafetensorError, safe_open

from server.models.parameters import Parameters
from server.weights.source import CheckpointError

# Code that says what stands in a file: another version must not read it.
_CODE = ("quant", "kernels", "models", "weights")
_KINDS = {1: "U8", 2: "U16", 4: "U32"}  # by bytes; the bits are what counts

Report = Callable[[str], None]


@dataclass(frozen=True)
class SavedWeights:
    """A file for one checkpoint, scheme and layout.

    arrays: name -> shape and type of what it holds. made_of: all that it depends on, by name.
    """

    path: Path
    arrays: dict[str, jax.ShapeDtypeStruct]
    made_of: dict[str, str]

    @classmethod
    def find(
        cls, folder: Path, checkpoint: Path, scheme: str, shapes: Parameters
    ) -> "SavedWeights":
        """Where it is, or will be. Raises OSError when the checkpoint cannot be looked at."""
        arrays = _named(shapes)
        kinds = [(name, leaf.shape, str(leaf.dtype)) for name, leaf in arrays.items()]
        made_of = {
            "scheme": scheme,
            "checkpoint": json.dumps(_files(checkpoint)),
            "arrays": _digest(kinds),
            "code": _digest(_sources()),
        }
        name = f"{checkpoint.stem}-{scheme}-{_digest(made_of)}.safetensors"
        return cls(folder / name, arrays, made_of)

    def load(self, shardings: Parameters, report: Report = lambda _: None) -> Parameters:
        """Each array from the file to its devices; the host holds one at a time.

        CheckpointError names a file that is cut off, unreadable, or made from or for another.
        """
        places = jax.tree.leaves(shardings)
        kind = jax.tree.structure(shardings)
        try:
            with safe_open(self.path, framework="np") as file:
                self._check(file)
                leaves = [
                    jax.device_put(self._read(file, name), place)
                    for name, place in zip(self.arrays, places, strict=True)
                ]
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{self.path}: cannot be read: {error}; delete it, and it is made anew"
            ) from error
        report(f"weights: from {self.path}")
        return jax.tree.unflatten(kind, leaves)

    def save(self, parameters: Parameters, report: Report = lambda _: None) -> None:
        """Writes the file; others see all of it or nothing. Raises OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")
        try:
            with partial.open("wb") as file:
                self._write(file, parameters)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.path)
        finally:
            partial.unlink(missing_ok=True)
        report(f"saved: {self.path}")

    def _write(self, file: BinaryIO, parameters: Parameters) -> None:
        header: dict[str, Any] = {"__metadata__": self.made_of}
        end = 0
        for name, leaf in self.arrays.items():
            start, end = end, end + leaf.size * leaf.dtype.itemsize
            kind = _KINDS[leaf.dtype.itemsize]
            header[name] = {"dtype": kind, "shape": leaf.shape, "data_offsets": [start, end]}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        file.write(len(text).to_bytes(8, "little") + text)
        for leaf in _named(parameters).values():
            file.write(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data)

    def _check(self, file: Any) -> None:
        found = file.metadata() or {}
        for name, expected in self.made_of.items():
            if found.get(name) != expected:
                raise CheckpointError(
                    f"{self.path}: its {name} is {found.get(name)!r}, expected {expected!r}; "
                    "delete it, and it is made anew"
                )
        if set(file.keys()) != set(self.arrays):
            raise CheckpointError(f"{self.path}: it holds other arrays than it says; delete it")

    def _read(self, file: Any, name: str) -> np.ndarray:
        expected = self.arrays[name]
        return file.get_tensor(name).reshape(expected.shape).view(expected.dtype)


def _named(parameters: Parameters) -> dict[str, Any]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(parameters)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _files(checkpoint: Path) -> list[tuple[str, int, int]]:
    """Name, bytes and time of change (ns) of each file."""
    names = ("*.safetensors", "*.json")
    paths = [checkpoint]
    if checkpoint.is_dir():
        paths = sorted(path for name in names for path in checkpoint.glob(name))
    stats = [(path, path.stat()) for path in paths]
    return [(path.name, stat.st_size, stat.st_mtime_ns) for path, stat in stats]


def _sources() -> list[str]:
    folder = Path(__file__).parents[1]
    paths = [path for room in _CODE for path in sorted((folder / room).glob("*.py"))]
    return [path.read_text(encoding="utf-8") for path in paths]


def _digest(values: Any) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest()[:16]

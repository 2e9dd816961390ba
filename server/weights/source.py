"""Where weights come from, and the checks that every source shares."""

from typing import Protocol

import numpy as np

from server.models.spec import ModelSpec


class CheckpointError(ValueError):
    """A checkpoint that cannot be used: names the file or tensor, and what was expected."""


class Source(Protocol):
    """Tensors by their Hugging Face names, read one at a time."""

    @property
    def spec(self) -> ModelSpec:
        """What the checkpoint says of its model."""

    def names(self) -> set[str]:
        """Every tensor in it."""

    def tensor(self, name: str) -> np.ndarray:
        """One tensor, float32."""


def checked(source: Source, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A tensor of the shape that the model needs, or a CheckpointError that names it."""
    if name not in source.names():
        raise CheckpointError(f"{source.spec.name}: tensor {name} is missing, expected {shape}")
    values = source.tensor(name)
    if values.shape != shape:
        raise CheckpointError(
            f"{source.spec.name}: tensor {name} has shape {values.shape}, expected {shape}"
        )
    return values

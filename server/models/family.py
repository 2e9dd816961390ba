"""What makes a family of models: how its config is read, and what its tensors are called."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from server.models.config import Config
from server.models.spec import ModelSpec
from server.models.tensors import TensorNames


@dataclass(frozen=True)
class Family:
    """One family.

    name: the catalogue's name of it, and GGUF's if files of that kind can be read.
    architecture: Hugging Face's name of it in config.json.
    read: a config -> the fields of ModelSpec that differ between the family's members.
    switches: the fields that they share.
    """

    name: str
    architecture: str
    read: Callable[[Config], dict[str, Any]]
    switches: Mapping[str, Any] = field(default_factory=dict)
    tensors: TensorNames = TensorNames()  # noqa: RUF009 (frozen)

    def spec(self, values: Mapping[str, Any]) -> ModelSpec:
        """A member of the family."""
        return ModelSpec.from_dict({"family": self.name, **self.switches, **values})

    def spec_from_config(self, config: Config) -> ModelSpec:
        """A member of the family by its Hugging Face config. ValueError says what is wrong."""
        return self.spec({"name": config.model, **self.read(config)})

"""What is to be compiled."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from capacity.compiled.target import Target
from client.errors import UsageError

# Of the programs that an engine compiles at start-up: those that read the whole cache and so need
# the most, a decode step alone, or every one.
PROGRAMS = ("ends", "decode", "all")


@dataclass(frozen=True)
class Ask:
    """An engine's setting on a target. `model`: all fields of a `ModelSpec`."""

    target: Target
    model: Mapping[str, Any]
    slots: int
    weights: str = "none"
    cache: str = "none"
    sharding: str = "model"
    cache_length: int = 2048
    chunk: int = 512
    steps: int = 1
    programs: str = "ends"

    def __post_init__(self) -> None:
        if self.programs not in PROGRAMS:
            raise UsageError(f"--programs: {', '.join(PROGRAMS)}; got {self.programs!r}")

    def with_slots(self, slots: int) -> Self:
        """The same with another batch."""
        return replace(self, slots=slots)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse."""
        return cls(**{**values, "target": Target(**values["target"])})

    def key(self, versions: Mapping[str, str]) -> str:
        """Names the answer in the cache: everything that it depends on."""
        text = json.dumps([self.as_dict(), dict(versions)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

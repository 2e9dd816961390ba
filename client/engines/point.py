"""One measurement: a variant at a batch size and a length, in one of the rounds."""

from dataclasses import asdict, dataclass
from typing import Any

from client.engines.variant import Variant


@dataclass(frozen=True)
class Point:
    """`context`: tokens of a row, or the longest prompt. `turn` counts rounds from 1."""

    model: str
    variant: Variant
    batch: int
    context: int
    turn: int = 1

    @property
    def name(self) -> str:
        """Unique within a run, and the name of the point's folder."""
        return f"{self.model}-{self.variant.name}-b{self.batch}-c{self.context}-r{self.turn}"

    @property
    def place(self) -> tuple[str, Variant, int, int]:
        """What rounds share."""
        return self.model, self.variant, self.batch, self.context

    def as_json(self) -> dict[str, Any]:
        """Flat, as the cells of a sweep are."""
        return {
            "model": self.model,
            **asdict(self.variant),
            "batch_size": self.batch,
            "context": self.context,
            "round": self.turn,
        }


def point_from_json(values: dict[str, Any]) -> Point:
    """Takes its keys out of `values`: the inverse of `as_json`. KeyError when one is missing."""
    take = values.pop
    model = take("model")
    variant = Variant(take("engine"), take("kind"), take("attention"))
    return Point(model, variant, take("batch_size"), take("context"), take("round"))

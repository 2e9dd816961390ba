"""Something that was measured and can be predicted."""

from collections.abc import Callable
from dataclasses import dataclass

from capacity.timing.efficiency import Efficiency


@dataclass(frozen=True)
class Observation:
    """`measured` and what `predict` returns are positive and in the same unit.

    tags: which of the parameters `name@tag` apply to it.
    """

    name: str
    measured: float
    predict: Callable[[Efficiency], float]
    tags: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if not self.measured > 0:
            raise ValueError(f"{self.name}: measured is {self.measured}; a number above 0")

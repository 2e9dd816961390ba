"""Something that was measured and can be predicted."""

from collections.abc import Callable
from dataclasses import dataclass

from capacity.timing.efficiency import Efficiency


@dataclass(frozen=True)
class Observation:
    """`measured` and what `predict` returns are positive and in the same unit.

    tags: which of the parameters `name@tag` apply to it. error: standard error of `measured`, as a
    share of it, where it is known: of the mean of a few that differ it is large.
    """

    name: str
    measured: float
    predict: Callable[[Efficiency], float]
    tags: frozenset[str] = frozenset()
    error: float = 0.0

    def __post_init__(self) -> None:
        if not self.measured > 0:
            raise ValueError(f"{self.name}: measured is {self.measured}; a number above 0")
        if not 0 <= self.error < float("inf"):
            raise ValueError(f"{self.name}: its error is {self.error}; a share of 0 or more")

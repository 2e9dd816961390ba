"""How what was measured is shown; it can be changed without measuring again."""

import math
from dataclasses import dataclass
from pathlib import Path

from client.errors import UsageError

OURS, PAGE = "ours", "page"
DEFINITIONS = (OURS, PAGE)


@dataclass(frozen=True)
class Showing:
    """definition: whose units and ratios. against: an earlier run, for ratios. estimates: a file of
    predictions. tdp_watts: of all devices, for energy that is not measured. quality: records of
    `python -m client.quality`, for the page. plot: where a page with charts goes."""

    definition: str = OURS
    against: Path | None = None
    estimates: Path | None = None
    tdp_watts: float | None = None
    quality: tuple[Path, ...] = ()
    plot: Path | None = None

    def __post_init__(self) -> None:
        if self.definition not in DEFINITIONS:
            raise UsageError(f"--definition: {', '.join(DEFINITIONS)}; got {self.definition!r}")
        watts = self.tdp_watts
        if watts is not None and not (watts > 0 and math.isfinite(watts)):
            raise UsageError(f"--tdp-watts: a number above 0; got {watts}")

    @property
    def page(self) -> bool:
        """Whether the page's own definitions are wanted."""
        return self.definition == PAGE

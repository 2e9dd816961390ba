"""What is wrong with a row, with the arithmetic that shows it."""

from dataclasses import dataclass

CANNOT_FIT = "cannot fit"
ABOVE_ROOFLINE = "above the roofline"
CONTRADICTS = "contradicts itself"
KINDS = (CANNOT_FIT, ABOVE_ROOFLINE, CONTRADICTS)


@dataclass(frozen=True)
class Finding:
    """`row`: its id or the file. `metric`: the value in question."""

    row: str
    about: str
    kind: str
    metric: str
    arithmetic: str

    def __str__(self) -> str:
        return f"{self.row} ({self.about}): {self.kind}: {self.arithmetic}"

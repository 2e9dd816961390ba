"""The rounds of a place put together: what one cell of a table shows."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from client.engines.cell import PointCell, TimedRun
from client.engines.point import Point
from client.engines.variant import Variant
from client.sweeping.cell import Status


@dataclass(frozen=True)
class Entry:
    """Cells of one point in all its rounds; at least one."""

    cells: tuple[PointCell, ...]

    @property
    def point(self) -> Point:
        """Of the first round."""
        return self.cells[0].setting

    @property
    def measured(self) -> tuple[PointCell, ...]:
        """The rounds that have figures."""
        return tuple(cell for cell in self.cells if cell.status is Status.OK)

    @property
    def ok(self) -> bool:
        """Whether any round has."""
        return bool(self.measured)

    @property
    def status(self) -> Status:
        """Ok when any round was."""
        return Status.OK if self.ok else self.cells[0].status

    @property
    def reason(self) -> str:
        """Why a round has no figures; "" when all do."""
        return next((cell.reason for cell in self.cells if cell.reason), "")

    @property
    def runs(self) -> tuple[TimedRun, ...]:
        """Of all rounds."""
        return tuple(run for cell in self.measured for run in cell.runs)

    @property
    def seconds(self) -> float:
        """Mean of the runs."""
        return sum(run.seconds for run in self.runs) / len(self.runs)

    @property
    def first(self) -> float:
        """Mean seconds until every row had its first token."""
        firsts = [run.first for run in self.runs if run.first is not None]
        return sum(firsts) / len(firsts)

    @property
    def facts(self) -> dict[str, Any]:
        """What the engine said of itself; nothing without figures."""
        return self.measured[0].facts if self.ok else {}

    @property
    def cold(self) -> dict[str, float | None]:
        """Of the first round that has figures: later ones find programs in the compile cache."""
        return self.measured[0].cold if self.ok else {}

    @property
    def peak_bytes(self) -> int | None:
        """The most memory of any round."""
        return max((cell.memory["peak_bytes"] for cell in self.measured), default=None)

    def joules_per_token(self, tokens: int) -> float | None:
        """As the device counted; None where it did not. `tokens` of one run."""
        counted = [(cell.joules, len(cell.runs)) for cell in self.measured]
        if not counted or any(joules is None for joules, _ in counted):
            return None
        return sum(joules or 0.0 for joules, _ in counted) / sum(n for _, n in counted) / tokens


@dataclass(frozen=True)
class Entries:
    """All entries of a run, by their place."""

    entries: dict[tuple[str, Variant, int, int], Entry]

    def at(self, model: str, variant: Variant, batch: int, context: int) -> Entry | None:
        """One; None where nothing was tried yet."""
        return self.entries.get((model, variant, batch, context))

    @property
    def listed(self) -> list[Entry]:
        """In order."""
        return list(self.entries.values())


def gather(cells: Iterable[PointCell]) -> Entries:
    """Cells by place, in the order they come in."""
    places: dict[tuple[str, Variant, int, int], list[PointCell]] = {}
    for cell in cells:
        places.setdefault(cell.setting.place, []).append(cell)
    return Entries({place: Entry(tuple(found)) for place, found in places.items()})

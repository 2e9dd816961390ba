"""What became of one point."""

from dataclasses import dataclass, field, fields
from typing import Any

from client.engines.point import Point, point_from_json
from client.sweeping.cell import Status
from client.sweeping.state import Kind


@dataclass(frozen=True)
class TimedRun:
    """Seconds of a run, and for generation those until the first token of the last row."""

    seconds: float
    first: float | None = None


@dataclass(frozen=True)
class PointCell:
    """One point and what was found. None, or nothing: not known.

    date: local time, ISO 8601. seconds: wall time of the whole point, process start included.
    record: path of the client's record from the run's folder. figures, roofline_by: as
    `with_figures` and `Share` have them. The rest is as the worker wrote it:
    facts (`Facts`), cold (`ColdStart`, with `ready`, from the start of the process until it could
    be asked, and `first_run`), memory (`worker._Peaks`); joules are those of all runs together.
    """

    setting: Point
    status: Status
    reason: str
    date: str
    seconds: float
    command: tuple[str, ...]
    record: str | None = None
    runs: tuple[TimedRun, ...] = ()
    joules: float | None = None
    energy_source: str | None = None
    value: float | None = None
    first_row: tuple[int, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    cold: dict[str, float | None] = field(default_factory=dict)
    memory: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    roofline_by: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The cell as JSON values, the point's own first."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        del values["setting"]
        values |= {"status": self.status.value, "command": list(self.command)}
        values["runs"] = [[run.seconds, run.first] for run in self.runs]
        values["first_row"] = list(self.first_row)
        return self.setting.as_json() | values


def cell_from_json(values: dict[str, Any]) -> PointCell:
    """The inverse of `as_json`. ValueError, TypeError or KeyError for anything else."""
    rest = dict(values)
    point = point_from_json(rest)
    status, command = Status(rest.pop("status")), tuple(rest.pop("command"))
    runs = tuple(TimedRun(*each) for each in rest.pop("runs"))
    first_row = tuple(rest.pop("first_row"))
    return PointCell(
        setting=point, status=status, command=command, runs=runs, first_row=first_row, **rest
    )


OFFLINE: Kind[PointCell] = Kind("offline.json", "loadstone-offline-1", cell_from_json)

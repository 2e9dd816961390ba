"""What became of one setting."""

from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from typing import Any

from client.sweeping.setting import Setting


class Status(Enum):
    """How the trial of a setting ended."""

    OK = "ok"
    # The server would not serve it, for example because it does not fit in memory.
    REFUSED = "refused"
    OOM = "oom"
    FAILED = "failed"
    # Not done in the time it was given.
    TIMEOUT = "timeout"
    # What it is about is not on this machine, such as a library.
    UNAVAILABLE = "unavailable"
    # Measured, but the client says that its figures do not describe the server.
    INVALID = "invalid"

    @property
    def answers(self) -> bool:
        """Whether the question of this cell is answered: trying again would tell nothing new."""
        return self in (Status.OK, Status.REFUSED)

    @property
    def measured(self) -> bool:
        """Whether the figures are those of a whole run."""
        return self in (Status.OK, Status.INVALID)


@dataclass(frozen=True)
class Cell:
    """One setting and what was found. None: not known.

    `date`: local time, ISO 8601. `seconds`: wall time of the whole trial, with start and stop of
    the server. `record`: path of the client's record from the sweep's folder. `max_input_length`
    and `max_output_length`: tokens of the longest prompt sent and the most tokens asked for.
    `rolling`: the cache is shorter than these two together. `plan`: what the server said of itself.
    `roofline_tokens_per_s` and `roofline_fraction` are defined in roofline.py.
    """

    setting: Setting
    status: Status
    reason: str
    date: str
    seconds: float
    server_command: tuple[str, ...]
    record: str | None = None
    figures: dict[str, float] = field(default_factory=dict)
    max_input_length: int | None = None
    max_output_length: int | None = None
    rolling: bool | None = None
    plan: dict[str, Any] | None = None
    roofline_tokens_per_s: float | None = None
    roofline_fraction: float | None = None

    def as_json(self) -> dict[str, Any]:
        """The cell as JSON values, the setting's own first."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        del values["setting"]
        values |= {"status": self.status.value, "server_command": list(self.server_command)}
        return asdict(self.setting) | values


def cell_from_json(values: dict[str, Any]) -> Cell:
    """The inverse of `as_json`. ValueError, TypeError or KeyError for anything else."""
    rest = dict(values)
    setting = Setting(**{each.name: rest.pop(each.name) for each in fields(Setting)})
    status, command = Status(rest.pop("status")), tuple(rest.pop("server_command"))
    return Cell(setting=setting, status=status, server_command=command, **rest)

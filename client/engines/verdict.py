"""From how a worker ended to the status of a point."""

import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.sweeping import log
from client.sweeping.cell import Status

# As a process that was killed reports itself, and as a shell reports it.
_KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)


@dataclass(frozen=True)
class Verdict:
    """The status of a point, and why in one line; "" when all is well."""

    status: Status
    reason: str


def judge(status: int | None, result: dict[str, Any] | None, said: Path, seconds: float) -> Verdict:
    """`status`: exit status, None for a worker that was still at work after `seconds`. `result`:
    what it wrote, if it did. `said`: its log."""
    if result is not None:
        return Verdict(Status(result["status"]), result["reason"])
    if status is None:
        words = log.last_line(said) or "nothing"
        return Verdict(Status.TIMEOUT, f"not done within {seconds:g} s; its log ends: {words}")
    if status in _KILLED:
        return Verdict(Status.OOM, "killed by signal 9, as is done when memory is short")
    lacking = log.out_of_memory(said)
    if lacking is not None:
        return Verdict(Status.OOM, lacking)
    how = f"ended by signal {-status}" if status < 0 else f"ended with status {status}"
    return Verdict(Status.FAILED, f"{how}: {log.last_error(said) or 'it said nothing'}")

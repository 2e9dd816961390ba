"""Trials of engines under a limit, each kept in a file."""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.largest_search import Tried
from benchmarks.machine import describe_machine
from benchmarks.memory_limit import GIB, Ended, Limit, run_limited
from benchmarks.memory_setting import Setting
from benchmarks.memory_trial import BASE, Ask
from client.results.files import write_whole

FORMAT = "loadstone-memory-trial-1"


class TrialError(RuntimeError):
    """A trial that ended neither well nor for want of memory."""


@dataclass(frozen=True)
class Base:
    """`taken`: bytes before there is an engine. `limit`: of a device with memory of its own."""

    taken: int
    limit: int


@dataclass(frozen=True)
class Trials:
    """Runs trials one at a time. `kind`: of the limit, None on devices with memory of their own.
    `seconds`: the most that a trial may take."""

    folder: Path
    device: str
    kind: str | None
    seconds: float
    cache_dir: str
    say: Callable[[str], None]

    def tried(self, setting: Setting, limit: Limit | None) -> dict[int, Tried]:
        """What is known of a setting under a limit, by batch. TrialError names a file that cannot
        be read."""
        found = {}
        for path in sorted(self.folder.glob(f"{self._stem(setting, limit)}-*.json")):
            kept = _read(path)
            found[kept["ask"]["batch"]] = Tried(kept["status"] == "ok", kept["peak"])
        return found

    def run(self, setting: Setting, limit: Limit | None, batch: int) -> None:
        """Keeps how it ended. TrialError where that says nothing about memory."""
        ended = self.start(self._ask(setting, batch), limit)
        peak = self._peak(ended)
        name = f"{setting.name} batch {batch}"
        within = f"{limit.size / GIB:.2f} GiB" if limit else "the device's memory"
        self.say(f"{name} in {within}: {ended.status}, {peak / GIB:.3f} GiB, {ended.seconds:.0f} s")
        if ended.status not in ("ok", "out of memory"):
            raise TrialError(f"{name}: {ended.status}: {ended.error.strip()[-300:]}")
        record = {
            "format": FORMAT,
            "machine": describe_machine(),
            "ask": asdict(self._ask(setting, batch)),
            "limit": None if limit is None else asdict(limit),
            "status": ended.status,
            "peak": peak,
            "seconds": round(ended.seconds, 1),
            "stages": _stages(ended),
            "error": "" if ended.status == "ok" else ended.error,
        }
        path = self.folder / f"{self._stem(setting, limit)}-{batch}.json"
        write_whole(path, json.dumps(record, indent=1))

    def start(self, ask: Ask, limit: Limit | None) -> Ended:
        """A process of its own, to its end."""
        command = [sys.executable, "-m", "benchmarks.memory_trial", json.dumps(asdict(ask))]
        return run_limited(command, limit, self.seconds)

    def base(self) -> Ended:
        """Of a process without an engine."""
        return self.start(Ask("", "none", "none", 1, 0, self.device, self.cache_dir), None)

    def _ask(self, setting: Setting, batch: int) -> Ask:
        return Ask(
            setting.model, setting.weights, setting.cache, setting.length, batch, self.device,
            self.cache_dir,
        )  # fmt: skip

    def _peak(self, ended: Ended) -> int:
        """The trial's own count at its end, and where it had none, what was seen from outside."""
        stages = _stages(ended)
        last = stages[-1] if stages else {}
        return max(ended.peak, last.get(self.kind or "peak_bytes_in_use", 0))

    def _stem(self, setting: Setting, limit: Limit | None) -> str:
        within = f"{limit.size}-{limit.kind}" if limit else self.device
        return f"{setting.name.replace(':', '-')}-{within}"


def measure_base(trials: Trials) -> Base:
    """Of this machine now; the middle of three. Builds the CPU kernels where they are missing."""
    found = []
    for _ in range(3):
        ended = trials.base()
        stages = [stage for stage in _stages(ended) if stage["stage"] == BASE]
        if ended.status != "ok" or not stages:
            raise TrialError(f"no engine can be tried on {trials.device}: {ended.error.strip()}")
        found.append(stages[0])
    if trials.kind is None:
        return Base(found[0]["bytes_in_use"], found[0]["bytes_limit"])
    return Base(sorted(stage[trials.kind] for stage in found)[1], 0)


def _stages(ended: Ended) -> list[dict[str, Any]]:
    found = []
    for line in ended.lines:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue  # cut off where the process was
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["format"] != FORMAT:
            raise TrialError(f"{path}: format {kept['format']!r}, expected {FORMAT!r}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrialError(f"{path}: not a kept trial ({error!r}); delete it") from error
    return kept

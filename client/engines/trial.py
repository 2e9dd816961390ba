"""One point: a process is started, waited for and stopped."""

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from client.engines import boot
from client.engines.ask import GENERATE, Ask, Model
from client.engines.cell import PointCell, TimedRun
from client.engines.figures import with_figures
from client.engines.options import OfflineOptions
from client.engines.point import Point
from client.engines.records import save_record
from client.engines.variant import TORCH_XLA, TRANSFORMERS, Variant
from client.engines.verdict import judge
from client.sweeping.cell import Status
from client.sweeping.peaks import Peaks
from client.sweeping.processes import Processes

ASK, RESULT, LOG = "ask.json", "result.json", "worker.log"
POINTS = "points"
# What a larger point would come to, too.
_TOO_LARGE = (Status.OOM, Status.REFUSED, Status.TIMEOUT, Status.UNAVAILABLE)
# Takes what is asked and where the result goes.
Worker = Callable[[Variant], tuple[str, ...]]
Tick = Callable[[Path], None]


def worker_command(options: OfflineOptions) -> Worker:
    """How the process of a variant is started: ours in this environment, others in theirs."""
    what = options.measuring
    pythons = {TRANSFORMERS: what.transformers_python, TORCH_XLA: what.torch_xla_python}

    def command(variant: Variant) -> tuple[str, ...]:
        if variant.ours:
            return sys.executable, "-m", "client.engines.worker"
        return pythons[variant.engine] or sys.executable, boot.__file__

    return command


@dataclass(frozen=True)
class Trials:
    """Tries points, each in a folder of its own within `folder`."""

    options: OfflineOptions
    models: dict[str, Model]
    peaks: Peaks
    folder: Path
    processes: Processes
    worker: Worker

    def run(self, point: Point, tick: Tick) -> PointCell:
        """Tries one, and leaves no process behind. Raises `Interrupted`; the point is then to be
        tried again from its start."""
        self.processes.check()
        started, date = time.monotonic(), datetime.now()
        place = self.folder / POINTS / point.name
        if place.exists():
            shutil.rmtree(place)
        place.mkdir(parents=True)
        ask = self.ask(point)
        (place / ASK).write_text(ask.as_json(), encoding="utf-8")
        command = (
            *self.worker(point.variant),
            *(str((place / n).absolute()) for n in (ASK, RESULT)),
        )
        status, result, reason = self._work(command, place, tick)
        cell = PointCell(
            setting=point,
            status=status,
            reason=reason,
            date=date.isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - started, 3),
            command=command,
        )
        if status is not Status.OK or result is None:
            return cell
        return self._measured(cell, ask, result, place, date)

    def ask(self, point: Point) -> Ask:
        """The point in the worker's words."""
        what, variant = self.options.measuring, point.variant
        limit = what.memory_limit_gib
        return Ask(
            engine=variant.engine,
            kind=variant.kind,
            attention=variant.attention,
            task=what.task,
            model=self.models[point.model],
            batch=point.batch,
            prompts=what.prompts if what.task == GENERATE else (),
            context=0 if what.task == GENERATE else point.context,
            new_tokens=what.new_tokens,
            warmups=what.warmups,
            timed=what.timed,
            min_seconds=what.min_seconds,
            seed=what.seed,
            platform=what.platform,
            memory_limit=None if limit is None else int(limit * 2**30),
            cache_dir=what.cache_dir,
            options=what.engine_options if variant.ours else (),
        )

    def _work(
        self, command: tuple[str, ...], place: Path, tick: Tick
    ) -> tuple[Status, dict[str, Any] | None, str]:
        said, limit = place / LOG, self.options.point_seconds
        try:
            worker = self.processes.start(command, said)
        except OSError as error:
            return Status.FAILED, None, f"the process cannot be started: {error}"
        try:
            worker.wait(lambda: False, limit, lambda: tick(said))
            self.processes.check()
            ended = worker.status
        finally:
            worker.stop(self.options.stop_seconds)
        try:
            result = _read(place / RESULT)
        except (OSError, ValueError) as error:
            return Status.FAILED, None, f"the result cannot be read: {error!r}"
        verdict = judge(ended, result, said, limit)
        return verdict.status, result, verdict.reason

    def _measured(
        self, cell: PointCell, ask: Ask, result: dict[str, Any], place: Path, date: datetime
    ) -> PointCell:
        timed = result["timed"]
        runs = tuple(
            TimedRun(run["seconds"], run["stamps"][0] if run["stamps"] else None)
            for run in timed["runs"]
        )
        record = None
        if ask.task == GENERATE:
            path = save_record(cell.setting, ask, result, place, date)
            record = str(path.relative_to(self.folder))
        found = replace(
            cell,
            record=record,
            runs=runs,
            joules=timed["joules"],
            energy_source=timed["energy_source"],
            value=timed["runs"][-1]["value"],
            first_row=tuple(timed["first_row"]),
            facts=result["facts"],
            cold=result["cold"],
            memory=result["memory"],
        )
        return with_figures(found, self.options.measuring, self.peaks)


def beyond(cells: Iterable[PointCell], point: Point) -> PointCell | None:
    """What became of a point that need not be tried: a smaller one did not fit, or took too long,
    or its engine is not there at all. None for one that must be."""
    for cell in cells:
        tried = cell.setting
        if cell.status not in _TOO_LARGE or tried.variant != point.variant:
            continue
        smaller = tried.batch <= point.batch and tried.context <= point.context
        absent = cell.status is Status.UNAVAILABLE
        if tried.model == point.model and (absent or smaller):
            where = f"batch {tried.batch}, {tried.context} tokens"
            reason = cell.reason if absent else f"not tried: {where} was {cell.status.value}"
            date = datetime.now().isoformat(timespec="seconds")
            return PointCell(point, cell.status, reason, date, 0.0, ())
    return None


def _read(path: Path) -> dict[str, Any] | None:
    """What a worker wrote, whole; None when it did not come to that."""
    if not path.exists():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{path}: an object was expected")
    return found

"""`python -m client.offline`: measures engines without a server, side by side."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Self

from client.engines.ask import Model
from client.engines.beside import load_estimates, read_earlier
from client.engines.cell import OFFLINE, PointCell
from client.engines.entry import Entries, gather
from client.engines.measuring import Measuring, flag
from client.engines.models import find_model
from client.engines.options import OfflineOptions, parse_offline
from client.engines.point import Point
from client.engines.progress import Progress
from client.engines.tables import render
from client.engines.trial import Trials, Worker, beyond, worker_command
from client.engines.variant import LOADSTONE
from client.engines.view import View
from client.errors import UsageError
from client.report import make_page
from client.results.host import describe_host
from client.results.page.sources import read_sources
from client.results.store import prepare
from client.sweeping import state as states
from client.sweeping.cell import Status
from client.sweeping.files import locked, write_whole
from client.sweeping.peaks import find_peaks
from client.sweeping.processes import Interrupted, Processes
from client.sweeping.state import State
from client.targets.in_process import attention_forms, quantization_schemes
from tokenization import default_model_path

DONE, SOME_FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
TABLE = "table.md"


def main(argv: Sequence[str] | None = None, worker: Worker | None = None) -> int:
    """Runs the command and returns its exit status. `worker`: as `run` has it."""
    words = list(sys.argv[1:] if argv is None else argv)
    command = shlex.join(["python", "-m", "client.offline", *words])
    try:
        return run(parse_offline(words), command, worker)
    except (UsageError, OSError) as error:
        _say(f"error: {error}")
        return BAD_INPUT
    except KeyboardInterrupt:
        _say("interrupted before anything was measured")
        return INTERRUPTED


def run(options: OfflineOptions, command: str, worker: Worker | None = None) -> int:
    """Measures what is missing in the run's folder, prints its tables, returns the exit status.

    `worker`: how the process of a variant is started. Raises `UsageError` for input that cannot be
    used or a folder that holds something else, OSError when it cannot be written.
    """
    if worker is None:
        _check_names(options.measuring)
    folder = options.folder
    prepare(folder)
    models = _find_models(options, folder)
    show = _Showing.of(options, models)
    with locked(folder), Processes() as processes:
        state = _open(options, folder, command, [model.name for model in models.values()])
        worker = worker or worker_command(options)
        trials = Trials(options, models, state.peaks, folder, processes, worker)
        state, interrupted = _Filling(options, folder, trials, show).fill(state)
    print(show.tables(state), flush=True)
    page = options.page
    if page is not None:
        make_page([folder / OFFLINE.file, *options.showing.quality], page)
        _say(f"page: {page}")
    if interrupted:
        _say(f"interrupted; to go on: {command}")
        return INTERRUPTED
    _say(f"run: {folder / OFFLINE.file}")
    failed = (Status.FAILED, Status.TIMEOUT)
    return SOME_FAILED if any(cell.status in failed for cell in state.listed) else DONE


@dataclass(frozen=True)
class _Showing:
    """Makes tables of a state."""

    options: OfflineOptions
    models: tuple[Model, ...]
    earlier: Entries | None
    estimates: dict[str, dict[str, float]]

    @classmethod
    def of(cls, options: OfflineOptions, models: dict[str, Model]) -> Self:
        """Reads what is to lie beside; raises `UsageError` before anything is measured."""
        showing, what = options.showing, options.measuring
        read_sources(showing.quality)
        earlier = None if showing.against is None else read_earlier(showing.against, what)
        estimates = {} if showing.estimates is None else load_estimates(showing.estimates)
        return cls(options, tuple(models.values()), earlier, estimates)

    def tables(self, state: State[PointCell]) -> str:
        """In Markdown."""
        view = View(
            entries=gather(state.listed),
            models=tuple(model.name for model in self.models),
            trained=frozenset(each.name for each in self.models if each.checkpoint is not None),
            what=self.options.measuring,
            showing=self.options.showing,
            peaks=state.peaks,
            earlier=self.earlier,
            estimates=self.estimates,
        )
        return render(state, view)


@dataclass(frozen=True)
class _Filling:
    options: OfflineOptions
    folder: Path
    trials: Trials
    show: _Showing

    def fill(self, state: State[PointCell]) -> tuple[State[PointCell], bool]:
        """Measures every point that is missing; the state is on disk after each. Whether an
        interrupt came in between."""
        points = _points(self.options, state)
        missing = state.missing(points, self.options.retry_failed)
        if self.options.only_show:
            return state, False
        if len(missing) < len(points):
            _say(f"{len(points) - len(missing)} of {len(points)} points are done already")
        progress = Progress(len(points), len(points) - len(missing))
        try:
            for point in missing:
                # What a trial left goes before it is tried again.
                state = self._keep(state.without(point))
                progress.start(point.name)
                cell = beyond(state.listed, point) or self.trials.run(point, progress.tick)
                state = self._keep(state.with_cell(cell))
                progress.end(_result(cell))
        except Interrupted:
            return state, True
        finally:
            progress.close()
        return state, False

    def _keep(self, state: State[PointCell]) -> State[PointCell]:
        state.save(self.folder)
        write_whole(self.folder / TABLE, self.show.tables(state) + "\n")
        return state


def _check_names(what: Measuring) -> None:
    """Of our own engine's forms, which it would refuse only when it is started."""
    if LOADSTONE not in what.engines:
        return
    known = {"quantize": quantization_schemes(), "attention": attention_forms()}
    for name, allowed in known.items():
        wrong = [each for each in getattr(what, name) if each not in allowed]
        if wrong:
            raise UsageError(f"{flag(name)}: {', '.join(allowed)}; got {wrong[0]!r}")


def _find_models(options: OfflineOptions, folder: Path) -> dict[str, Model]:
    """By label."""
    models = [find_model(name, folder, default_model_path) for name in options.measuring.models]
    found = {model.name: model for model in models}
    if len(found) < len(models):
        raise UsageError(f"--models: two of {', '.join(options.measuring.models)} have one name")
    return found


def _open(
    options: OfflineOptions, folder: Path, command: str, labels: Sequence[str]
) -> State[PointCell]:
    host, settings = describe_host(), {**options.settings, "labels": list(labels)}
    points = options.measuring.points(labels)
    state = states.load(OFFLINE, folder, points)
    if state is not None:
        states.check_same(state, settings, host, folder)
        return state if options.only_show else replace(state, command=command)
    if options.only_show:
        raise UsageError(f"--only-show: nothing was measured in {folder} yet")
    if options.bandwidth_gbps is None or options.peak_tflops is None:
        _say("measuring what this host's processors and memory can do")
    peaks = find_peaks(options.bandwidth_gbps, options.peak_tflops)
    started = datetime.now().isoformat(timespec="seconds")
    order = tuple(point.name for point in points)
    state = State(OFFLINE, command, started, settings, host, peaks, order, {})
    state.save(folder)
    return state


def _points(options: OfflineOptions, state: State[PointCell]) -> tuple[Point, ...]:
    return options.measuring.points(state.settings["labels"])


def _result(cell: PointCell) -> str:
    said = cell.status.value
    if cell.runs:
        mean = sum(run.seconds for run in cell.runs) / len(cell.runs)
        said += f", {mean:.3f} s a run"
    return f"{said}, {cell.seconds:.0f} s" + (f": {cell.reason}" if cell.reason else "")


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

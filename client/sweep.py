"""`python -m client.sweep`: benchmarks a server under every combination of some settings."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from client.errors import UsageError
from client.results.host import describe_host
from client.results.store import prepare
from client.sweeping import state as states
from client.sweeping.cell import Cell
from client.sweeping.files import locked, write_whole
from client.sweeping.options import SweepOptions, parse_sweep
from client.sweeping.peaks import find_peaks
from client.sweeping.processes import Interrupted, Processes
from client.sweeping.progress import Progress
from client.sweeping.state import SWEEP, State
from client.sweeping.table import render
from client.sweeping.trial import CLIENT, Trials

ANSWERED, SOME_WITHOUT, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
TABLE = "table.md"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return run(parse_sweep(words), shlex.join(["python", "-m", "client.sweep", *words]))
    except (UsageError, OSError) as error:
        _say(f"error: {error}")
        return BAD_INPUT
    except KeyboardInterrupt:
        _say("interrupted before anything was measured")
        return INTERRUPTED


def run(options: SweepOptions, command: str, client: tuple[str, ...] = CLIENT) -> int:
    """Tries what is missing in the sweep's folder, prints the table, returns the exit status.

    `client`: the words that start the benchmark. Raises `UsageError` for a folder that holds
    something else, OSError when it cannot be written.
    """
    folder = options.folder
    prepare(folder)
    with locked(folder), Processes() as processes:
        state = _open(options, folder, command)
        state.save(folder)
        sweep = _Sweep(options, folder, Trials(options, state.peaks, folder, processes, client))
        state, interrupted = sweep.fill(state)
        print(_write_table(state, folder), flush=True)
    if interrupted:
        _say(f"interrupted; to go on: {command}")
        return INTERRUPTED
    _say(f"sweep: {folder / SWEEP.file}")
    answered = all(cell.status.answers for cell in state.listed)
    return ANSWERED if answered else SOME_WITHOUT


@dataclass(frozen=True)
class _Sweep:
    options: SweepOptions
    folder: Path
    trials: Trials

    def fill(self, state: State[Cell]) -> tuple[State[Cell], bool]:
        """Tries every setting that is missing; the state is on disk after each. Whether an
        interrupt came in between."""
        settings = self.options.cells
        missing = state.missing(settings, self.options.retry_failed)
        if len(missing) < len(settings):
            _say(f"{len(settings) - len(missing)} of {len(settings)} settings are done already")
        for setting in missing:
            # What a trial left goes before it is tried again.
            state = self._keep(state.without(setting))
            progress = Progress(f"[{settings.index(setting) + 1}/{len(settings)}] {setting.name}")
            try:
                cell = self.trials.run(setting, progress)
            except Interrupted:
                progress.close("interrupted")
                return state, True
            state = self._keep(state.with_cell(cell))
            progress.close(_result(cell))
        return state, False

    def _keep(self, state: State[Cell]) -> State[Cell]:
        state.save(self.folder)
        _write_table(state, self.folder)
        return state


def _open(options: SweepOptions, folder: Path, command: str) -> State[Cell]:
    host, settings = describe_host(), options.settings
    if options.server_command is None:
        host |= _jax_version()
    state = states.load(SWEEP, folder, options.cells)
    if state is not None:
        states.check_same(state, settings, host, folder)
        return state
    if options.bandwidth_gbps is None or options.peak_tflops is None:
        _say("measuring what this host's processors and memory can do")
    peaks = find_peaks(options.bandwidth_gbps, options.peak_tflops)
    started = datetime.now().isoformat(timespec="seconds")
    order = tuple(setting.name for setting in options.cells)
    return State(SWEEP, command, started, settings, host, peaks, order, {})


def _jax_version() -> dict[str, str]:
    """Of this environment, in which our own server runs."""
    try:
        return {"jax": version("jax")}
    except PackageNotFoundError:
        return {}


def _write_table(state: State[Cell], folder: Path) -> str:
    table = render(state)
    write_whole(folder / TABLE, table + "\n")
    return table


def _result(cell: Cell) -> str:
    speed = cell.figures.get("output_throughput") if cell.status.measured else None
    parts = [cell.status.value, f"{speed:,.1f} token/s" if speed is not None else ""]
    return ", ".join([*filter(None, parts), f"{cell.seconds:.0f} s"]) + (
        f": {cell.reason}" if cell.reason else ""
    )


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

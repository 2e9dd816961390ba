"""The largest batch that is predicted, beside the largest that works.

    python -m benchmarks.out_of_memory --out runs/oom
    python -m benchmarks.out_of_memory --out runs/oom --settings smollm2-135m:int8:int8:1024
    python -m benchmarks.out_of_memory --out runs/oom-gpu --device gpu

*Predicted* is what `python -m capacity fit` says of a chip with that much memory, less what a
process takes that has imported everything and made one array. *Measured*: engines are started with
more and more slots, each in a process that may have no more than the limit
(`benchmarks/memory_limit.py`), and made to work in all of them (`benchmarks/memory_trial.py`),
until the largest batch that ends well and one that does not are next to each other. On a GPU the
limit is the device's own memory, and the end is its refusal (RESOURCE_EXHAUSTED).

Each trial that has ended is kept in the folder and not run again; an interrupt loses only the one
under way.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.largest_search import known, next_batch
from benchmarks.machine import describe_machine
from benchmarks.memory_limit import GIB, LIMITS, Limit
from benchmarks.memory_prediction import Chip, Prediction, planned_bytes, predict
from benchmarks.memory_setting import DEFAULTS, Setting, read_settings
from benchmarks.memory_trials import Base, TrialError, Trials, measure_base

MOST_TRIALS = 16  # of one setting under one limit


@dataclass(frozen=True)
class Cell:
    """A setting under a limit: what was predicted, and what was found. `problem`: why the rest is
    not known. taken: bytes at the measured batch; planned: the prediction for it, base included."""

    setting: Setting
    limit: int
    predicted: Prediction
    works: int = 0
    fails: int | None = None
    taken: int = 0
    planned: float = 0.0
    problem: str = ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; 130 after an interrupt, 1 where something could not be measured."""
    options = _parse(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    kind = options.limit_by if options.device == "cpu" else None
    trials = Trials(
        options.out, options.device, kind, options.minutes * 60, str(options.cache_dir), _say
    )
    cells: list[Cell] = []
    status = 0
    try:
        base = measure_base(trials)
        sizes = [math.floor(size * GIB) for size in options.limits] if kind else [base.limit]
        for setting in options.settings:
            for size in sizes:
                cells.append(measure(trials, base, setting, size, options.resolution))
                _say(_line(cells[-1]))
    except KeyboardInterrupt:
        _say("interrupted; the same command goes on from here")
        status = 130
    except TrialError as error:
        _say(str(error))
        return 1
    if cells:
        print(_table(cells, base, kind))
    return status or int(any(cell.problem for cell in cells))


def measure(trials: Trials, base: Base, setting: Setting, size: int, resolution: float) -> Cell:
    """Runs what trials are missing. `size`: of the limit, in bytes."""
    chip = Chip(trials.device, size, base.taken)
    predicted = predict(setting, chip, trials.folder)
    limit = Limit(size, trials.kind) if trials.kind else None
    for _ in range(MOST_TRIALS):
        tried = trials.tried(setting, limit)
        try:
            batch = next_batch(tried, predicted.batch, size, predicted.slot_bytes, resolution)
        except ValueError as error:
            return Cell(setting, size, predicted, problem=str(error))
        if batch is None:
            found = known(tried)
            if found.works == 0:
                return Cell(setting, size, predicted, 0, found.fails)
            (needed,) = planned_bytes(setting, chip, trials.folder, found.works)
            taken, planned = tried[found.works].peak, needed + base.taken
            return Cell(setting, size, predicted, found.works, found.fails, taken, planned)
        try:
            trials.run(setting, limit, batch)
        except TrialError as error:
            return Cell(setting, size, predicted, problem=str(error))
    return Cell(setting, size, predicted, problem=f"not found in {MOST_TRIALS} trials")


def _table(cells: Sequence[Cell], base: Base, kind: str | None) -> str:
    counted = f"by `{kind}`" if kind else "the device's own"
    lines = [
        describe_machine(),
        f"limit: {counted}; base of a process: {base.taken / 2**20:.0f} MiB",
        "",
        "| Model | Weights | KV cache | Cache length | Limit, GiB | Predicted, 5% kept free "
        "| Predicted | Measured | Error | Planned, GiB | Taken, GiB | Error |",
        "|" + "---|" * 12,
    ]
    return "\n".join([*lines, *map(_line, cells)])


def _line(cell: Cell) -> str:
    setting, predicted = cell.setting, cell.predicted
    row = [
        setting.model, setting.weights, setting.cache, f"{setting.length:,}",
        f"{cell.limit / GIB:.2f}", f"{predicted.careful:,}", f"{predicted.batch:,}",
    ]  # fmt: skip
    if cell.problem:
        row += [cell.problem, "-", "-", "-", "-"]
    elif not cell.works:
        row += ["0", "-", "-", "-", "-"]
    else:
        row += [
            f"{cell.works:,} ({cell.fails:,} fails)", f"{predicted.batch / cell.works - 1:+.1%}",
            f"{cell.planned / GIB:.3f}", f"{cell.taken / GIB:.3f}",
            f"{cell.planned / cell.taken - 1:+.1%}",
        ]  # fmt: skip
    return "| " + " | ".join(row) + " |"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the trials")
    parser.add_argument(
        "--settings", type=_settings, default=DEFAULTS, metavar="MODEL:WEIGHTS:CACHE:LENGTH,..",
        help=f"default: {','.join(each.name for each in DEFAULTS)}",
    )  # fmt: skip
    parser.add_argument(
        "--limits", type=_limits, default=(3.0, 6.0), metavar="GIB,..",
        help="of a process, with --device cpu (default: 3,6)",
    )  # fmt: skip
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument(
        "--limit-by", choices=LIMITS, default=LIMITS[0],
        help="resident: physical memory; data: private memory, touched or not, which the kernel "
        "refuses (default: resident)",
    )  # fmt: skip
    parser.add_argument(
        "--resolution", type=float, default=0.0, metavar="SHARE",
        help="of the batch, within which the largest is found (default: to the slot)",
    )  # fmt: skip
    parser.add_argument(
        "--minutes", type=float, default=20.0, help="a trial may take (default: 20)"
    )
    parser.add_argument("--cache-dir", type=Path, default=Path.home() / ".cache" / "loadstone")
    return parser.parse_args(arguments)


def _settings(text: str) -> tuple[Setting, ...]:
    try:
        return read_settings(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _limits(text: str) -> tuple[float, ...]:
    sizes = tuple(float(word) for word in text.split(","))
    if not all(size > 0 for size in sizes):
        raise argparse.ArgumentTypeError(f"GiB, each above 0; got {text}")
    return sizes


if __name__ == "__main__":
    sys.exit(main())

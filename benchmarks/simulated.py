"""Predicted against measured: `capacity simulate` beside the real server under the same arrivals.

    python -m benchmarks.simulated                                     # about 10 minutes
    python -m benchmarks.simulated --seconds 10 --calibration-seconds 4     # does it work?
    python -m benchmarks.simulated --steady          # beside a device that never drifts
    python -m benchmarks.simulated --keep DIR --again    # predicts anew what was measured before

Starts `python -m server` on SmolLM2-135M and calibrates: one request at a time, all slots busy,
which says what it can take, and Poisson arrivals at 65% of that. Then Poisson arrivals and a
bursty trace are replayed at other shares of it, and each is simulated from its arrivals and lengths
alone, with dispatches (`capacity calibrate --steps`) fitted to calibrations right before and right
after it: a machine's speed drifts by more in minutes than a queue at 80% forgives. No run that is
predicted is among those that were fitted to. A second prediction takes dispatches from the load
itself: how long they took, not who waited for them. What it misses is not the machine's drift.
The client has a core to itself and the server the others, where there are two or more: what one
does must not be what makes the other slow. Let the machine be quiet.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.machine import describe_machine, on_cores, two_sides
from benchmarks.serving import serving

LOADS = (0.5, 0.8, 1.1)
CALIBRATED = 0.65  # of what the server can take, too
MODEL = "smollm2-135m"
CACHE_LENGTH = 1024
PROMPT, ANSWER, SIGMA = 150, 60, 0.5
_LIMIT_SECONDS = 600
_ATTEMPTS = 2
_INVALID = 3  # status of client.benchmark

# By the client's names: simulated, simulated with the load's own dispatches, and measured.
Figures = tuple[Mapping[str, float], Mapping[str, float], Mapping[str, float]]
LABELS = {
    "p50_ttft_ms": "TTFT p50, ms",
    "p99_ttft_ms": "TTFT p99, ms",
    "output_throughput": "tokens/s",
}
HEADERS = ("load", "figure", "predicted", "measured", "error", "with its own dispatches", "error")


@dataclass(frozen=True)
class Calibration:
    """Records of runs to calibrate with, and the requests a second that the server could take."""

    runs: list[Path]
    most: float


@dataclass(frozen=True)
class Case:
    """A load to predict: what `client.benchmark` is asked, and its name."""

    name: str
    options: tuple[str, ...]


def main() -> None:
    """Prints predicted, measured and error as Markdown."""
    parser = _parser()
    options = parser.parse_args()
    if options.again and options.keep is None:
        parser.error("--again: give the folder of the records with --keep DIR")
    with tempfile.TemporaryDirectory() as name:
        folder = options.keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        _compare(options, folder)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--quantize", choices=("none", "int8"), default="int8")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each load")
    parser.add_argument("--calibration-seconds", type=float, default=10.0, help="of each run")
    parser.add_argument(
        "--rounds", type=int, default=1,
        help="of all loads, other seeds each; a figure is the mean of the rounds",
    )  # fmt: skip
    parser.add_argument(
        "--steady", action="store_true",
        help="our server over `benchmarks.steady_server`'s device, which sleeps as long as a "
        "dispatch takes",
    )  # fmt: skip
    parser.add_argument(
        "--accept-invalid", action="store_true",
        help="use runs in which the client was the limit: to see that this works, not for results",
    )  # fmt: skip
    parser.add_argument("--keep", type=Path, metavar="DIR", help="records and calibration")
    parser.add_argument(
        "--again", action="store_true", help="measure nothing: take the records in --keep"
    )  # fmt: skip
    return parser


def _compare(options: argparse.Namespace, folder: Path) -> None:
    chips = folder / "cpu.toml"
    if not options.again:
        with on_cores(two_sides()[0]):
            chips.write_text(_python("capacity", "chips", "--measure"))
    fits: list[str] = []
    summaries: list[Mapping[str, float]] = []
    found: dict[str, list[Figures]] = {}
    with _server(options) as port:
        before = first = _calibration_runs(options, folder / "calibration", port)
        for number in range(options.rounds):
            for case in _cases(options, folder, first.most, seed=number + 1):
                where = folder / f"{number}-{case.name}"
                record = _measure(where, port, case.options, options.accept_invalid)
                after = _calibration_runs(options, where / "calibration", port)
                fit, own = where / "calibration.json", where / "own.json"
                line = _fit(options, [*before.runs, *after.runs], fit, chips)
                fits.append(f"- {case.name}: {line}")
                summaries.append(json.loads(fit.read_text())["held_out"])
                before = after
                _fit(options, [record], own, chips)
                simulated = [_simulate(options, record, each, chips) for each in (fit, own)]
                found.setdefault(case.name, []).append(
                    (simulated[0], simulated[1], json.loads(record.read_text()))
                )
                print("\n".join(_rows(case.name, found[case.name])), file=sys.stderr, flush=True)
    if options.accept_invalid:
        print("INVALID runs were accepted: these figures only show that the script works.\n")
    print(f"{describe_machine()}\n\nThe server could take {first.most:.2f} requests/s at first.\n")
    print("Dispatches, held out:\n")
    print("\n".join([*fits, _coverage(summaries)]) + "\n")
    print(_line(HEADERS) + "\n" + "|---" * len(HEADERS) + "|")
    for name, figures in found.items():
        print("\n".join(_rows(name, figures)))
    if options.rounds > 1:
        print("\nErrors of single rounds:\n")
        print("\n".join(_rounds(name, figures) for name, figures in found.items()))


def _coverage(summaries: Sequence[Mapping[str, float]]) -> str:
    count = sum(each["count"] for each in summaries)
    inside = sum(round(each["count"] * each["narrow"]) for each in summaries)
    return f"- all together: {inside} of {count} inside their 90% intervals ({inside / count:.1%})"


@contextmanager
def _server(options: argparse.Namespace) -> Iterator[int | None]:
    """Its port; None where nothing is to be measured."""
    if options.again:
        yield None
        return
    words = ["--batch-size", str(options.batch_size), "--cache-length", str(CACHE_LENGTH)]
    if not options.steady:
        words += ["--quantize", options.quantize]
    with ExitStack() as running:
        with on_cores(two_sides()[0]):
            module = "benchmarks.steady_server" if options.steady else "server"
            port = running.enter_context(serving(words, module))
        yield port


def _fit(options: argparse.Namespace, records: Sequence[Path], out: Path, chips: Path) -> str:
    """Keeps a calibration; its held-out error in a line."""
    printed = _python(
        "capacity", "calibrate", *map(str, records), "--steps", "--out", str(out),
        "--model", MODEL, "--cache-length", str(CACHE_LENGTH), *_place(options, chips),
    )  # fmt: skip
    return next(line for line in printed.splitlines() if line.startswith("Left out"))


def _calibration_runs(options: argparse.Namespace, folder: Path, port: int | None) -> Calibration:
    """One request at a time, twice as many as there are slots, and requests that come one by one
    at a rate that is not among those predicted."""
    slots = options.batch_size

    def runs(name: str, seed: int, load: Sequence[str]) -> Path:
        words = [*load, *_lengths(seed)]
        return _measure(folder / name, port, words, options.accept_invalid)

    alone = runs("alone", 101, ["--num-prompts", "4", "--max-concurrency", "1"])
    # As many as should take that long, by what one stream gets.
    rate = json.loads(alone.read_text())["request_throughput"]
    count = max(6 * slots, round(options.calibration_seconds * rate * slots * 0.5))
    load = ["--num-prompts", str(count), "--max-concurrency", str(2 * slots)]
    full = runs("full", 100 + 2 * slots, load)
    most = _most_requests(full)
    between = CALIBRATED * most
    count = max(round(between * options.calibration_seconds), 5)
    load = ["--request-rate", f"{between:.4f}", "--num-prompts", str(count)]
    return Calibration([alone, full, runs("between", 100, load)], most)


def _most_requests(record: Path) -> float:
    """Requests a second while every slot was busy and requests waited."""
    rows = [json.loads(line) for line in record.with_suffix(".jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["outcome"] == "completed"]
    first = np.array([row["sent"] + row["ttft"] for row in rows])
    tokens = np.concatenate(
        [
            at + np.concatenate([[0.0], np.cumsum(row["itls"])])
            for at, row in zip(first, rows, strict=True)
        ]
    )
    # From when the first slots were used a second time to when the last request had its own.
    start, end = float(np.median(first[:10])), float(first.max())
    inside = ((tokens >= start) & (tokens < end)).sum()
    return float(inside / (end - start) / np.mean([row["output_len"] for row in rows]))


def _cases(options: argparse.Namespace, folder: Path, most: float, seed: int) -> list[Case]:
    found = []
    for share in LOADS:
        rate, seconds = share * most, options.seconds
        count = ["--num-prompts", str(max(round(rate * seconds), 5))]
        poisson = ["--request-rate", f"{rate:.4f}", *count, *_lengths(seed)]
        found.append(Case(f"Poisson at {share:.0%}", tuple(poisson)))
        trace = folder / f"trace-{seed}-{share:g}.jsonl"
        trace.write_text(_bursts(rate, seconds, seed))
        replay = ["--dataset", "trace", "--trace-path", str(trace), *count, "--seed", str(seed)]
        found.append(Case(f"trace at {share:.0%}", tuple(replay)))
    return found


def _lengths(seed: int) -> list[str]:
    return [
        *("--dataset", "synthetic", "--random-distribution", "lognormal"),
        *("--random-input-len", str(PROMPT), "--random-output-len", str(ANSWER)),
        *("--random-sigma", str(SIGMA), "--max-input-length", "500"),
        *("--seed", str(seed)),
    ]


def _bursts(rate: float, seconds: float, seed: int) -> str:
    """Mooncake's form: bursts of gamma gaps (shape 0.4), lognormal lengths."""
    random = np.random.default_rng(1000 + seed)
    count = max(round(rate * seconds), 5)
    gaps = random.gamma(0.4, size=count)
    times = np.cumsum(gaps * seconds * 1e3 / gaps.sum())
    inputs, outputs = (
        np.clip(mean * np.exp(SIGMA * random.normal(size=count) - SIGMA**2 / 2), low, high)
        for mean, low, high in ((PROMPT, 4, 500), (ANSWER, 2, 200))
    )
    lines = [
        json.dumps({"timestamp": round(at), "input_length": int(a), "output_length": int(b)})
        for at, a, b in zip(times - times[0], inputs, outputs, strict=True)
    ]
    return "\n".join(lines) + "\n"


def _measure(folder: Path, port: int | None, load: Sequence[str], accept_invalid: bool) -> Path:
    """A run of the client, or without a port the one that was kept; its record. RuntimeError when
    the client was the limit each time."""
    if port is None:
        return _kept(folder)
    for attempt in range(_ATTEMPTS):
        where = folder / str(attempt)
        where.mkdir(parents=True)
        with on_cores(two_sides()[1]):
            _python(
                "client.benchmark", "--port", str(port), "--ignore-eos", "--disable-tqdm",
                "--result-dir", str(where), *load, allowed=(0, _INVALID),
            )  # fmt: skip
        (record,) = where.glob("loadstone-*.json")
        document = json.loads(record.read_text())
        if document["verdict"] == "VALID":
            return record
        if accept_invalid:
            record.write_text(json.dumps(document | {"verdict": "VALID"}))
            return record
    raise RuntimeError(
        f"{folder.name}: the client was the limit {_ATTEMPTS} times "
        f"({'; '.join(document['verdict_reasons'])}): the machine is not quiet"
    )


def _kept(folder: Path) -> Path:
    """The last record of those of several attempts."""
    found = sorted(folder.glob("*/loadstone-*.json"))
    if not found:
        raise SystemExit(f"--again: no record in {folder}; measure with the same options first")
    return found[-1]


def _simulate(
    options: argparse.Namespace, record: Path, calibration: Path, chips: Path
) -> dict[str, float]:
    out = _python(
        "capacity", "simulate", "--model", MODEL, "--cache-length", str(CACHE_LENGTH),
        "--trace", str(record), "--calibration", str(calibration), "--json",
        *_place(options, chips),
    )  # fmt: skip
    return json.loads(out)


def _place(options: argparse.Namespace, chips: Path) -> list[str]:
    """What the server runs on and how, for the planner."""
    return [
        *("--slice", "cpu", "--chips", str(chips), "--batch-size", str(options.batch_size)),
        *("--quantize", options.quantize),
    ]


def _rows(name: str, found: Sequence[Figures]) -> list[str]:
    rows = []
    for key, label in LABELS.items():
        fitted, own, measured = (
            float(np.mean([each[key] for each in column])) for column in zip(*found, strict=True)
        )
        errors = [f"{each / measured - 1:+.1%}" for each in (fitted, own)]
        cells = (f"{fitted:,.1f}", f"{measured:,.1f}", errors[0], f"{own:,.1f}", errors[1])
        rows.append(_line((name, label, *cells)))
    return rows


def _rounds(name: str, found: Sequence[Figures]) -> str:
    errors = (
        f"{label.split(',')[0]} "
        + ", ".join(f"{fitted[key] / measured[key] - 1:+.0%}" for fitted, _, measured in found)
        for key, label in LABELS.items()
    )
    return f"- {name}: {'; '.join(errors)}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _python(module: str, *words: str, allowed: tuple[int, ...] = (0,)) -> str:
    """The output of a module of ours. RuntimeError when it fails."""
    done = subprocess.run(
        [sys.executable, "-m", module, *words],
        capture_output=True,
        text=True,
        timeout=_LIMIT_SECONDS,
        check=False,
    )
    if done.returncode not in allowed:
        raise RuntimeError(f"{module} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    main()

"""`python -m capacity calibrate`: fits the efficiencies to measured runs, with held-out errors."""

import argparse
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from capacity.calibration.fit import Posterior, fit
from capacity.calibration.held_out import HeldOut, summarise
from capacity.calibration.interval import Interval, interval
from capacity.calibration.observation import Observation
from capacity.calibration.store import Calibration, describe_data, describe_summary, save
from capacity.commands.options import add_chips, host_chip, read_chips
from capacity.records.own import OwnRun, observations, predictions
from capacity.records.places import Places
from capacity.records.read import Given, Reader
from capacity.sanity.own import findings_of
from capacity.tables.own import render_own
from capacity.tables.parameters import render_parameters
from capacity.timing.efficiency import Prior, Priors
from capacity.timing.profiles import NOISE, PROFILES
from client.errors import UsageError


def add(parser: argparse.ArgumentParser) -> None:
    """Options."""
    parser.add_argument(
        "records", nargs="+", type=Path, metavar="RECORD",
        help="loadstone-*.json, sweep.json, offline.json, or a folder of them",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="FILE", help="keep the calibration")
    add_given(parser)
    add_chips(parser)


def add_given(parser: argparse.ArgumentParser) -> None:
    """What a record may not say of itself."""
    group = parser.add_argument_group("what the records do not say")
    group.add_argument("--model")
    group.add_argument("--slice")
    group.add_argument("--quantize")
    group.add_argument("--quantize-cache")
    group.add_argument("--sharding", default="model")
    group.add_argument("--batch-size", type=int)
    group.add_argument("--cache-length", type=int)
    group.add_argument("--software", default="loadstone", choices=tuple(PROFILES))


def read_runs(given: argparse.Namespace) -> tuple[list[OwnRun], list[str]]:
    """The runs of the records that can be believed, and notes on the rest."""
    found, notes = reader(given).read(given.records)
    software = {run.setting.software.name for run in found}
    if len(software) > 1:
        raise UsageError(f"records of {' and '.join(sorted(software))}: calibrate each by itself")
    runs = []
    for run in found:
        problems = findings_of(run)
        notes += [f"not believed: {problem}" for problem in problems]
        if not problems and observations(run):
            runs.append(run)
    if not runs:
        raise UsageError(f"nothing to calibrate with: {'; '.join(notes) or 'no figures'}")
    return runs, notes


def reader(given: argparse.Namespace) -> Reader:
    """With what the command line says of the records."""
    return Reader(
        Places(read_chips(given), host_chip()),
        Given(
            model=given.model,
            slice=given.slice,
            weights=given.quantize,
            cache=given.quantize_cache,
            sharding=given.sharding,
            slots=given.batch_size,
            cache_length=given.cache_length,
            software=given.software,
        ),
    )


def run(given: argparse.Namespace) -> int:
    """Prints estimated, measured and error with each run left out, and the parameters."""
    runs, notes = read_runs(given)
    software = runs[0].setting.software.name
    priors, noise = priors_of(runs, PROFILES[software]), NOISE[software]
    seen = {run.name: observations(run) for run in runs}
    if len(seen) < len(runs):
        raise UsageError(f"two runs have one name among {', '.join(run.name for run in runs)}")
    everything = [each for its in seen.values() for each in its]
    posterior = fit(everything, priors, noise)
    held, rows = _held_out(runs, seen, priors, noise)
    print("\n".join(_report(runs, held, rows, posterior, notes)))
    if given.out is not None:
        chips = sorted({run.setting.slice.chip.title for run in runs})
        save(
            Calibration(
                software, ", ".join(chips), posterior, priors, describe_data(held),
                describe_summary(held), datetime.now().isoformat(timespec="seconds"),
            ),
            given.out,
        )  # fmt: skip
        print(f"\nkept in {given.out}")
    return 0


def priors_of(runs: Sequence[OwnRun], base: Priors) -> Priors:
    """The profile's, with arithmetic of its own for each scheme of several."""
    schemes = {run.setting.weights for run in runs}
    if len(schemes) == 1:
        return base
    compute = base["compute"]
    return {**base, **{f"compute@{name}": Prior(compute.median, 0.7) for name in sorted(schemes)}}


def _held_out(
    runs: Sequence[OwnRun],
    seen: Mapping[str, Sequence[Observation]],
    priors: Priors,
    noise: float,
) -> tuple[list[HeldOut], list[tuple[OwnRun, dict[str, Interval]]]]:
    """Each run left out whole: its throughput and its TPOT are not independent.

    The measurements with what the others say, and for each run all that can be said of it.
    """
    held: list[HeldOut] = []
    rows = []
    for run in runs:
        others = [each for name, its in seen.items() if name != run.name for each in its]
        posterior = fit(others, priors, noise)
        if len(runs) > 1:
            held += [
                HeldOut(each, interval(each.predict, posterior, each.tags))
                for each in seen[run.name]
            ]
        estimates = {
            name: interval(predict, posterior, run.tags)
            for name, predict in predictions(run).items()
        }
        rows.append((run, estimates))
    return held, rows


def _report(
    runs: Sequence[OwnRun],
    held: Sequence[HeldOut],
    rows: Sequence[tuple[OwnRun, dict[str, Interval]]],
    posterior: Posterior,
    notes: Sequence[str],
) -> list[str]:
    first = runs[0].setting
    lines = [f"{first.software.name} on {first.slice.chip.title}, {len(runs)} runs", ""]
    lines += [*render_own(rows), ""]
    if held:
        lines.append(f"Each run left out in turn: {summarise(held)}.")
    else:
        lines.append("One run: nothing to leave out; the estimate is of the priors alone.")
    lines += ["", *render_parameters(posterior)]
    return [*lines, *(["", *(f"- {note}" for note in notes)] if notes else [])]

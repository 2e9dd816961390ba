"""`python -m capacity calibrate`: fits the efficiencies to measured runs, with held-out errors."""

import argparse
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from capacity.calibration.fit import Posterior, fit
from capacity.calibration.held_out import HeldOut, leave_out, summarise
from capacity.calibration.interval import Interval, interval
from capacity.calibration.observation import Observation
from capacity.calibration.store import Calibration, describe_data, describe_summary, save
from capacity.commands.options import add_chips, host_chip, read_chips
from capacity.names import pick
from capacity.published.model import evaluate
from capacity.published.pages import find_model
from capacity.records.document import record_files
from capacity.records.own import OwnRun, observations, predictions
from capacity.records.places import Places
from capacity.records.read import Given, Reader
from capacity.records.repeats import together
from capacity.records.steps import read_dispatches, step_observations, step_priors
from capacity.sanity.own import findings_of
from capacity.sanity.published import doubts
from capacity.tables.comparison import OURS, render_group
from capacity.tables.markdown import number, percent, table
from capacity.tables.own import render_own
from capacity.tables.parameters import render_parameters
from capacity.timing.efficiency import Prior, Priors
from capacity.timing.profiles import NOISE, PROFILES
from client.errors import UsageError

_PARTS = 6
_SOFTWARE = "loadstone"  # of records that do not say
_STEP_NOISE = 0.03  # of the mean of many dispatches alike


def add(parser: argparse.ArgumentParser) -> None:
    """Options."""
    parser.add_argument(
        "records", nargs="*", type=Path, metavar="RECORD",
        help="loadstone-*.json, sweep.json, offline.json, or a folder of them",
    )  # fmt: skip
    parser.add_argument("--page", help="a published page instead, such as 002")
    parser.add_argument("--group", help="of the page, such as 'a5000, one card'")
    parser.add_argument(
        "--steps", action="store_true",
        help="fit single dispatches, told from when tokens came, not totals: for `simulate`",
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
    group.add_argument(
        "--software", choices=tuple(PROFILES),
        help="of records of several, the one that counts (default: loadstone, where none is said)",
    )  # fmt: skip


def read_runs(given: argparse.Namespace) -> tuple[list[OwnRun], list[str]]:
    """The runs of the records that can be believed, repeats as one, and notes on the rest."""
    found, notes = reader(given).read(given.records)
    found, notes = _of_one_software(found, notes, given.software)
    runs = []
    for run in found:
        problems = findings_of(run)
        notes += [f"not believed: {problem}" for problem in problems]
        if not problems and observations(run):
            runs.append(run)
    if not runs:
        raise UsageError(f"nothing to calibrate with: {'; '.join(notes) or 'no figures'}")
    return together(runs), notes


def _of_one_software(
    found: list[OwnRun], notes: list[str], wanted: str | None
) -> tuple[list[OwnRun], list[str]]:
    """Those of `wanted`, where there are others, too."""
    names = sorted({run.setting.software.name for run in found})
    if len(names) == 1:
        return found, notes
    if wanted not in names:
        raise UsageError(f"records of {' and '.join(names)}: --software says which of them to fit")
    left = [run for run in found if run.setting.software.name == wanted]
    return left, [*notes, f"{len(found) - len(left)} runs of other software left out"]


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
            software=given.software or _SOFTWARE,
        ),
    )


def run(given: argparse.Namespace) -> int:
    """Prints estimated, measured and error with each run left out, and the parameters."""
    if given.page is not None:
        return _of_page(given)
    if not given.records:
        raise UsageError("give records of own runs, or --page for a published one")
    if given.steps:
        return _of_steps(given)
    runs, notes = read_runs(given)
    software = runs[0].setting.software.name
    priors, noise = priors_of(runs, PROFILES[software]), NOISE[software]
    seen: dict[str, list[Observation]] = {}
    for each in runs:
        seen.setdefault(each.name, []).extend(observations(each))
    everything = [one for its in seen.values() for one in its]
    posterior = fit(everything, priors, noise)
    held, rows = _held_out(runs, seen, priors, noise)
    print("\n".join(_report(runs, held, rows, posterior, notes)))
    chips = ", ".join(sorted({run.setting.slice.chip.title for run in runs}))
    _keep(given, software, chips, posterior, priors, held)
    return 0


def _of_page(given: argparse.Namespace) -> int:
    """Keeps what was fitted to a group of a published page."""
    if given.records:
        raise UsageError("give records or --page, not both")
    model, chips = find_model(given.page), read_chips(given)
    groups = {each.name: each for each in evaluate(model, chips, doubts(model, chips))}
    name = given.group or next(iter(groups))
    if given.group is None and len(groups) > 1:
        raise UsageError(f"--group: page {model.number} has {'; '.join(groups)}")
    group = pick("group", name, groups)
    held = [each.held_out for each in group.believed]
    print("\n".join([*render_group(model, group, OURS), *render_parameters(group.fitted)]))
    _keep(given, model.page.software, f"{name} (published)", group.fitted, group.priors, held)
    return 0


def _of_steps(given: argparse.Namespace) -> int:
    """Fits the dispatches of records of client.benchmark."""
    software = given.software or _SOFTWARE
    observations: list[Observation] = []
    chips = set()
    for path in (file for record in given.records for file in record_files(record)):
        (run,) = reader(given).read([path])[0][:1]
        dispatches = read_dispatches(path.with_suffix(".jsonl"), run.setting.chunk)
        observations += step_observations(run.name, run.setting, dispatches)
        chips.add(run.setting.slice.chip.title)
    if len(observations) < 2:
        raise UsageError("--steps: too few dispatches to tell from the times of tokens; stream")
    priors = step_priors(PROFILES[software])
    posterior = fit(observations, priors, _STEP_NOISE)
    # In a few parts: a fit for each of dozens of means takes long and says the same.
    parts = {id(each): place % _PARTS for place, each in enumerate(observations)}
    held = leave_out(observations, priors, _STEP_NOISE, lambda each: parts[id(each)])
    rows = [
        [
            each.observation.name,
            number(each.predicted.value * 1e3),
            number(each.observation.measured * 1e3),
            percent(each.error),
        ]
        for each in held
    ]
    lines = [*table(["Dispatches", "estimated, ms", "measured, ms", "error"], rows), ""]
    lines += [f"Left out in {_PARTS} parts: {summarise(held)}.", "", *render_parameters(posterior)]
    print("\n".join(lines))
    _keep(given, software, ", ".join(sorted(chips)), posterior, priors, held)
    return 0


def _keep(
    given: argparse.Namespace,
    software: str,
    chips: str,
    posterior: Posterior,
    priors: Priors,
    held: Sequence[HeldOut],
) -> None:
    """Writes --out, where it was given."""
    if given.out is None:
        return
    created = datetime.now().isoformat(timespec="seconds")
    data, summary = describe_data(held), describe_summary(held)
    save(Calibration(software, chips, posterior, priors, data, summary, created), given.out)
    print(f"\nkept in {given.out}")


def priors_of(runs: Sequence[OwnRun], base: Priors) -> Priors:
    """The profile's, with arithmetic and reading of its own for each scheme of several."""
    schemes = {run.setting.weights for run in runs}
    if len(schemes) == 1:
        return base
    own = {f"compute@{name}": Prior(base["compute"].median, 0.7) for name in sorted(schemes)}
    read = {f"quantized@{name}": base["quantized"] for name in sorted(schemes - {"none"})}
    return {**base, **own, **read}


def _held_out(
    runs: Sequence[OwnRun],
    seen: Mapping[str, Sequence[Observation]],
    priors: Priors,
    noise: float,
) -> tuple[list[HeldOut], list[tuple[OwnRun, dict[str, Interval]]]]:
    """Each run left out whole, its repeats too (they have its name): its throughput and its TPOT
    are not independent.

    The measurements with what the others say, and for each run all that can be said of it.
    """
    held: list[HeldOut] = []
    rows = []
    without: dict[str, Posterior] = {}
    for run in runs:
        if run.name not in without:
            others = [each for name, its in seen.items() if name != run.name for each in its]
            without[run.name] = fit(others, priors, noise)
        posterior = without[run.name]
        if len(seen) > 1:
            held += [
                HeldOut(each, interval(each.predict, posterior, each.tags))
                for each in observations(run)
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

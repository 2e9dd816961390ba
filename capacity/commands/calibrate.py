"""`python -m capacity calibrate`: fits the efficiencies to measured runs, with held-out errors."""

import argparse
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from capacity.calibration.fit import Posterior, fit
from capacity.calibration.held_out import HeldOut, leave_out, summarise
from capacity.calibration.store import Calibration, describe_data, describe_summary, save
from capacity.commands.options import add_chips, host_chip, read_chips
from capacity.records.own import Measured, observations
from capacity.records.read import Given, Reader
from capacity.sanity.own import findings_of
from capacity.tables.markdown import number, percent, table
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


def read_measured(given: argparse.Namespace) -> tuple[list[Measured], list[str]]:
    """Observations of the records, those that can be believed, and notes on the rest."""
    reader = Reader(
        read_chips(given),
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
        host_chip(),
    )
    runs, notes = reader.read(given.records)
    software = {run.setting.software.name for run in runs}
    if len(software) > 1:
        raise UsageError(f"records of {' and '.join(sorted(software))}: calibrate each by itself")
    found = []
    for run in runs:
        if problems := findings_of(run):
            notes += [f"not believed: {problem}" for problem in problems]
        else:
            found += observations(run)
    return found, notes


def run(given: argparse.Namespace) -> int:
    """Prints estimated, measured and error with each left out, and the parameters."""
    measured, notes = read_measured(given)
    if not measured:
        raise UsageError(f"nothing to calibrate with: {'; '.join(notes) or 'no figures'}")
    software = measured[0].run.setting.software.name
    priors = priors_of(measured, PROFILES[software])
    noise = NOISE[software]
    posterior = fit([each.observation for each in measured], priors, noise)
    held = held_out_by_run(measured, priors, noise)
    print("\n".join(_report(measured, held, posterior, notes)))
    if given.out is not None:
        chips = sorted({each.run.setting.slice.chip.title for each in measured})
        save(
            Calibration(
                software, ", ".join(chips), posterior, priors, describe_data(held),
                describe_summary(held), datetime.now().isoformat(timespec="seconds"),
            ),
            given.out,
        )  # fmt: skip
        print(f"\nkept in {given.out}")
    return 0


def priors_of(measured: Sequence[Measured], base: Priors) -> Priors:
    """The profile's, with arithmetic of its own for each scheme of several."""
    schemes = {each.run.setting.weights for each in measured}
    if len(schemes) == 1:
        return base
    compute = base["compute"]
    return {**base, **{f"compute@{name}": Prior(compute.median, 0.7) for name in sorted(schemes)}}


def held_out_by_run(measured: Sequence[Measured], priors: Priors, noise: float) -> list[HeldOut]:
    """Each run left out whole: its throughput and its TPOT are not independent."""
    names = {id(each.observation): each.run.name for each in measured}
    if len(set(names.values())) < 2:
        return []
    seen = [each.observation for each in measured]
    return leave_out(seen, priors, noise, lambda observation: names[id(observation)])


def _report(
    measured: Sequence[Measured],
    held: Sequence[HeldOut],
    posterior: Posterior,
    notes: Sequence[str],
) -> list[str]:
    setting = measured[0].run.setting
    lines = [
        f"{setting.software.name} on {setting.slice.chip.title}, {len(measured)} measurements of "
        f"{len({each.run.name for each in measured})} runs",
        "",
    ]
    if held:
        rows = [
            [
                each.observation.name,
                number(each.predicted.value),
                number(each.observation.measured),
                percent(each.error),
                f"{number(each.predicted.low)} - {number(each.predicted.high)}",
                "yes" if each.inside else "no",
            ]
            for each in held
        ]  # fmt: skip
        lines += table(["Run", "Estimated", "Measured", "Error", "95% interval", "Inside"], rows)
        lines += ["", f"Each run left out in turn: {summarise(held)}."]
    else:
        lines.append("One run: nothing to leave out, so the error is not known.")
    lines += ["", *render_parameters(posterior)]
    return [*lines, *(["", *(f"- {note}" for note in notes)] if notes else [])]

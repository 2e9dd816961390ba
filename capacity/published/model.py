"""How one published page is predicted."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from capacity.calibration.fit import Posterior, fit
from capacity.calibration.held_out import HeldOut, leave_out
from capacity.calibration.interval import interval
from capacity.calibration.observation import Observation
from capacity.hardware.chip import Chip
from capacity.published.rows import PublishedPage, PublishedRow, find_page
from capacity.timing.efficiency import Prior, Priors

Chips = Mapping[str, Chip]


@dataclass(frozen=True)
class PageModel:
    """What a page measured, in our terms.

    metric: the value that is predicted. unit: of the observations, with `measured` giving a row's
    value in it. group: rows that are calibrated together. helps: whether a row of another group
    (the first argument) is in every fit of a group (the second) beside its own.
    """

    number: str
    metric: str
    unit: str
    measured: Callable[[PublishedRow], float]
    group: Callable[[PublishedRow], str]
    expects: Callable[[PublishedRow, Chips], Observation]
    bound: Callable[[PublishedRow, Chips], float]
    priors: Callable[[Sequence[PublishedRow]], Priors]
    noise: float
    helps: Callable[[str, str], bool] = field(default=lambda other, group: False)
    # A group that is predicted from another alone.
    transfers: tuple[tuple[str, str], ...] = ()
    # What is left out together, beside single rows.
    apart: Callable[[PublishedRow], str] | None = None
    notes: tuple[str, ...] = ()

    @property
    def page(self) -> PublishedPage:
        """The data."""
        return find_page(self.number)


@dataclass(frozen=True)
class Evaluated:
    """A row, what is predicted of it by a fit that has not seen it, and why it is not believed
    (then it was in no fit).
    """

    row: PublishedRow
    held_out: HeldOut
    doubt: str = ""


@dataclass(frozen=True)
class GroupResult:
    """Rows of one calibration: `fitted` to all that are believed."""

    name: str
    rows: tuple[Evaluated, ...]
    fitted: Posterior
    priors: Mapping[str, Prior]

    @property
    def believed(self) -> list[Evaluated]:
        """The rows that calibrate."""
        return [each for each in self.rows if not each.doubt]


def evaluate(model: PageModel, chips: Chips, doubts: Mapping[str, str]) -> list[GroupResult]:
    """Every measured row, predicted by the rest of its group. `doubts`: by id, why a row is not
    believed."""
    groups: dict[str, list[PublishedRow]] = {}
    for row in model.page.rows:
        if model.metric in row.values:
            groups.setdefault(model.group(row), []).append(row)
    found = []
    for name, rows in groups.items():
        helpers = [
            model.expects(row, chips)
            for other, its in groups.items()
            for row in its
            if model.helps(other, name) and row.id not in doubts
        ]
        found.append(_evaluate(model, chips, doubts, name, rows, helpers))
    return found


def _evaluate(
    model: PageModel,
    chips: Chips,
    doubts: Mapping[str, str],
    name: str,
    rows: Sequence[PublishedRow],
    helpers: Sequence[Observation],
) -> GroupResult:
    believed = [row for row in rows if row.id not in doubts]
    priors = model.priors(rows)
    observations = {row.id: model.expects(row, chips) for row in rows}
    used = [observations[row.id] for row in believed]
    fitted = fit([*used, *helpers], priors, model.noise)
    found = {}
    if len(used) > 1:
        held = leave_out(used, priors, model.noise, always=helpers)
        found = {row.id: each for row, each in zip(believed, held, strict=True)}
    for row in rows:
        if row.id not in found:
            seen = observations[row.id]
            found[row.id] = HeldOut(seen, interval(seen.predict, fitted, seen.tags))
    evaluated = tuple(Evaluated(row, found[row.id], doubts.get(row.id, "")) for row in rows)
    return GroupResult(name, evaluated, fitted, priors)


def transfer(groups: Sequence[GroupResult], source: str, target: str) -> list[HeldOut]:
    """The rows of one group predicted by the fit to another, with the figures of their own chip."""
    by_name = {group.name: group for group in groups}
    return [
        HeldOut(
            each.held_out.observation,
            interval(
                each.held_out.observation.predict,
                by_name[source].fitted,
                each.held_out.observation.tags,
            ),
        )
        for each in by_name[target].believed
    ]


def leave_apart(
    groups: Sequence[GroupResult], apart: Callable[[PublishedRow], str], noise: float
) -> list[HeldOut]:
    """Each row predicted by the rows of its group that `apart` tells from it."""
    found: list[HeldOut] = []
    for group in groups:
        parts = {id(each.held_out.observation): apart(each.row) for each in group.believed}

        def part(observation: Observation, parts: dict[int, str] = parts) -> str:
            return parts[id(observation)]

        if len(set(parts.values())) > 1:
            seen = [each.held_out.observation for each in group.believed]
            found += leave_out(seen, group.priors, noise, part)
    return found

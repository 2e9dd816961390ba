"""Two sides compared, figure by figure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from client.errors import UsageError
from client.results.comparison_bootstrap import Resampled, resample_ratios, same_requests
from client.results.comparison_differences import differences
from client.results.comparison_formats import number
from client.results.comparison_metrics import choose, higher_is_better
from client.results.comparison_repeats import ratio_interval
from client.results.comparison_sides import Side
from client.results.goodput import ServiceLevel

REPEATS, REQUESTS = "repeats", "requests"
# Rows are rounded; further apart, the rows are not those of the record.
_AGREES = 1e-3


class Verdict(Enum):
    """What the figures of two sides say about the second."""

    BETTER = "better"
    WORSE = "worse"
    SAME = "same"
    UNCLEAR = "unclear"


@dataclass(frozen=True)
class Line:
    """One figure. `ratio` is other / baseline; `interval` its 95% interval and where it is from.

    None: a side has no such figure, the baseline's is 0, or nothing gives an interval.
    """

    metric: str
    baseline: float | None
    other: float | None
    ratio: float | None
    interval: tuple[float, float] | None
    interval_from: str | None
    verdict: Verdict


@dataclass(frozen=True)
class Comparison:
    """A side against the baseline. `notes` tell how to read it, `warnings` why not to trust it."""

    baseline: Side
    other: Side
    lines: tuple[Line, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def regressions(self) -> list[str]:
        """The figures that became worse."""
        return [line.metric for line in self.lines if line.verdict is Verdict.WORSE]


def compare(
    baseline: Side, other: Side, patterns: Sequence[str] | None = None, threshold: float = 0.05
) -> Comparison:
    """Compares the figures of two sides.

    `patterns` choose the figures. Differences up to `threshold`, a share of the baseline, never
    count as better or worse. Raises `UsageError` when there is nothing to compare.
    """
    metrics = choose(patterns, _names(baseline), _names(other))
    if not metrics:
        raise UsageError(f"{baseline.label} and {other.label} have no figure in common")
    resampled, note = _within_runs(baseline, other, metrics)
    lines = [_line(metric, baseline, other, resampled.get(metric), threshold) for metric in metrics]
    return Comparison(baseline, other, tuple(lines), tuple(differences(baseline, other)), (note,))


def judge(
    ratio: float, interval: tuple[float, float] | None, higher: bool, threshold: float
) -> Verdict:
    """Better or worse: the interval leaves out 1 and the ratio is beyond the threshold. Same: the
    whole interval is within the threshold, or the figures are equal. Else it is unclear."""
    if interval is None:
        return Verdict.SAME if ratio == 1 else Verdict.UNCLEAR
    low, high = interval
    if 1 - threshold <= low and high <= 1 + threshold:
        return Verdict.SAME
    if high < 1 and ratio < 1 - threshold:
        return Verdict.WORSE if higher else Verdict.BETTER
    if low > 1 and ratio > 1 + threshold:
        return Verdict.BETTER if higher else Verdict.WORSE
    return Verdict.UNCLEAR


def _names(side: Side) -> list[str]:
    """The keys of all figures that are a number in some run."""
    return [
        key
        for key in {key: None for run in side.runs for key in run.figures}
        if any(number(run.figures.get(key)) is not None for run in side.runs)
    ]


def _within_runs(
    baseline: Side, other: Side, metrics: Sequence[str]
) -> tuple[dict[str, Resampled], str]:
    """What the requests of two single runs say, and a note on where the intervals are from."""
    if max(len(baseline.runs), len(other.runs)) > 1:
        return {}, _repeats_note(min(len(baseline.runs), len(other.runs)))
    single = "one run each: no interval from repeats"
    first, second = (side.runs[0].records() for side in (baseline, other))
    if not (first and second):
        return {}, f"{single}, and the requests of a run were not kept for one within it"
    found = resample_ratios(first, second, metrics, _shared_level(baseline, other))
    if not found:
        return {}, f"{single}, and the runs have too few requests for one within them"
    how = (
        "paired, the requests being the same"
        if same_requests(first, second)
        else "each side its own"
    )
    return found, (
        f"{single}; intervals are from a bootstrap over requests ({how}) and leave out how runs "
        "differ from each other. Repeat both sides to be sure"
    )


def _repeats_note(fewest: int) -> str:
    note = "intervals are from repeats (Student's t on the logarithm of the ratio of means)"
    return f"{note}; a side of one run is taken to vary as the other" if fewest == 1 else note


def _shared_level(baseline: Side, other: Side) -> ServiceLevel | None:
    """The service level both runs were judged by; None when they have none or not the same."""
    limits = [side.runs[0].figures.get("goodput") for side in (baseline, other)]
    if limits[0] != limits[1] or not isinstance(limits[0], dict) or not limits[0]:
        return None
    try:
        return ServiceLevel(**limits[0])
    except TypeError as error:
        raise UsageError(f"{baseline.label}: unknown service level {limits[0]}") from error


def _line(
    metric: str, baseline: Side, other: Side, resampled: Resampled | None, threshold: float
) -> Line:
    first, second = _values(baseline, metric), _values(other, metric)
    below, above = _mean(first), _mean(second)
    ratio = above / below if above is not None and below else None
    interval, source = ratio_interval(first, second), REPEATS
    if interval is None and resampled is not None and _belongs(resampled, below, above):
        interval, source = resampled.interval, REQUESTS
    return Line(
        metric=metric,
        baseline=below,
        other=above,
        ratio=ratio,
        interval=interval,
        interval_from=source if interval else None,
        verdict=_verdict(metric, below, above, interval, threshold),
    )


def _verdict(
    metric: str,
    below: float | None,
    above: float | None,
    interval: tuple[float, float] | None,
    threshold: float,
) -> Verdict:
    if below is None or above is None:
        return Verdict.UNCLEAR
    higher = bool(higher_is_better(metric))
    if below == above == 0:
        return Verdict.SAME
    if below == 0:
        return Verdict.BETTER if higher else Verdict.UNCLEAR
    if above == 0 and higher:
        # Nothing is left in any run: no interval is needed to call it.
        return Verdict.WORSE
    return judge(above / below, interval, higher, threshold)


def _values(side: Side, metric: str) -> list[float]:
    found = [number(run.figures.get(metric)) for run in side.runs]
    return [value for value in found if value is not None]


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _belongs(resampled: Resampled, below: float | None, above: float | None) -> bool:
    """Whether the rows give the figures of the record: a foreign client may count otherwise."""
    if below is None or above is None:
        return False
    return math.isclose(resampled.baseline, below, rel_tol=_AGREES) and math.isclose(
        resampled.other, above, rel_tol=_AGREES
    )

"""The interval of a ratio between two single runs, from their requests."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from client.results.comparison_column import TAIL, Column
from client.results.goodput import ServiceLevel, good, was_due
from client.results.latency import due_at, e2el, itls, sent_at, tpot, ttft, ttst
from client.results.records import Outcome, Record

RESAMPLES = 1000
# Values drawn over all resamples; gaps between tokens come by the million.
_WORK = 500_000_000
_FEWEST_RESAMPLES = 100
# Fewer requests say too little of what another run's would be.
FEWEST_REQUESTS = 10
_STATISTIC = re.compile(r"(mean|median|p[0-9.]+)_(\w+)_ms")

_Values = Callable[[Record], Sequence[float | None] | np.ndarray]
_LATENCIES: Mapping[str, _Values] = {
    "ttft": lambda record: [ttft(record, sent_at(record))],
    "ttst": lambda record: [ttst(record, sent_at(record))],
    "tpot": lambda record: [tpot(record)],
    "itl": itls,
    "e2el": lambda record: [e2el(record, sent_at(record))],
    "ttft_from_scheduled": lambda record: [ttft(record, due_at(record))],
    "e2el_from_scheduled": lambda record: [e2el(record, due_at(record))],
    "server_queue": lambda record: [record.server_queue],
    "server_prefill": lambda record: [record.server_prefill],
}


@dataclass(frozen=True)
class Resampled:
    """A figure of both runs as they were, and its ratio in each resample (NaN: no ratio)."""

    baseline: float
    other: float
    ratios: np.ndarray

    @property
    def interval(self) -> tuple[float, float] | None:
        """The middle 95% of the ratios; None when many resamples have none."""
        found = self.ratios[np.isfinite(self.ratios)]
        if found.size < 0.95 * self.ratios.size:
            return None
        low, high = np.quantile(found, [TAIL, 1 - TAIL])
        return float(low), float(high)


def resample_ratios(
    baseline: Sequence[Record],
    other: Sequence[Record],
    metrics: Sequence[str],
    level: ServiceLevel | None = None,
    seed: int = 0,
) -> dict[str, Resampled]:
    """Ratios other / baseline of those of `metrics` that are figures of single requests.

    Requests are drawn with replacement, in blocks of neighbours (n^(1/3) long, in a circle)
    because neighbours share the state of the server. Where both runs asked the same of the server,
    both use the same draws, so the differences between prompts cancel. A percentile p is left out
    where p^n > 0.025: so few requests cannot bound it from above.
    """
    baseline = [record for record in baseline if was_due(record)]
    other = [record for record in other if was_due(record)]
    if min(len(baseline), len(other)) < FEWEST_REQUESTS:
        return {}
    pairs = _pairs(baseline, other, metrics, level)
    sizes = [left.values.size + right.values.size for (left, right), _ in pairs.values()]
    resamples = int(np.clip(_WORK // max(sizes, default=1), _FEWEST_RESAMPLES, RESAMPLES))
    paired, random = same_requests(baseline, other), np.random.default_rng(seed)
    ratios: dict[str, list[float]] = {metric: [] for metric in pairs}
    for _ in range(resamples):
        first = _draw(len(baseline), random)
        second = first if paired else _draw(len(other), random)
        for metric, ((left, right), statistic) in pairs.items():
            below = left.figure(statistic, first)
            ratio = right.figure(statistic, second) / below if below > 0 else np.nan
            ratios[metric].append(ratio)
    once = [np.ones(len(records), dtype=np.int64) for records in (baseline, other)]
    return {
        metric: Resampled(
            left.figure(statistic, once[0]),
            right.figure(statistic, once[1]),
            np.array(ratios[metric]),
        )
        for metric, ((left, right), statistic) in pairs.items()
    }


def same_requests(baseline: Sequence[Record], other: Sequence[Record]) -> bool:
    """Whether two runs asked the same prompts, for as many tokens, in the same order."""
    return [_asked(record) for record in baseline] == [_asked(record) for record in other]


def _asked(record: Record) -> tuple[Any, ...]:
    return record.index, record.prompt_id, record.prompt_tokens, record.max_tokens


def _pairs(
    baseline: Sequence[Record],
    other: Sequence[Record],
    metrics: Sequence[str],
    level: ServiceLevel | None,
) -> dict[str, tuple[tuple[Column, Column], float | None]]:
    """The columns of both runs and the statistic, for each metric with values enough."""
    columns: dict[str, tuple[Column, Column]] = {}
    found = {}
    for metric in metrics:
        name, statistic = _what(metric)
        if name not in columns:
            columns[name] = (_column(baseline, name, level), _column(other, name, level))
        if all(column.holds(statistic) for column in columns[name]):
            found[metric] = (columns[name], statistic)
    return found


def _what(metric: str) -> tuple[str, float | None]:
    """The quantity a figure is of and its percentile, or None for the mean."""
    match = _STATISTIC.fullmatch(metric)
    if match is None:
        return metric, None
    if match[1] == "mean":
        return match[2], None
    return match[2], 50.0 if match[1] == "median" else float(match[1][1:])


def _column(records: Sequence[Record], name: str, level: ServiceLevel | None) -> Column:
    values: list[float] = []
    owners: list[int] = []
    for at, record in enumerate(records):
        found = _values(record, name, level)
        values += found
        owners += [at] * len(found)
    return Column(np.array(values, dtype=np.float64), np.array(owners, dtype=np.int64))


def _values(record: Record, name: str, level: ServiceLevel | None) -> list[float]:
    if name == "completed_share":
        return [float(record.outcome is Outcome.COMPLETED)]
    if name == "goodput_share" and level is not None:
        return [float(good(record, level))]
    if name not in _LATENCIES or record.outcome is not Outcome.COMPLETED:
        return []
    return [1e3 * value for value in _LATENCIES[name](record) if value is not None]


def _draw(count: int, random: np.random.Generator) -> np.ndarray:
    """[count] how often each request is drawn."""
    length = max(round(count ** (1 / 3)), 1)
    starts = random.integers(0, count, -(-count // length))
    drawn = (starts[:, None] + np.arange(length)).ravel()[:count] % count
    return np.bincount(drawn, minlength=count)

"""Runs of the same thing as one: what a single one measured is partly the minute it ran in."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from capacity.records.own import OwnRun


def together(runs: Sequence[OwnRun]) -> list[OwnRun]:
    """Means over runs of one name, kind, setting and lengths; in the order of the first of each."""
    groups: list[list[OwnRun]] = []
    for run in runs:
        group = next((each for each in groups if _same(each[0], run)), None)
        if group is None:
            groups.append([run])
        else:
            group.append(run)
    return [_mean(group) for group in groups]


def _same(one: OwnRun, other: OwnRun) -> bool:
    return (
        (one.name, one.kind, one.rate, one.forward)
        == (other.name, other.kind, other.rate, other.forward)
        and replace(one.setting, slice=other.setting.slice) == other.setting
        and np.array_equal(one.lengths.inputs, other.lengths.inputs)
        and np.array_equal(one.lengths.outputs, other.lengths.outputs)
    )


def _mean(group: Sequence[OwnRun]) -> OwnRun:
    """Times are averaged, and so are the times that rates stand for; of memory the most counts."""
    if len(group) == 1:
        return group[0]
    seconds = _average(1 / run.tokens_per_s if run.tokens_per_s else None for run in group)
    held = [run.memory for run in group if run.memory is not None]
    watts = _average(run.power.watts if run.power else None for run in group)
    power = group[0].power
    return replace(
        group[0],
        name=f"{group[0].name} (mean of {len(group)})",
        runtime_ms=_average(run.runtime_ms for run in group),
        tokens_per_s=None if seconds is None else 1 / seconds,
        memory=max(held) if held else None,
        power=None if watts is None or power is None else replace(power, watts=watts),
    )


def _average(values: Iterable[float | None]) -> float | None:
    """None where one is."""
    known = list(values)
    return None if None in known else float(np.mean(known))  # type: ignore[arg-type]

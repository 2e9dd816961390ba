"""Positions of the KV cache, averaged over the decode steps of many requests."""

import numpy as np

from capacity.serving.lengths import Lengths
from capacity.work.part import Amount
from capacity.work.reading import positions_read, spans_of
from capacity.work.setting import Setting
from capacity.work.software import SPAN


def mean_positions(lengths: Lengths, kept: float) -> float:
    """Live positions of a sequence, `kept` at most, averaged over all decode steps of all."""
    inputs = lengths.inputs.astype(np.float64)
    steps = lengths.outputs.astype(np.float64) - 1
    growing = np.clip(kept - inputs, 0.0, steps)
    read = growing * inputs + growing * (growing + 1) / 2 + (steps - growing) * kept
    return float(read.sum() / steps.sum()) if steps.sum() else float(inputs.mean())


def mean_read(setting: Setting, lengths: Lengths, active: Amount) -> Amount:
    """What a step of so many sequences reads, each of which is at any of its decode steps.

    Of a span, all slots read that of the longest: with F(x) the share of all decode steps that see
    x positions or fewer, the longest of n sequences sees as many with probability F(x)^n.
    """
    if setting.cache_reads != SPAN:
        live = active * mean_positions(lengths, setting.kept_positions)
        return positions_read(setting, live, 0.0)
    spans = spans_of(setting)
    within = np.array([_within(lengths, span) for span in spans[:-1]] + [1.0])
    sequences = np.maximum(np.asarray(active, dtype=np.float64), 1.0)
    reach = within ** sequences[..., None]
    found = setting.slots * (np.diff(reach, prepend=0.0) * spans).sum(axis=-1)
    return found if isinstance(active, np.ndarray) else float(found)


def _within(lengths: Lengths, span: float) -> float:
    """The share of all decode steps that see no more positions than that."""
    steps = lengths.outputs.astype(np.float64) - 1
    if not steps.sum():
        return float((lengths.inputs <= span).mean())
    return float(np.clip(span - lengths.inputs, 0.0, steps).sum() / steps.sum())

"""Requests that are all there at the start, on a fixed number of slots, step by step.

Counted in decode steps, the schedule does not depend on how long anything takes: a request takes
the first slot that is free, holds it for a step for each answer token after the first (which
prefill makes), and the next request gets it. Only then come seconds: `batch_run.py`.
"""

import heapq
from dataclasses import dataclass

import numpy as np

from capacity.serving.lengths import Lengths


@dataclass(frozen=True)
class Schedule:
    """admitted, left: for each request, the step before which it is taken in, and the one before
    which its slot is free again. active, live: for each step, sequences and their positions in all;
    longest: those of the longest.
    """

    admitted: np.ndarray
    left: np.ndarray
    active: np.ndarray
    live: np.ndarray
    longest: np.ndarray

    @property
    def steps(self) -> int:
        """Decode steps until the last request is done."""
        return len(self.active)


def schedule(lengths: Lengths, slots: int, kept_positions: int) -> Schedule:
    """First come, first served. `kept_positions`: a slot's; older ones are forgotten."""
    outputs = lengths.outputs.astype(np.int64)
    admitted = np.zeros(len(outputs), dtype=np.int64)
    free = [0] * min(slots, len(outputs))
    for index, steps in enumerate(outputs - 1):
        admitted[index] = free[0]
        heapq.heapreplace(free, free[0] + int(steps))
    left = admitted + outputs - 1
    total = int(left.max())
    active = np.cumsum(_changes(admitted, left, np.ones(len(outputs)), total))[:total]
    live = _live(lengths.inputs, admitted, left, kept_positions, total)
    longest = _longest(lengths.inputs, admitted, left, kept_positions, total)
    return Schedule(admitted, left, active, live, longest)


def _changes(start: np.ndarray, end: np.ndarray, amount: np.ndarray, total: int) -> np.ndarray:
    changes = np.zeros(total + 1)
    np.add.at(changes, start, amount)
    np.subtract.at(changes, end, amount)
    return changes


def _live(
    inputs: np.ndarray, admitted: np.ndarray, left: np.ndarray, kept: int, total: int
) -> np.ndarray:
    """In step j (from 0) a request reads its prompt and j + 1 more positions, `kept` at most."""
    # Grows by one a step until the slot is full, then stays: two ramps, as second differences.
    full = np.clip(admitted + np.maximum(kept - inputs - 1, 0), admitted, left)
    first = np.minimum(inputs + 1, kept)
    slope = np.cumsum(_changes(admitted, full, np.ones(len(inputs)), total))[:total]
    # Level at the start of each step: what has been gained so far by those that still run.
    jumps = np.zeros(total + 1)
    np.add.at(jumps, admitted, first)
    gained = full - admitted
    np.subtract.at(jumps, left, first + gained)
    level = np.cumsum(jumps)[:total]
    return level + np.concatenate([[0.0], np.cumsum(slope)[:-1]]) if total else level


def _longest(
    inputs: np.ndarray, admitted: np.ndarray, left: np.ndarray, kept: int, total: int
) -> np.ndarray:
    # In step j a request sees j + 1 + (its prompt - its first step): the largest of what is in
    # brackets stays the largest.
    ahead = (inputs - admitted).astype(np.int64)
    most = np.full(total, ahead.min(initial=0), dtype=np.int64)
    for start, end, value in zip(admitted.tolist(), left.tolist(), ahead.tolist(), strict=True):
        np.maximum(most[start:end], value, out=most[start:end])
    return np.minimum(np.arange(1, total + 1) + most, kept)

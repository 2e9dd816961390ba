"""A replica at every rate it can take, by the closed form of `capacity.serving.steady`.

There a rate gives the sequences. Here the sequences give the rate, so that no equation has to be
solved: n = r m s(n) / (1 - r p) turned around is r = n / (m s(n) + n p).
"""

from dataclasses import dataclass

import numpy as np

from capacity.serving.lengths import Lengths
from capacity.serving.positions import mean_read
from capacity.simulation.step_model import StepModel

_POINTS = 48
_FEWEST = 0.02  # sequences: next to nothing to do
_PROMPTS = 33  # quantiles of the prompts' lengths


@dataclass(frozen=True)
class Curve:
    """Arrays over growing sequences at a time: requests a second, and mean seconds at that rate.
    most: requests a second with every slot in use."""

    active: np.ndarray
    rate: np.ndarray
    ttft: np.ndarray
    tpot: np.ndarray
    most: float


def steady_curve(model: StepModel, lengths: Lengths) -> Curve:
    """Prompts are read one at a time, each in a dispatch padded as the server pads it."""
    setting = model.setting
    slots, steps = setting.slots, float(lengths.outputs.mean()) - 1
    prompts = read_seconds(model, lengths)
    reading, square = float(prompts.mean()), float((prompts**2).mean())
    active = np.geomspace(_FEWEST, slots, _POINTS)
    if not steps:
        rate = active / slots / reading
        left = 1 - np.minimum(rate * reading, 1 - 1e-9)
        wait = rate * square / (2 * left)
        return Curve(active, rate, reading + wait, np.zeros_like(rate), 1 / reading)
    sequences = np.maximum(active, 1.0)
    step = model.step(sequences, mean_read(setting, lengths, sequences))
    rate = active / (steps * step + active * reading)
    left = 1 - rate * reading
    tpot = step / left
    device = step / 2 + rate * square / (2 * left)
    slot = _erlang_c(slots, active) * steps * tpot / np.maximum(slots - active, 1e-9)
    return Curve(active, rate, device + slot + reading, tpot, float(rate[-1]))


def read_seconds(model: StepModel, lengths: Lengths) -> np.ndarray:
    """Of prompts read by themselves, chunk by chunk, at quantiles of their lengths."""
    at = (np.arange(_PROMPTS) + 0.5) / _PROMPTS
    chunk = model.prefills[-1][1]
    found = []
    for prompt in np.quantile(lengths.inputs, at, method="nearest").tolist():
        starts = range(0, int(prompt), chunk)
        found.append(sum(model.read([(at, min(chunk, int(prompt) - at))]) for at in starts))
    return np.array(found)


def _erlang_c(servers: int, load: np.ndarray) -> np.ndarray:
    """As `capacity.serving.steady.erlang_c`, of several loads."""
    blocked = np.ones_like(load)
    for count in range(1, servers + 1):
        blocked = load * blocked / (count + load * blocked)
    return blocked / (1 - np.minimum(load / servers, 1.0) * (1 - blocked))

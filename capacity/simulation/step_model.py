"""Seconds of a dispatch, ready to be asked a million times.

`capacity.timing` says what a step takes. Of it, the device's part of a decode step is linear in the
live positions and the host's linear in the sequences, so that two points of each give all others;
a prefill dispatch is a constant of its padded size, and its attention.
"""

import math
from collections.abc import Mapping

from capacity.timing.efficiency import Efficiency, efficiency_of
from capacity.timing.seconds import side_by_side, step_time
from capacity.work.decode import chunk_attention, decode_work, dispatch_work
from capacity.work.part import CACHE, Amount, Part, Work
from capacity.work.setting import Setting
from server.models import sizes

# Tags of parameters that are of one kind of dispatch.
DECODE, PREFILL = "decode", "prefill"
_FAR = 1e6  # positions, for a slope


class StepModel:
    """Of a setting with what its chips reach in decode steps and in prefill dispatches."""

    def __init__(self, setting: Setting, decode: Efficiency, prefill: Efficiency) -> None:
        self.setting, self._decode, self._prefill = setting, decode, prefill
        where = setting.slice
        none, one, far = (
            step_time(decode_work(setting, active, live), where, decode)
            for active, live in ((0.0, 0.0), (1.0, 0.0), (0.0, _FAR))
        )
        self._device = float(none.device)
        self._position = (float(far.device) - self._device) / _FAR
        self._host = float(none.host)
        self._sequence = float(one.host) - self._host
        self._padded = {size: self._empty(*size) for size in self.prefills}
        self._byte, self._flop = (
            float(step_time(Work((Part(CACHE, *each, setting.compute),)), where, prefill).device)
            for each in ((1.0, 0.0), (0.0, 1.0))
        )

    @property
    def prefills(self) -> tuple[tuple[int, int], ...]:
        """(rows, tokens) of the prefill dispatches, growing in tokens."""
        setting = self.setting
        return sizes.prefill_sizes(setting.slots, setting.cache_length, setting.chunk)

    def step(self, active: Amount, live: Amount) -> Amount:
        """Seconds of a decode step of so many sequences with so many positions in all."""
        host = self._host + self._sequence * active
        return side_by_side(host, self._device + self._position * live, self._decode)

    def steps(self, count: int, active: int, live: float, grown: int) -> float:
        """Seconds of `count` decode steps one after another, the first with `live` positions, each
        with `grown` more than the one before.

        Two points, one standard deviation of the steps' places either side of their mean, give the
        sum of any cubic exactly; step times over one run of steps are nearly a straight line.
        """
        if count == 1:
            return self.step(active, live)
        middle, spread = (count - 1) / 2, math.sqrt((count * count - 1) / 12)
        low = self.step(active, live + grown * (middle - spread))
        return count * (low + self.step(active, live + grown * (middle + spread))) / 2

    def read(self, chunks: list[tuple[int, int]]) -> float:
        """Seconds of a prefill dispatch; `chunks` as in `dispatch_work`."""
        longest = max(size for _, size in chunks)
        size = next(each for each in self._padded if each[1] >= longest)
        device, host = self._padded[size]
        part = chunk_attention(self.setting, chunks)
        attention = max(part.bytes * self._byte, part.flops * self._flop)
        seconds = side_by_side(host, device + attention, self._prefill)
        # With the first chunk of a prompt comes what the host does to take a request in.
        opened = sum(before == 0 for before, _ in chunks)
        return seconds + opened * self._prefill.request_s * self._prefill.effect

    def _empty(self, rows: int, tokens: int) -> tuple[float, float]:
        """Device and host seconds of a dispatch without its attention."""
        work = dispatch_work(self.setting, rows, tokens, ())
        found = step_time(work, self.setting.slice, self._prefill)
        return float(found.device), float(found.host)


def step_model(setting: Setting, values: Mapping[str, float]) -> StepModel:
    """With the parameters of a calibration; `name@decode` and `name@prefill` are of one kind of
    dispatch alone.
    """
    decode, prefill = (
        efficiency_of(values, frozenset({setting.weights, setting.model.name, kind}))
        for kind in (DECODE, PREFILL)
    )
    return StepModel(setting, decode, prefill)

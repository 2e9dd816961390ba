"""Seconds of a dispatch, ready to be asked a million times.

`capacity.timing` says what a step takes. Of it, the device's part of a decode step is linear in the
positions it reads and the host's linear in the sequences, so that two points of each give all
others; a prefill dispatch is a constant of its padded size, and its attention. Where idle rows are
skipped, the products of a step depend on its sequences and those of a dispatch on its tokens:
tables.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

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
            step_time(decode_work(setting, active, read), where, decode)
            for active, read in ((0.0, 0.0), (1.0, 0.0), (0.0, _FAR))
        )
        active = np.arange(setting.slots + 1.0)
        device = step_time(decode_work(setting, active, 0.0), where, decode).device
        self._device = np.broadcast_to(device, active.shape).tolist()
        self._position = (float(far.device) - float(none.device)) / _FAR
        self._host = float(none.host)
        self._sequence = float(one.host) - self._host
        self._read: dict[tuple[int, ...], tuple[float, float]] = {}
        self._byte, self._flop = (
            float(step_time(Work((Part(CACHE, *each, setting.compute),)), where, prefill).device)
            for each in ((1.0, 0.0), (0.0, 1.0))
        )

    @cached_property
    def prefills(self) -> tuple[tuple[int, int], ...]:
        """(rows, tokens) of the prefill dispatches, growing in tokens."""
        setting = self.setting
        return sizes.prefill_sizes(setting.slots, setting.cache_length, setting.chunk)

    def step(self, active: Amount, read: Amount) -> Amount:
        """Seconds of a decode step of so many sequences that reads so many positions in all."""
        host = self._host + self._sequence * active
        if isinstance(active, int):
            device: Amount = self._device[active]
        else:
            device = np.interp(active, np.arange(len(self._device)), self._device)
        return side_by_side(host, device + self._position * read, self._decode)

    def steps(self, count: int, active: int, read: float, grown: int) -> float:
        """Seconds of `count` decode steps one after another, the first reads `read` positions, each
        with `grown` more than the one before.

        Two points, one standard deviation of the steps' places either side of their mean, give the
        sum of any cubic exactly; step times over one run of steps are nearly a straight line.
        """
        if count == 1:
            return self.step(active, read)
        middle, spread = (count - 1) / 2, math.sqrt((count * count - 1) / 12)
        low = self.step(active, read + grown * (middle - spread))
        return count * (low + self.step(active, read + grown * (middle + spread))) / 2

    def read(self, chunks: list[tuple[int, int]]) -> float:
        """Seconds of a prefill dispatch; `chunks` as in `dispatch_work`."""
        longest = max(size for _, size in chunks)
        size = next(each for each in self.prefills if each[1] >= longest)
        device, host = self._products(size, chunks)
        part = chunk_attention(self.setting, *size, chunks)
        attention = max(part.bytes * self._byte, part.flops * self._flop)
        seconds = side_by_side(host, device + attention, self._prefill)
        # With the first chunk of a prompt comes what the host does to take a request in.
        opened = sum(before == 0 for before, _ in chunks)
        return seconds + opened * self._prefill.request_s * self._prefill.effect

    def _products(
        self, size: tuple[int, int], chunks: Sequence[tuple[int, int]]
    ) -> tuple[float, float]:
        """Device and host seconds of a dispatch without its attention."""
        own = sum(tokens for _, tokens in chunks)
        key = (own, len(chunks)) if self.setting.skips_idle else size
        if key not in self._read:
            work = dispatch_work(self.setting, *size, chunks)
            plain = replace(work, parts=work.parts[:-1])
            found = step_time(plain, self.setting.slice, self._prefill)
            self._read[key] = float(found.device), float(found.host)
        return self._read[key]


def step_model(setting: Setting, values: Mapping[str, float]) -> StepModel:
    """With the parameters of a calibration; `name@decode` and `name@prefill` are of one kind of
    dispatch alone.
    """
    decode, prefill = (efficiency_of(values, setting.tags | {kind}) for kind in (DECODE, PREFILL))
    return StepModel(setting, decode, prefill)

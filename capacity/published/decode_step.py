"""Seconds of one decode step, for pages that printed steps or what follows from them."""

from collections.abc import Callable

from capacity.timing.efficiency import Efficiency
from capacity.timing.seconds import step_time
from capacity.work.decode import decode_work
from capacity.work.reading import positions_read
from capacity.work.setting import Setting


def step_seconds(setting: Setting, positions: int) -> Callable[[Efficiency], float]:
    """Of a step over all slots of the setting, each of which attends to `positions`."""
    live = setting.slots * float(positions)
    work = decode_work(setting, setting.slots, positions_read(setting, live, positions))

    def predict(efficiency: Efficiency) -> float:
        return float(step_time(work, setting.slice, efficiency).total)

    return predict

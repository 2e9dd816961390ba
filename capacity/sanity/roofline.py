"""Whether a measured time or throughput is physically possible.

The bound is the same formula as every estimate with every peak reached and no host (`IDEAL`). Peaks
are those of the datasheet at boost clocks; 2% of slack is given.
"""

import numpy as np

from capacity.hardware.chip import GIB
from capacity.memory.need import stored_weights
from capacity.work.setting import Setting

SLACK = 0.02


def beats(measured: float, ideal: float, more_is_better: bool) -> bool:
    """Whether a measurement is better than the ideal by more than the slack."""
    if more_is_better:
        return measured > ideal * (1 + SLACK)
    return measured < ideal * (1 - SLACK)


def memory_excess(setting: Setting, sequences: int, positions: int) -> str:
    """Why weights and keys and values of so many sequences of `positions` each cannot be in the
    chips' memory; empty when they can. Nothing else is counted.
    """
    weights = stored_weights(setting)
    kept = min(positions, setting.kept_positions)
    cache = sequences / setting.replicas * kept * setting.position_bytes
    has = setting.slice.chip.need("memory_gib") * GIB
    if weights + cache <= has:
        return ""
    return (
        f"weights {weights / 1e9:.1f} GB + {sequences / setting.replicas:,.0f} sequences x "
        f"{kept:,} positions x {setting.position_bytes:,} bytes = {cache / 1e9:.1f} GB of cache, "
        f"{(weights + cache) / 1e9:.1f} GB in all; a {setting.slice.chip.title} has "
        f"{has / GIB:.0f} GiB ({has / 1e9:.1f} GB)"
    )


def percent_off(value: float, expected: float) -> str:
    """How far a value is from what it should be."""
    return f"{100 * (value / expected - 1):+.1f}%" if np.isfinite(value / expected) else "-"

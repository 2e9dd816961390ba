"""Positions of the KV cache that a decode step's attention goes through."""

import numpy as np

from capacity.work.part import Amount
from capacity.work.setting import Setting
from capacity.work.software import LIVE, WHOLE
from server.models import sizes


def positions_read(setting: Setting, live: Amount, longest: Amount) -> Amount:
    """Over the whole slice: of sequences with `live` positions in all, the `longest` of them with
    so many. Arrays give those of each of several steps.
    """
    if setting.cache_reads == LIVE:
        return live
    if setting.cache_reads == WHOLE:
        return float(setting.slots * setting.kept_positions)
    return setting.slots * span_of(setting, longest)


def spans_of(setting: Setting) -> np.ndarray:
    """What a decode step may read of every slot: a program of the server for each."""
    return np.array(sizes.spans(setting.kept_positions), dtype=np.float64)


def span_of(setting: Setting, longest: Amount) -> Amount:
    """The smallest span that holds so many positions."""
    spans = spans_of(setting)
    found = spans[np.searchsorted(spans, np.minimum(longest, spans[-1]))]
    return found if isinstance(longest, np.ndarray) else float(found)

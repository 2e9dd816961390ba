"""Cross products for parametrized tests, of which the fast suite runs every pair of values."""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import pytest


def dealt(*axes: Sequence[Any], whole: Callable[..., bool] = lambda *values: False) -> list[Any]:
    """Every combination; slow but for those whose places add up to a multiple of the last axis.

    So each combination of the other axes stays with one value of the last. Each pair of values
    stays, too, where every value has at least as many combinations beside it as the last axis has
    values. What `whole` is true of stays anyhow.
    """
    found = []
    for places in product(*map(range, map(len, axes))):
        values = [axis[place] for axis, place in zip(axes, places, strict=True)]
        fast = sum(places) % len(axes[-1]) == 0 or whole(*values)
        marks = () if fast else (pytest.mark.slow,)
        found.append(pytest.param(*values, marks=marks, id="-".join(map(str, values))))
    return found

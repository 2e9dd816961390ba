"""ALiBi: attention that falls with distance instead of positions in the input."""

import math

from server.models.spec import ModelSpec


def slopes(spec: ModelSpec) -> tuple[tuple[float, ...], ...] | None:
    """[K][G], by how much a score falls with each position of distance; None without ALiBi.

    A geometric series where the heads are a power of two ("Train Short, Test Long", section 3);
    heads beyond one take every other slope of the series for twice as many, as BLOOM does.
    """
    if spec.positions != "alibi":
        return None
    even = 2 ** math.floor(math.log2(spec.heads))
    each = [*_series(even), *_series(2 * even)[: 2 * (spec.heads - even) : 2]]
    return tuple(
        tuple(each[first : first + spec.group]) for first in range(0, spec.heads, spec.group)
    )


def _series(heads: int) -> list[float]:
    return [2.0 ** (-8.0 * (n + 1) / heads) for n in range(heads)]

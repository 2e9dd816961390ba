"""The largest batch that the compiler takes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from capacity.compiled.answer import Answer

Ask = Callable[[int], Answer]


@dataclass(frozen=True)
class Largest:
    """`slots` 0 when not even the fewest fit. exact: one `step` more was refused. answer: to the
    largest that fits, or to the fewest. asked: the batches that were tried.
    """

    slots: int
    answer: Answer
    exact: bool
    asked: tuple[int, ...]


def largest(
    ask: Ask,
    fits: Callable[[Answer], bool],
    start: int,
    step: int,
    most: int,
    known: Mapping[int, Answer] | None = None,
) -> Largest:
    """Bisection between what fits and what does not, in multiples of `step`, at most `most` asks.

    Memory grows in proportion to the batch, so two answers tell where the third must look. `known`:
    answers by batch from before, which cost no ask.
    """
    found = dict(known or {})
    free = len(found)
    low = max((slots for slots, one in found.items() if fits(one)), default=0)
    high = min((slots for slots, one in found.items() if not fits(one)), default=0)
    at = _within(start, low, high, step)
    while len(found) - free < most and not (high and high - low <= step):
        found[at] = ask(at)
        if fits(found[at]):
            low = max(low, at)
        else:
            high = min(high or at, at)
        at = _next(found, low, high, step)
    best = found.get(low) or found[min(found)]
    return Largest(low, best, bool(high) and high - low <= step, tuple(found))


def _next(known: dict[int, Answer], low: int, high: int, step: int) -> int:
    """Where to look: on the line through two answers, else in the middle, else twice as far."""
    aim = _crossing(known)
    if aim is None or not low < aim < (high or aim + 1):
        aim = (low + high) // 2 if high else 2 * low
    return _within(aim, low, high, step)


def _within(aim: int, low: int, high: int, step: int) -> int:
    """The multiple of `step` at or below `aim`, but above `low` and, where it is known, below
    `high`."""
    first = (low // step + 1) * step
    at = max(aim // step * step, first)
    return max(min(at, (high - 1) // step * step), first) if high else at


def _crossing(known: dict[int, Answer]) -> int | None:
    """The batch at which the line through the largest two answers with sizes meets the limit."""
    points = sorted((slots, one.memory, one.limit) for slots, one in known.items() if one.memory)
    if len(points) < 2:
        return None
    (first, less, limit), (second, more, _) = points[-2:]
    if more <= less:
        return None
    return first + int((limit - less) * (second - first) / (more - less))

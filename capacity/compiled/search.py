"""The largest batch that the compiler takes."""

from collections.abc import Callable
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


def largest(ask: Ask, fits: Callable[[Answer], bool], start: int, step: int, most: int) -> Largest:
    """Bisection between what fits and what does not, in multiples of `step`, at most `most` asks.

    Memory grows in proportion to the batch, so two answers tell where the third must look.
    """
    known: dict[int, Answer] = {}

    def answer(slots: int) -> Answer:
        if slots not in known:
            known[slots] = ask(slots)
        return known[slots]

    low, high = 0, 0  # the largest that fits, the smallest that does not; 0: none known
    at = max(start // step * step, step)
    while len(known) < most:
        if fits(answer(at)):
            low = max(low, at)
        else:
            high = min(high or at, at)
        if high and high - low <= step:
            break
        at = _next(known, low, high, step)
    best = known.get(low) or known[min(known)]
    return Largest(low, best, bool(high) and high - low <= step, tuple(known))


def _next(known: dict[int, Answer], low: int, high: int, step: int) -> int:
    """Where to look: on the line through two answers, else in the middle, else twice as far."""
    aim = _crossing(known)
    if high:
        at = aim if aim is not None and low < aim < high else (low + high) // 2
        return min(max(at // step * step, low + step), high - step)
    at = aim if aim is not None and aim > low else 2 * low
    return max(at // step * step, low + step)


def _crossing(known: dict[int, Answer]) -> int | None:
    """The batch at which the line through the largest two answers with sizes meets the limit."""
    points = sorted((slots, one.memory, one.limit) for slots, one in known.items() if one.memory)
    if len(points) < 2:
        return None
    (first, less, limit), (second, more, _) = points[-2:]
    if more <= less:
        return None
    return first + int((limit - less) * (second - first) / (more - less))

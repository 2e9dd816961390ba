"""Perplexity of a text longer than a model reads at once, by windows that slide over it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from client.errors import UsageError

# Token ids -> the loss of each but the first in nats, float32.
Losses = Callable[[Sequence[int]], np.ndarray]


@dataclass(frozen=True)
class Sliding:
    """How windows slide, in tokens: each begins `stride` after the one before it."""

    window: int = 1024
    stride: int = 512

    def __post_init__(self) -> None:
        if self.window < 2:
            raise UsageError(f"--window: 2 tokens or more; got {self.window}")
        if not 1 <= self.stride <= self.window:
            raise UsageError(
                f"--stride: from 1 to --window, or tokens would be left out; got {self.stride} "
                f"with a window of {self.window}"
            )

    def over(self, tokens: int) -> list["Window"]:
        """The windows over a text, as Hugging Face's guide to perplexity has them: the first is
        scored whole, of each other only what the one before it has not reached."""
        windows, reached = list[Window](), 0
        for start in range(0, tokens, self.stride):
            end = min(start + self.window, tokens)
            windows.append(Window(start, end, end - reached))
            reached = end
            if end == tokens:
                break
        return windows


@dataclass(frozen=True)
class Window:
    """Tokens from `start` to before `end`; the last `fresh` of them are scored here.

    A window's own first token is never scored: nothing stands before it.
    """

    start: int
    end: int
    fresh: int

    @property
    def scored(self) -> int:
        """How many tokens are scored."""
        return min(self.fresh, self.end - self.start - 1)


@dataclass(frozen=True)
class Score:
    """Of `tokens` scored tokens; `loss` is the mean negative log-likelihood in nats."""

    loss: float
    tokens: int

    @property
    def perplexity(self) -> float:
        """exp of the mean loss; infinite where that is too large for a float."""
        return math.exp(self.loss) if self.loss < 709 else math.inf


def score(
    tokens: Sequence[int],
    sliding: Sliding,
    losses: Losses,
    report: Callable[[int], None] = lambda _: None,
) -> Score:
    """Reads every window. `report` is told how many tokens each of them scored."""
    total, count = 0.0, 0
    for window in sliding.over(len(tokens)):
        if not window.scored:
            continue
        found = losses(tokens[window.start : window.end])[-window.scored :]
        total += float(np.sum(found, dtype=np.float64))
        count += len(found)
        report(len(found))
    if not count:
        raise UsageError(f"a text of {len(tokens)} tokens has nothing to score; give 2 or more")
    return Score(total / count, count)

"""Windows slide as Hugging Face's guide to perplexity defines, and every token counts once."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.errors import UsageError
from client.grading.windows import Sliding, score

SIZES = st.integers(2, 40).flatmap(
    lambda window: st.tuples(st.integers(2, 150), st.just(window), st.integers(1, window))
)


def guide(tokens: int, window: int, stride: int) -> list[tuple[int, int, int]]:
    """The guide's loop as it reads: begin, end and how many targets of each window are kept.

    https://huggingface.co/docs/transformers/perplexity
    """
    found, previous = [], 0
    for begin in range(0, tokens, stride):
        end = min(begin + window, tokens)
        found.append((begin, end, end - previous))
        previous = end
        if end == tokens:
            break
    return found


@given(SIZES)
def test_windows_are_the_guides(sizes: tuple[int, int, int]) -> None:
    tokens, window, stride = sizes
    windows = Sliding(window, stride).over(tokens)
    assert [(each.start, each.end, each.fresh) for each in windows] == guide(*sizes)


@given(SIZES)
def test_every_token_is_scored_once_or_starts_a_window(sizes: tuple[int, int, int]) -> None:
    tokens, window, stride = sizes
    windows = Sliding(window, stride).over(tokens)
    scored = [at for each in windows for at in range(each.end - each.scored, each.end)]
    assert len(set(scored)) == len(scored)
    starts = {each.start for each in windows if each.fresh == each.end - each.start}
    assert set(range(tokens)) - set(scored) == starts


def losses(tokens: Sequence[int]) -> np.ndarray:
    """A model whose loss of a token is the token, less what stands before it."""
    return np.asarray([token - before / 7 for before, token in enumerate(tokens)][1:], np.float32)


def test_the_mean_is_over_tokens_and_not_windows() -> None:
    told: list[int] = []
    found = score([1, 2, 3, 4, 5, 6, 7], Sliding(4, 2), losses, told.append)
    kept = [2 - 1 / 7, 3 - 2 / 7, 4 - 3 / 7, 5 - 2 / 7, 6 - 3 / 7, 7 - 2 / 7]
    # The last window is 5, 6, 7 alone.
    assert found.tokens == 6 and told == [3, 2, 1]
    assert found.loss == pytest.approx(sum(kept) / 6)
    assert found.perplexity == pytest.approx(math.exp(found.loss))


def test_a_lone_last_token_is_not_scored() -> None:
    """With windows that do not overlap nothing stands before it."""
    assert score([1, 2, 3, 4, 5], Sliding(2, 2), losses).tokens == 2


@pytest.mark.parametrize(("window", "stride"), [(1, 1), (4, 0), (4, 5)])
def test_gaps_are_refused(window: int, stride: int) -> None:
    with pytest.raises(UsageError, match=r"--(window|stride)"):
        Sliding(window, stride)

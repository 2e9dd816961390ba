"""pass@k is the share of all draws of k tries in which one or more passed."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.grading.passes import mean_pass_at, pass_at


@given(st.integers(1, 8).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))))
def test_it_is_the_share_of_all_draws(counts: tuple[int, int]) -> None:
    tries, passed = counts
    outcomes = [index < passed for index in range(tries)]
    for k in range(1, tries + 1):
        draws = [any(draw) for draw in combinations(outcomes, k)]
        assert pass_at(k, tries, passed) == pytest.approx(sum(draws) / len(draws))


def test_many_tries_stay_exact() -> None:
    """200 tries have more draws of 100 than a float can count."""
    assert pass_at(1, 200, 3) == pytest.approx(0.015)
    assert pass_at(100, 200, 1) == pytest.approx(0.5)
    assert pass_at(100, 200, 101) == 1.0


@pytest.mark.parametrize(("k", "tries", "passed"), [(0, 1, 0), (2, 1, 1), (1, 1, 2), (1, 1, -1)])
def test_what_cannot_be_told_is_refused(k: int, tries: int, passed: int) -> None:
    with pytest.raises(ValueError, match=f"pass@{k} of {passed} passed in {tries} tries"):
        pass_at(k, tries, passed)


def test_problems_count_alike() -> None:
    assert mean_pass_at(1, 4, [4, 2, 0]) == pytest.approx(0.5)

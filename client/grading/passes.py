"""How often k tries solve a problem."""

import math
from collections.abc import Sequence


def pass_at(k: int, tries: int, passed: int) -> float:
    """The chance that one or more of k tries pass, drawn from `tries` of which `passed` did.

    Unbiased where the tries are independent: 1 - C(tries-passed, k) / C(tries, k), from Chen et al.
    2021 (arXiv:2107.03374). ValueError for fewer tries than k.
    """
    if not 0 <= passed <= tries or not 1 <= k <= tries:
        raise ValueError(f"pass@{k} of {passed} passed in {tries} tries cannot be told")
    return 1.0 - math.comb(tries - passed, k) / math.comb(tries, k)


def mean_pass_at(k: int, tries: int, passed: Sequence[int]) -> float:
    """The mean over problems, of each of which `passed` says how many of its tries did."""
    return math.fsum(pass_at(k, tries, each) for each in passed) / len(passed)

"""The search for the largest batch, over compilers that are made up."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capacity.compiled.answer import Answer, Program, Refusal
from capacity.compiled.search import largest
from capacity.compiled.traffic import Traffic

LIMIT = 16 << 30


def answering(fixed: int, each: int, says: bool = True) -> Callable[[int], Answer]:
    """A compiler for which a batch takes `fixed + each * slots` bytes."""

    def ask(slots: int) -> Answer:
        needed = fixed + each * slots
        fits = needed <= LIMIT
        program = Program(
            "decode 128", needed, 0, 0, 0, 0, 0.0, 0.0, Traffic(0, 0, {}, (), 0, 0), 0, 0
        )
        refusal = Refusal("decode 128", "Ran out of memory", needed if says else None, LIMIT)
        return Answer(
            programs=(program,) if fits else (),
            refusals=() if fits else (refusal,),
            planned={},
            device_kind="made up",
            limit=LIMIT,
            cache_length=128,
            every=("decode 128",),
        )

    return ask


@given(
    fixed=st.integers(0, LIMIT * 2),
    each=st.integers(1 << 16, 1 << 30),
    start=st.integers(0, 4096),
    step=st.sampled_from([1, 8, 64]),
    says=st.booleans(),
)
def test_finds_the_largest(fixed: int, each: int, start: int, step: int, says: bool) -> None:
    found = largest(answering(fixed, each, says), lambda one: one.fits, start, step, 60)
    expected = max((LIMIT - fixed) // each, 0) // step * step
    assert (found.slots, found.exact) == (expected, True)
    assert len(set(found.asked)) == len(found.asked)


def test_a_good_start_takes_few_compiles() -> None:
    ask = answering(3 << 30, 100 << 20)
    found = largest(ask, lambda one: one.fits, 140, 8, 10)
    assert found.slots == 128 and len(found.asked) <= 3


@given(
    known=st.integers(1, 300),
    start=st.integers(0, 400),
    fixed=st.integers(0, LIMIT),
    step=st.sampled_from([1, 8, 64]),
)
def test_an_answer_that_is_known_costs_nothing(
    known: int, start: int, fixed: int, step: int
) -> None:
    each = 100 << 20
    answer = answering(fixed, each)
    new: list[int] = []

    def ask(slots: int) -> Answer:
        new.append(slots)
        return answer(slots)

    found = largest(ask, lambda one: one.fits, start, step, 60, {known: answer(known)})
    most = (LIMIT - fixed) // each
    expected = max(most // step * step, known if known <= most else 0)
    # Between a known batch that is no multiple and the next one there is nothing to try.
    assert found.exact and found.slots in (expected, most // step * step)
    assert known not in new and len(set(new)) == len(new)
    assert set(found.asked) == {known, *new}


def test_stops_when_it_has_asked_enough() -> None:
    found = largest(answering(0, 1 << 20, says=False), lambda one: one.fits, 8, 8, 3)
    assert len(found.asked) == 3 and not found.exact and found.slots == max(found.asked)


@pytest.mark.parametrize("says", [False, True])
def test_nothing_fits(says: bool) -> None:
    found = largest(answering(LIMIT + 1, 1, says), lambda one: one.fits, 512, 8, 20)
    assert found.slots == 0 and found.exact and not found.answer.fits

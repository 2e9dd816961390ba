"""When generation ends."""

from collections.abc import Callable

import pytest

from server.engine.engine import JaxEngine
from server.engine.protocol import Finish
from tests.engine.driving import Ask, generate, ids, prompt_of

PROMPT = prompt_of(12, 1)


@pytest.fixture
def free(engines: Callable) -> list[int]:
    """What the model says when nothing ends it."""
    tokens = ids(generate(engines(), [Ask(0, PROMPT, 24)])[0])
    assert len(set(tokens[:5])) == 5  # the tests below need different tokens
    return tokens


@pytest.fixture
def second(free: list[int]) -> int:
    """Where, behind the fifth, the model first says something new."""
    return next(at for at in range(5, 24) if free[at] not in free[:at])


@pytest.fixture(params=[1, 3], ids=["step", "three steps"])
def ending(
    request: pytest.FixtureRequest, engines: Callable, free: list[int], second: int
) -> JaxEngine:
    """An engine whose sequences end with what the model says fifth and at `second`."""
    return engines(eos=frozenset({free[4], free[second]}), steps=request.param)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_max_tokens_is_exact(engines: Callable, free: list[int], count: int) -> None:
    for settings in ({}, {"steps": 3}):
        tokens = generate(engines(**settings), [Ask(2, PROMPT, count)])[2]
        assert ids(tokens) == free[:count]
        assert [token.finish for token in tokens] == [None] * (count - 1) + [Finish.LENGTH]


def test_an_end_token_stops(ending: JaxEngine, free: list[int]) -> None:
    tokens = generate(ending, [Ask(1, PROMPT, 24, ignore_eos=False)])[1]
    end = free.index(free[4])
    assert ids(tokens) == free[: end + 1]
    assert tokens[-1].finish is Finish.STOP
    assert ending.decode().tokens() == []


def test_every_end_token_stops(ending: JaxEngine, free: list[int], second: int) -> None:
    """From behind the first end token the second one ends it."""
    prompt = [*PROMPT, *free[:5]]
    tokens = generate(ending, [Ask(1, prompt, 24, ignore_eos=False)])[1]
    assert ids(tokens) == free[5 : second + 1]
    assert tokens[-1].finish is Finish.STOP


def test_an_end_token_may_come_first(ending: JaxEngine, free: list[int]) -> None:
    prompt = [*PROMPT, *free[:4]]
    tokens = generate(ending, [Ask(0, prompt, 24, ignore_eos=False)])[0]
    assert ids(tokens) == [free[4]]
    assert tokens[0].finish is Finish.STOP
    assert ending.decode().tokens() == []


def test_an_end_token_as_the_last_allowed_is_a_stop(ending: JaxEngine, free: list[int]) -> None:
    tokens = generate(ending, [Ask(0, PROMPT, 5, ignore_eos=False)])[0]
    assert ids(tokens) == free[:5]
    assert tokens[-1].finish is Finish.STOP


def test_ignoring_end_tokens_goes_on(ending: JaxEngine, free: list[int]) -> None:
    """Beside a row that does not ignore them, and in a slot where one did before."""
    asks = [Ask(0, PROMPT, 24, ignore_eos=False), Ask(3, PROMPT, 24)]
    said = generate(ending, asks)
    assert ids(said[0]) == free[:5] and ids(said[3]) == free
    assert said[3][-1].finish is Finish.LENGTH
    swapped = generate(ending, [Ask(3, PROMPT, 24, ignore_eos=False), Ask(0, PROMPT, 24)])
    assert ids(swapped[3]) == free[:5] and ids(swapped[0]) == free

"""The rolling window against a sliding-window mask over everything, in NumPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.plain import plain_logits
from tests.models.tiny import Model, Row, load, random_tensors, tiny_spec

SOURCE = random_tensors(tiny_spec(hidden=32, heads=2, kv_heads=1, ffn=48, vocab=64), seed=5)
# Each pair compiles three programs: cache length, and the width that chunks are padded to.
SHAPES = [(8, 8), (12, 5), (16, 11)]
BOUND = {False: 2e-4, True: 0.1}


@pytest.fixture(scope="module")
def models() -> dict[bool, Model]:
    """By whether the cache is int8."""
    return {cache: load(SOURCE, cache=cache) for cache in (False, True)}


def served(model: Model, tokens: list[int], sizes: list[int], length: int, width: int):
    """Logits of every token: chunks of the given sizes in turn, then decode. Slot 1 of two."""
    cache, got, start = model.empty(2, length), [], 0
    for size in sizes:
        if start == len(tokens):
            break
        row = Row(1, start, tokens[start : start + size])
        (scores,), cache = model.read(cache, [row], width, length if start else 0)
        got += [*scores]
        start += len(row.tokens)
    for position in range(start, len(tokens)):
        scores, cache = model.step(cache, [3, tokens[position]], [0, position], [0, 1], length)
        got.append(scores[1])
    return np.stack(got)


@pytest.mark.parametrize("int8_kv", [False, True], ids=["float", "int8"])
@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data(), shape=st.sampled_from(SHAPES), seed=st.integers(0, 100))
def test_equals_a_sliding_window_over_everything(
    models: dict[bool, Model], int8_kv: bool, data: st.DataObject, shape: tuple[int, int], seed: int
) -> None:
    """Prompts longer than the cache, uneven chunks, wrapping inside a chunk, decode after it."""
    length, width = shape
    count = data.draw(st.integers(1, 3 * length), label="tokens")
    sizes = data.draw(st.lists(st.integers(1, width), min_size=1, max_size=12), label="chunks")
    tokens = list(map(int, np.random.RandomState(seed).randint(0, 64, count)))
    got = served(models[int8_kv], tokens, sizes, length, width)
    expected = plain_logits(SOURCE, tokens, window=length, int8_kv=int8_kv)
    assert np.abs(got - expected).max() <= BOUND[int8_kv]


@pytest.mark.parametrize("int8_kv", [False, True], ids=["float", "int8"])
@pytest.mark.parametrize(("length", "width"), SHAPES)
def test_prompt_of_three_caches_then_decode_over_a_fourth(
    models: dict[bool, Model], int8_kv: bool, length: int, width: int
) -> None:
    tokens = list(map(int, np.random.RandomState(1).randint(0, 64, 4 * length)))
    chunks = [width] * (3 * length // width)
    got = served(models[int8_kv], tokens, chunks, length, width)
    expected = plain_logits(SOURCE, tokens, window=length, int8_kv=int8_kv)
    assert np.abs(got - expected).max() <= BOUND[int8_kv]


@pytest.mark.parametrize("window", [7, 9, None])
def test_a_window_off_by_one_would_show(models: dict[bool, Model], window: int | None) -> None:
    tokens = list(map(int, np.random.RandomState(1).randint(0, 64, 24)))
    got = served(models[False], tokens, [8, 8], 8, 8)
    other = plain_logits(SOURCE, tokens, window=window)
    assert np.abs(got - other)[16:].max() > 10 * BOUND[True]


def test_rows_at_different_turns_of_the_window(models: dict[bool, Model]) -> None:
    """Two slots decode side by side, one of them around for the third time."""
    length, model = 8, models[False]
    long, short = (list(map(int, np.random.RandomState(s).randint(0, 64, 30))) for s in (2, 3))
    cache = model.empty(2, length)
    for start in (0, 8, 16):
        row = Row(0, start, long[start : start + 8])
        _, cache = model.read(cache, [row], 8, length if start else 0)
    _, cache = model.read(cache, [Row(1, 0, short[:3])], 8, 0)
    expected = [plain_logits(SOURCE, tokens, window=length) for tokens in (long, short)]
    for turn in range(6):
        at = [24 + turn, 3 + turn]
        scores, cache = model.step(cache, [long[at[0]], short[at[1]]], at, [1, 1], length)
        for slot in (0, 1):
            assert np.abs(scores[slot] - expected[slot][at[slot]]).max() <= BOUND[False]


@pytest.mark.parametrize("family", ["starcoder2", "opt", "bloom"])
def test_other_positions_roll_too(family: str) -> None:
    """Rotated, learned and ALiBi's distances stay those of the absolute positions; a cache of just
    the sliding window is the model's own attention.
    """
    own = {"starcoder2": {"sliding_window": 12}, "opt": {"kv_heads": 4}, "bloom": {"kv_heads": 4}}
    source = random_tensors(tiny_spec(family, layers=1, **own[family]), seed=5)
    tokens = list(map(int, np.random.RandomState(1).randint(0, 64, 45)))
    got = served(load(source), tokens, [5] * 7, 12, 5)
    window = None if family == "starcoder2" else 12
    expected = plain_logits(source, tokens, window=window)
    assert np.abs(got - expected).max() <= BOUND[False]
    if family != "starcoder2":
        assert np.abs(got - plain_logits(source, tokens)).max() > 0.1

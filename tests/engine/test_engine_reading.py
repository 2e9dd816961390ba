"""The loss of every token is that of one plain forward over the window."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from server.engine.config import EngineConfig
from server.engine.open import ModelChoice, open_engine
from tests.engine.conftest import CACHE
from tests.engine.driving import prompt_of
from tests.models.plain import plain_logits
from tests.models.tiny import Tensors, random_tensors, tiny_spec

WINDOW = 48


def expected(
    source: Tensors, tokens: list[int], int8_kv: bool = False, window: int | None = None
) -> np.ndarray:
    scores = plain_logits(source, tokens, window, int8_kv)[:-1]
    most = scores.max(axis=-1, keepdims=True)
    whole = np.log(np.exp(scores - most).sum(axis=-1)) + most[:, 0]
    return whole - scores[np.arange(len(tokens) - 1), tokens[1:]]


@pytest.mark.parametrize("chunk", [1, 7, 16, WINDOW])
@pytest.mark.parametrize("count", [2, 17, WINDOW])
def test_losses_are_those_of_a_plain_forward(
    engines: Callable, tensors: dict[str, Tensors], chunk: int, count: int
) -> None:
    tokens = prompt_of(count, seed=3)
    found = engines().reading(WINDOW, chunk).losses(tokens)
    assert found.dtype == np.float32 and found.shape == (count - 1,)
    np.testing.assert_allclose(found, expected(tensors["llama"], tokens), rtol=0, atol=2e-4)


def test_windows_leave_nothing_behind(engines: Callable, tensors: dict[str, Tensors]) -> None:
    """A short window after a long one, and the engine's own slots, see no other text."""
    reading = engines().reading(WINDOW, 16)
    long, short = prompt_of(WINDOW, seed=1), prompt_of(9, seed=2)
    for tokens in (long, short, long):
        np.testing.assert_allclose(
            reading.losses(tokens), expected(tensors["llama"], tokens), rtol=0, atol=2e-4
        )


@pytest.mark.parametrize("sharding", ["model", "batch"])
def test_several_devices_read_the_same(
    engines: Callable, tensors: dict[str, Tensors], sharding: str
) -> None:
    tokens = prompt_of(40, seed=5)
    engine = engines("many", devices=8, slots=8, sharding=sharding)
    found = engine.reading(WINDOW, 16).losses(tokens)
    np.testing.assert_allclose(found, expected(tensors["many"], tokens), rtol=0, atol=2e-4)


def test_an_int8_cache_counts(engines: Callable, tensors: dict[str, Tensors]) -> None:
    """Read token by token, every key and value comes from the cache."""
    tokens = prompt_of(WINDOW, seed=6)
    rounded = engines(quantize_kv_cache=True).reading(WINDOW, 1).losses(tokens)
    exact = expected(tensors["llama"], tokens)
    wanted = expected(tensors["llama"], tokens, int8_kv=True)
    assert np.abs(rounded - exact).max() > 1e-3
    assert np.abs(rounded - wanted).mean() < 0.2 * np.abs(rounded - exact).mean()


@pytest.mark.parametrize("count", [0, 1, WINDOW + 1])
def test_what_no_window_holds_is_refused(engines: Callable, count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} tokens; from 2 to the window's 48"):
        engines().reading(WINDOW, 16).losses(prompt_of(count))


@pytest.mark.parametrize(("window", "chunk"), [(1, 1), (8, 0), (8, 9)])
def test_windows_and_chunks_that_make_no_sense(engines: Callable, window: int, chunk: int) -> None:
    with pytest.raises(ValueError, match=f"a window of {window} tokens read {chunk} at a time"):
        engines().reading(window, chunk)


def test_a_models_own_window_holds(tensors: dict[str, Tensors]) -> None:
    """Chunks, windows and caches longer than what the model attends to."""
    source = tensors["llama"]
    spec = replace(source.spec, sliding_window=12)
    sliding = Tensors(spec, source.values)
    tokens = prompt_of(40, seed=7)
    engine = open_engine(
        ModelChoice(spec, None, sliding), EngineConfig(2, 64, 16), frozenset(), cache_dir=CACHE
    )
    wanted = expected(source, tokens, window=12)
    for chunk in (1, 5, 16):
        found = engine.reading(WINDOW, chunk).losses(tokens)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-4)


def test_no_window_goes_past_learned_positions(tensors: dict[str, Tensors]) -> None:
    source = random_tensors(tiny_spec("opt", max_positions=32))
    engine = open_engine(
        ModelChoice(source.spec, None, source), EngineConfig(2, 32, 16), frozenset(),
        cache_dir=CACHE,
    )  # fmt: skip
    tokens = prompt_of(32, seed=8)
    found = engine.reading(32, 16).losses(tokens)
    np.testing.assert_allclose(found, expected(source, tokens), rtol=0, atol=2e-4)
    with pytest.raises(ValueError, match="a window of 33 tokens; tiny has 32 positions"):
        engine.reading(33, 16)

"""Text from the whole engine: against transformers, and the same however the work is cut."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from server.engine.config import EngineConfig
from server.engine.open import ModelChoice, open_engine, open_source
from server.quant.int8 import quantize
from tests.cache import CACHE
from tests.engine.driving import Ask, assert_greedy, generate, ids, prompt_of
from tests.models.tiny import Tensors

FIXTURES = Path(__file__).parents[1] / "fixtures"
WINDOW = 64
ASKS = [
    Ask(0, prompt_of(5, 1), 20),
    Ask(2, prompt_of(40, 2), 40),  # wraps around in decode
    Ask(3, prompt_of(150, 3), 20),  # and in prefill
]


@pytest.mark.parametrize("name", sorted(path.name for path in (FIXTURES / "models").iterdir()))
def test_greedy_text_of_tiny_models_equals_transformers(name: str) -> None:
    folder = FIXTURES / "models" / name
    expected = np.load(folder / "reference.npz")
    source = open_source(folder)
    engine = open_engine(
        ModelChoice(source.spec, folder, source),
        EngineConfig(slots=2, cache_length=160, chunk=32),
        frozenset(source.spec.eos_ids),
        devices=jax.devices()[:1],
        cache_dir=CACHE,
    )
    said = generate(engine, [Ask(1, expected["prompt"].tolist(), 64)], ahead=1)
    assert ids(said[1]) == expected["greedy"].tolist()


def test_greedy_text_of_smollm2_equals_transformers(smollm2_tensors: Tensors) -> None:
    """Two prompts side by side; text after the end of the answer counts too."""
    expected = np.load(FIXTURES / "smollm2_reference.npz")
    source = smollm2_tensors
    engine = open_engine(
        ModelChoice(source.spec, None, source),
        EngineConfig(slots=4, cache_length=192, chunk=32),
        frozenset({2}),
        devices=jax.devices()[:1],
        cache_dir=CACHE,
    )
    asks = [Ask(0, expected["chat"].tolist(), 64), Ask(2, expected["prompt"].tolist(), 64)]
    said = generate(engine, asks, ahead=1)
    assert ids(said[0]) == expected["chat_greedy"].tolist()
    assert ids(said[2]) == expected["prompt_greedy"].tolist()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"chunk": 5},
        {"steps": 3},
        {"slots": 8, "chunk": 64, "steps": 2},
        {"slots": 8, "devices": 8, "sharding": "batch"},
    ],
    ids=str,
)
def test_the_cut_of_the_work_changes_no_token(
    engines: Callable, tensors: dict[str, Tensors], settings: dict
) -> None:
    said = generate(engines(**settings), ASKS)
    for ask in ASKS:
        assert_greedy(tensors["llama"], ask, said[ask.slot], WINDOW)
        alone = generate(engines(**settings), [replace(ask, slot=1)], ahead=1)
        assert alone[1] == [replace(token, slot=1) for token in said[ask.slot]]


def test_a_chunk_may_be_any_part_of_the_prompt(engines: Callable) -> None:
    whole = generate(engines(), ASKS)
    for size in (1, 7, 13):
        parts = generate(engines(), ASKS, size)
        assert {slot: ids(t) for slot, t in parts.items()} == {
            slot: ids(t) for slot, t in whole.items()
        }


@pytest.mark.parametrize("name", ["many", "uneven"])
@pytest.mark.parametrize("settings", [{}, {"weights": "int8", "quantize_kv_cache": True}])
def test_sharding_the_model_changes_no_token(
    engines: Callable, tensors: dict[str, Tensors], name: str, settings: dict
) -> None:
    asks = [replace(ask, max_tokens=12) for ask in ASKS]
    source = tensors[name]
    if settings:
        source = dequantized(source)
    said = generate(engines(name, devices=8, **settings), asks)
    for ask in asks:
        bound = 0.1 if settings else 1e-3
        assert_greedy(source, ask, said[ask.slot], WINDOW, bool(settings), bound)


@pytest.mark.parametrize(("weights", "cache"), [(True, False), (False, True), (True, True)])
def test_int8_is_the_plain_model_over_rounded_values(
    engines: Callable, tensors: dict[str, Tensors], weights: bool, cache: bool
) -> None:
    engine = engines(weights="int8" if weights else "none", quantize_kv_cache=cache)
    source = dequantized(tensors["llama"]) if weights else tensors["llama"]
    said = generate(engine, ASKS, ahead=1)
    for ask in ASKS:
        assert_greedy(source, ask, said[ask.slot], WINDOW, cache, 0.1)


def dequantized(source: Tensors) -> Tensors:
    """Every matrix but the embedding as int8 gives it back."""

    def rounded(name: str, value: np.ndarray) -> np.ndarray:
        if value.ndim == 1 or "embed" in name:
            return value
        codes, scale = quantize(value)
        return codes.astype(np.float32) * scale[:, None]

    return Tensors(source.spec, {name: rounded(name, x) for name, x in source.values.items()})

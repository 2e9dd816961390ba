"""int8 costs at most half a per cent of perplexity on the real model."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import jax
import numpy as np
import pytest

from server.engine.config import EngineConfig
from server.engine.open import ModelChoice, load_engine
from server.engine.reading import Reading
from tests.cache import CACHE
from tests.models.tiny import Tensors
from tokenization import default_model_path, load_tokenizer

TEXT = Path(__file__).parents[1] / "fixtures" / "english.txt"
WINDOW, CHUNK = 1024, 512
# Weights, and whether the cache is int8.
KINDS = {"none": ("none", False), "int8 weights": ("int8", False), "int8": ("int8", True)}

Measure = Callable[[str], float]


@pytest.fixture(scope="module")
def perplexity(smollm2_tensors: Tensors) -> Measure:
    """Measures a kind once, on 1,446 tokens of plain English, as the server computes them here."""
    tokens = load_tokenizer(default_model_path()).encode(TEXT.read_text(encoding="utf-8"))
    choice = ModelChoice(smollm2_tensors.spec, None, smollm2_tensors)

    def measure(name: str) -> float:
        weights, int8_cache = KINDS[name]
        config = EngineConfig(1, WINDOW, weights=weights, quantize_kv_cache=int8_cache)
        plan, parameters = load_engine(
            choice, config, frozenset(), devices=jax.devices()[:1], cache_dir=CACHE
        )
        reading = Reading(plan.model, plan.backend, plan.mesh, parameters, WINDOW, CHUNK)
        parts = [tokens[start : start + WINDOW] for start in range(0, len(tokens), WINDOW)]
        losses = np.concatenate([reading.losses(part) for part in parts])
        assert len(losses) == 1446 - 2  # the windows' first tokens are not scored
        return float(np.exp(np.mean(losses, dtype=np.float64)))

    return cache(measure)


def test_the_measure_makes_sense(perplexity: Measure) -> None:
    """Good prose is neither random nor known by heart."""
    assert 15 < perplexity("none") < 45


@pytest.mark.parametrize("name", [pytest.param("int8 weights", marks=pytest.mark.slow), "int8"])
def test_int8_costs_at_most_half_a_per_cent(perplexity: Measure, name: str) -> None:
    """ "int8" is what `--quantize int8` serves: every matrix with the head, and the KV cache."""
    assert perplexity(name) <= 1.005 * perplexity("none")
    assert perplexity(name) != perplexity("none")

"""int8 costs at most half a per cent of perplexity on the real model."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from benchmarks.perplexity import KINDS, Score, measure
from tests.models.tiny import Tensors
from tokenization import default_model_path, load_tokenizer

TEXT = Path(__file__).parents[1] / "fixtures" / "english.txt"
CACHE = Path(__file__).parents[2] / ".cache"
BY_NAME = {kind.name: kind for kind in KINDS}


Measure = Callable[[str], Score]


@pytest.fixture(scope="module")
def score(smollm2_tensors: Tensors) -> Measure:
    """Measures a kind once, on 1,446 tokens of plain English, as the server computes them here."""
    tokens = load_tokenizer(default_model_path()).encode(TEXT.read_text(encoding="utf-8"))
    return cache(lambda name: measure(smollm2_tensors, tokens, BY_NAME[name], cache_dir=CACHE))


def test_the_measure_makes_sense(score: Measure) -> None:
    """Two windows' first tokens are not scored; good prose is neither random nor known by heart."""
    assert score("none").tokens == 1446 - 2
    assert 15 < score("none").perplexity < 45


@pytest.mark.parametrize("name", [pytest.param("int8 weights", marks=pytest.mark.slow), "int8"])
def test_int8_costs_at_most_half_a_per_cent(score: Measure, name: str) -> None:
    """ "int8" is what `--quantize int8` serves: every matrix with the head, and the KV cache."""
    assert score(name).perplexity <= 1.005 * score("none").perplexity
    assert score(name).perplexity != score("none").perplexity

"""int8 costs at most half a per cent of perplexity on the real model."""

from pathlib import Path

import pytest

from benchmarks.perplexity import KINDS, Score, measure
from tests.models.tiny import Tensors
from tokenization import default_model_path, load_tokenizer

TEXT = Path(__file__).parents[1] / "fixtures" / "english.txt"
CACHE = Path(__file__).parents[2] / ".cache"
BY_NAME = {kind.name: kind for kind in KINDS}


@pytest.fixture(scope="module")
def scores(smollm2_tensors: Tensors) -> dict[str, Score]:
    """Of 1,446 tokens of plain English, as the server computes them here."""
    tokens = load_tokenizer(default_model_path()).encode(TEXT.read_text(encoding="utf-8"))
    wanted = ("none", "int8 weights", "int8")
    return {
        name: measure(smollm2_tensors, tokens, BY_NAME[name], cache_dir=CACHE) for name in wanted
    }


def test_the_measure_makes_sense(scores: dict[str, Score]) -> None:
    """Two windows' first tokens are not scored; good prose is neither random nor known by heart."""
    assert scores["none"].tokens == 1446 - 2
    assert 15 < scores["none"].perplexity < 45


@pytest.mark.parametrize("name", ["int8 weights", "int8"])
def test_int8_costs_at_most_half_a_per_cent(scores: dict[str, Score], name: str) -> None:
    """ "int8" is what `--quantize int8` serves: every matrix with the head, and the KV cache."""
    assert scores[name].perplexity <= 1.005 * scores["none"].perplexity
    assert scores[name].perplexity != scores["none"].perplexity

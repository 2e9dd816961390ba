"""Models whose positions end, or whose attention does: nothing is kept or read beyond."""

from pathlib import Path

import jax
import numpy as np
import pytest

from server.engine.config import EngineConfig
from server.engine.engine import JaxEngine
from server.engine.open import ModelChoice, open_engine, open_source
from server.engine.protocol import Finish, PrefillChunk
from tests.cache import CACHE
from tests.engine.driving import Ask, generate, ids, prompt_of

MODELS = Path(__file__).parents[1] / "fixtures" / "models"
POSITIONS = 160  # of the learned ones


def opened(name: str, said: list[str], **settings: int) -> JaxEngine:
    """An engine on a checkpoint of the fixtures; `said` gets what it reports."""
    source = open_source(MODELS / name)
    return open_engine(
        ModelChoice(source.spec, MODELS / name, source),
        EngineConfig(**{"slots": 2, "cache_length": 512, "chunk": 32} | settings),
        frozenset(),
        devices=jax.devices()[:1],
        cache_dir=CACHE,
        report=said.append,
    )


@pytest.fixture(scope="module", params=[1, 3], ids=["step", "three steps"])
def learned(request: pytest.FixtureRequest) -> JaxEngine:
    return opened("opt", [], steps=request.param)


def test_a_request_ends_with_the_last_position(learned: JaxEngine) -> None:
    """With `length`, whatever was asked for; its neighbour goes on."""
    reference = np.load(MODELS / "opt" / "reference.npz")
    prompt = reference["prompt"].tolist()
    asks = [Ask(0, prompt, 500), Ask(1, prompt[:20], 120)]
    said = generate(learned, asks, ahead=2)
    assert len(said[0]) == POSITIONS - len(prompt) + 1 and len(said[1]) == 120
    assert ids(said[0])[:64] == reference["greedy"].tolist()
    assert said[0][-1].finish is Finish.LENGTH
    assert learned.decode().tokens() == []


def test_a_prompt_takes_all_positions_and_no_more(learned: JaxEngine) -> None:
    said = generate(learned, [Ask(0, prompt_of(POSITIONS), 9)])
    assert len(said[0]) == 1 and said[0][0].finish is Finish.LENGTH
    late = PrefillChunk(0, prompt_of(20), POSITIONS - 19, True)
    with pytest.raises(ValueError, match="a prompt of 161 tokens or more; the model has 160"):
        learned.prefill([late])
    assert learned.decode().tokens() == []


def test_a_cache_is_no_longer_than_the_positions() -> None:
    said: list[str] = []
    engine = opened("opt", said)
    assert engine.shape.cache_length == engine.shape.positions == POSITIONS
    assert "cache length 160 instead of 512: the model's positions" in said


def test_a_cache_is_no_longer_than_the_sliding_window() -> None:
    said: list[str] = []
    engine = opened("starcoder2", said)
    assert engine.shape.cache_length == 40 and engine.shape.positions is None
    assert "cache length 40 instead of 512: the model's sliding window" in said
    assert opened("starcoder2", [], cache_length=24).shape.cache_length == 24

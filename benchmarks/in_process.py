"""The engine in this process, without scheduler or server."""

from pathlib import Path

import numpy as np

from server.engine.config import EngineConfig
from server.engine.engine import DeviceStep, JaxEngine
from server.engine.open import DEFAULT_MODEL, choose_model, open_engine
from server.engine.protocol import PrefillChunk
from tokenization import default_model_path

CACHE_DIR = Path.home() / ".cache" / "loadstone"


def open_default(
    quantize: str, slots: int, cache_length: int, model: str | None = None, **settings: int
) -> JaxEngine:
    """SmolLM2, or another model with random weights, as the server would run it.

    quantize: a scheme of weights; int8 stores the KV cache so, too.
    """
    named, format_ = (DEFAULT_MODEL, "auto") if model is None else (model, "dummy")
    choice = choose_model(named, None, format_, default_model_path)
    config = EngineConfig(
        slots=slots,
        cache_length=cache_length,
        weights=quantize,
        quantize_kv_cache=quantize == "int8",
        **settings,
    )
    return open_engine(choice, config, frozenset(choice.spec.eos_ids), cache_dir=CACHE_DIR)


def random_prompts(count: int, length: int, vocab: int, seed: int = 0) -> list[list[int]]:
    """Token ids away from the special ones."""
    draw = np.random.default_rng(seed).integers(100, vocab, (count, length))
    return draw.tolist()


def prefill_all(engine: JaxEngine, prompt: int, max_tokens: int) -> list[DeviceStep]:
    """Starts reading a random prompt into every slot, each to go on for `max_tokens`."""
    shape = engine.shape
    prompts = random_prompts(shape.slots, prompt, shape.vocab)
    steps = []
    together = shape.prefill_size(prompt).rows
    for first in range(0, shape.slots, together):
        rows = range(first, min(first + together, shape.slots))
        chunks = [
            PrefillChunk(slot, prompts[slot], 0, True, max_tokens=max_tokens, ignore_eos=True)
            for slot in rows
        ]
        steps.append(engine.prefill(chunks))
    return steps

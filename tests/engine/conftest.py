"""Engines over tiny models, each set up once for the whole run."""

from collections.abc import Callable, Iterator

import jax
import pytest

from server.engine.config import EngineConfig
from server.engine.engine import JaxEngine
from server.engine.open import ModelChoice, open_engine
from tests.cache import CACHE
from tests.models.tiny import Tensors, random_tensors, tiny_spec


@pytest.fixture(scope="session")
def tensors() -> dict[str, Tensors]:
    """Models by name; "many" and "uneven" are for eight devices."""
    specs = {
        "llama": tiny_spec(),
        "many": tiny_spec(heads=8, kv_heads=8, ffn=128),
        "uneven": tiny_spec(heads=6, kv_heads=3, ffn=100, vocab=131, hidden=60),
        "opt": tiny_spec("opt", kv_heads=4, max_positions=300),
        "bloom": tiny_spec("bloom", heads=8, kv_heads=8, ffn=256),
        "starcoder2": tiny_spec("starcoder2", heads=8, kv_heads=4, sliding_window=256),
    }
    return {name: random_tensors(spec) for name, spec in specs.items()}


@pytest.fixture(scope="session")
def all_engines(tensors: dict[str, Tensors]) -> Callable[..., JaxEngine]:
    """Opens an engine or finds the one that is open."""
    opened: dict[tuple, JaxEngine] = {}

    def get(
        name: str = "llama",
        devices: int = 1,
        eos: frozenset[int] = frozenset(),
        slots: int = 4,
        cache_length: int = 64,
        chunk: int = 16,
        **settings: object,
    ) -> JaxEngine:
        config = EngineConfig(slots, cache_length, chunk, **settings)  # type: ignore[arg-type]
        key = (name, devices, eos, config)
        if key not in opened:
            source = tensors[name]
            opened[key] = open_engine(
                ModelChoice(source.spec, None, source),
                config,
                eos,
                devices=jax.devices()[:devices],
                cache_dir=CACHE,
            )
        return opened[key]

    return get


@pytest.fixture
def engines(all_engines: Callable[..., JaxEngine]) -> Iterator[Callable[..., JaxEngine]]:
    """As `all_engines`; slots that a failed test left at work are released."""
    used = []

    def get(*args: object, **kwargs: object) -> JaxEngine:
        used.append(all_engines(*args, **kwargs))
        return used[-1]

    yield get
    for engine in used:
        for slot in range(engine.shape.slots):
            engine.release(slot)

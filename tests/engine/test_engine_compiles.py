"""Nothing is compiled once an engine has started."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from server.engine.protocol import Sampling
from tests.engine.driving import Ask, Said, collect, finish, prefill, prompt_of


@contextmanager
def compiling() -> Iterator[list[str]]:
    """The tracing, lowering and compiling that happens inside."""
    events: list[str] = []

    def listen(event: str, duration: float, **_: object) -> None:
        if event.startswith("/jax/core/compile"):
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield events
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_the_counter_counts() -> None:
    with compiling() as events:
        jax.jit(lambda x: jnp.sin(x) * 3)(np.arange(7, dtype=np.float32))
    assert events


@pytest.mark.parametrize(
    "settings",
    [
        {"cache_length": 256, "chunk": 128},
        {"steps": 3},
        {"slots": 8, "devices": 8, "sharding": "batch"},
        {"name": "many", "devices": 8, "weights": "int8", "quantize_kv_cache": True},
    ],
    ids=str,
)
def test_nothing_is_compiled_in_service(engines: Callable, settings: dict) -> None:
    """Prompts of every size up to three caches, all kinds of sampling, releases, an idle step."""
    engine = engines(**settings)
    length = engine.shape.cache_length
    wild = Sampling(1.0, 5, 0.9, 3)
    with compiling() as events:
        for size in (1, 31, 32, 33, length - 1, length, length + 1, 3 * length):
            said: Said = defaultdict(list)
            asks = [
                Ask(0, prompt_of(size, 1), 9, wild),
                Ask(1, prompt_of(5, 2), 3, ignore_eos=False, logprobs=False),
                Ask(2, prompt_of(size, 3), 30, replace(wild, top_p=1.0)),
            ]
            prefill(engine, asks, said)
            collect(said, engine.decode())
            engine.release(2)
            finish(engine, said, [0, 1], ahead=1)
            engine.decode().tokens()
    assert events == []

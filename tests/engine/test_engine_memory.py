"""What a plan says of memory is what is there; what does not fit is refused before it is made."""

import re
from collections.abc import Callable
from dataclasses import replace

import jax
import pytest

from server.engine import memory
from server.engine import mesh as meshes
from server.engine.config import EngineConfig
from server.engine.engine import EnginePlan
from server.engine.memory import DoesNotFitError, MemoryPlan
from server.engine.open import HEADROOM, ModelChoice, open_engine
from server.weights.dummy import dummy_shapes
from tests.cache import CACHE
from tests.models.tiny import Tensors

INT8 = {"weights": "int8", "quantize_kv_cache": True}
BIG = EngineConfig(slots=1000, cache_length=64, chunk=16)


def held(tree: object) -> int:
    """Bytes of the arrays on the first device."""
    first = jax.devices()[0]
    shards = [leaf.addressable_shards for leaf in jax.tree.leaves(tree)]
    return sum(s.data.nbytes for parts in shards for s in parts if s.device == first)


def memory_of(plan: EnginePlan) -> MemoryPlan:
    """From shapes alone, as before loading."""
    forms, compute = plan.backend.forms, plan.backend.compute
    return plan.memory(dummy_shapes(plan.model, forms, compute, plan.mlp_blocks))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("llama", {}),
        ("llama", INT8),
        pytest.param("uneven", {"weights": "int8"}, marks=pytest.mark.slow),
        pytest.param("many", {"devices": 8}, marks=pytest.mark.slow),
        pytest.param("many", {"devices": 8, **INT8}, marks=pytest.mark.slow),
        ("uneven", {"devices": 8, **INT8}),
        ("llama", {"devices": 8, "sharding": "batch", "slots": 8}),
        ("opt", {}),
        ("bloom", {"devices": 8, **INT8}),
        ("starcoder2", {"weights": "int8", "devices": 2}),
    ],
    ids=str,
)
def test_the_plan_is_what_the_arrays_take(engines: Callable, name: str, settings: dict) -> None:
    engine = engines(name, **settings)
    plan = memory_of(engine._plan)
    assert plan.weights == held(engine._parameters)
    assert plan.cache == held(engine._cache)
    assert plan.total == plan.weights + plan.cache + plan.temporaries + plan.programs


@pytest.mark.parametrize(
    "settings",
    [
        {},
        INT8,
        pytest.param({"cache_length": 256, "chunk": 256}, marks=pytest.mark.slow),
        pytest.param({"cache_length": 256, "chunk": 64}, marks=pytest.mark.slow),
        {"cache_length": 256, "chunk": 64, "devices": 2, "sharding": "batch"},
        {"name": "many", "devices": 8, "weights": "int8", "quantize_kv_cache": True},
        {"name": "bloom", "cache_length": 256, "chunk": 256},
        {"name": "bloom", "devices": 8, "weights": "int8", "quantize_kv_cache": True},
        {"name": "starcoder2", "devices": 2, "cache_length": 256, "chunk": 64},
        {"name": "opt", "weights": "int8"},
    ],
    ids=str,
)
def test_programs_need_no_more_than_was_set_aside(engines: Callable, settings: dict) -> None:
    engine = engines(**settings)
    assert 0 < engine.temporaries <= memory_of(engine._plan).temporaries


def test_sharding_splits_what_it_can(engines: Callable) -> None:
    """An eighth of the cache and less than a quarter of the weights, norms being whole."""
    eight: EnginePlan = engines("many", devices=8)._plan
    one = replace(eight, mesh=meshes.make_mesh(jax.devices()[:1], "model"))
    assert memory_of(eight).cache == memory_of(one).cache // 8
    assert memory_of(eight).weights < memory_of(one).weights / 4


@pytest.mark.parametrize("devices", [1, 8])
def test_too_large_a_batch_is_refused_with_the_largest(
    tensors: dict[str, Tensors], monkeypatch: pytest.MonkeyPatch, devices: int
) -> None:
    """Nothing is allocated, the batch named fits, and one step more does not."""
    config = replace(BIG, sharding="batch" if devices > 1 else "model")
    choice = ModelChoice(tensors["llama"].spec, None, tensors["llama"])
    used = jax.devices()[:devices]
    # Compiled programs are to take up to 20 MiB of it, over all devices together.
    limit = (32 if devices == 1 else 8) * 2**20
    monkeypatch.setattr(memory, "free_bytes", lambda _: limit)
    before = {id(array) for array in jax.live_arrays()}
    with pytest.raises(DoesNotFitError) as caught:
        open_engine(choice, config, frozenset(), devices=used, cache_dir=CACHE)
    assert {id(array) for array in jax.live_arrays()} <= before
    message = str(caught.value)
    assert "batch 1000" in message and "cache length 64" in message and "GiB" in message
    largest = int(re.search(r"largest batch that fits is (\d+)", message)[1])
    assert largest % devices == 0 and 0 < largest < 1000
    with pytest.raises(DoesNotFitError, match=f"largest batch that fits is {largest}$"):
        open_engine(
            choice,
            replace(config, slots=largest + devices),
            frozenset(),
            devices=used,
            cache_dir=CACHE,
        )
    if devices == 1:
        engine = open_engine(
            choice, replace(config, slots=largest), frozenset(), devices=used, cache_dir=CACHE
        )
        taken = held(engine._parameters) + held(engine._cache) + held(engine._state)
        assert taken + engine.temporaries <= limit * (1 - HEADROOM)


def test_when_no_batch_fits_the_message_says_what_to_change(
    tensors: dict[str, Tensors], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda _: 1000)
    choice = ModelChoice(tensors["llama"].spec, None, tensors["llama"])
    with pytest.raises(DoesNotFitError, match="no batch fits: use int8"):
        open_engine(choice, BIG, frozenset(), devices=jax.devices()[:1], cache_dir=CACHE)
    with pytest.raises(DoesNotFitError, match="no batch fits"):
        open_engine(
            choice, None, frozenset(), devices=jax.devices()[:1], cache_dir=CACHE, cache_length=64
        )


def test_a_batch_that_devices_cannot_share_is_refused(tensors: dict[str, Tensors]) -> None:
    choice = ModelChoice(tensors["llama"].spec, None, tensors["llama"])
    config = EngineConfig(slots=12, cache_length=64, chunk=16, sharding="batch")
    with pytest.raises(ValueError, match=r"12 does not divide over the 8 devices.*multiple of 8"):
        open_engine(choice, config, frozenset(), devices=jax.devices())


def test_the_largest_batch_is_found_for_any_limit() -> None:
    """Against counting up one by one."""

    def plan_for(config: EngineConfig) -> MemoryPlan:
        return MemoryPlan(100, 7 * config.slots, 3 * config.slots)

    config = EngineConfig(slots=1)
    for granule in (1, 4):
        for limit in range(90, 700, 9):
            fits = [n for n in range(granule, 80, granule) if 100 + 10 * n <= limit]
            assert memory.largest_batch(config, plan_for, limit, granule) == max(fits, default=0)

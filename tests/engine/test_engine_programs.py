"""Programs are lowered from shapes alone, and are those that the engine runs."""

from collections.abc import Callable

import jax
import pytest

from server.engine.programs import compile_all, lowerings


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("llama", {}),
        ("llama", {"weights": "int8", "quantize_kv_cache": True}),
        ("many", {"devices": 8}),
        ("many", {"devices": 8, "sharding": "batch", "slots": 8}),
        ("uneven", {"devices": 8}),
        ("opt", {}),
        ("starcoder2", {"weights": "nf4", "devices": 2}),
    ],
    ids=str,
)
def test_shapes_are_those_of_the_arrays(engines: Callable, name: str, settings: dict) -> None:
    engine = engines(name, **settings)
    arrays, shapes = engine._parameters, engine._plan.parameter_shapes()
    assert jax.tree.structure(arrays) == jax.tree.structure(shapes)
    for array, shape in zip(jax.tree.leaves(arrays), jax.tree.leaves(shapes), strict=True):
        assert (array.shape, array.dtype) == (shape.shape, shape.dtype)
        assert array.sharding.is_equivalent_to(shape.sharding, array.ndim)


def test_the_engine_runs_what_is_listed(engines: Callable) -> None:
    engine = engines("llama")
    assert list(engine.programs) == list(lowerings(engine._plan))


def test_nothing_is_allocated(engines: Callable) -> None:
    plan = engines("llama")._plan
    before = len(jax.live_arrays())
    compile_all(plan, lambda _: None)
    assert len(jax.live_arrays()) == before

"""The bytes that planners count are those that the engine holds."""

import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest

from server.engine.backend import PLAIN, choose_backend, cpu_backend, forms_of
from server.engine.config import EngineConfig
from server.engine.engine import EnginePlan
from server.engine.memory import dispatches, tree_bytes
from server.engine.mesh import cache_sharding, make_mesh, mlp_blocks, parameter_shardings
from server.models import sizes
from server.models.catalogue import catalogue
from server.quant import kv
from server.quant.schemes import SCHEMES
from server.weights.dummy import dummy_shapes

BYTES = 2  # bfloat16
MODELS = tuple(catalogue())
SOME = ("llama2-7b", "gemma-2b", "opt-1.3b", "clm-400m")


def check_weights(name: str, scheme: str, devices: int) -> None:
    """Counted against the shapes of the accelerators' forms on a mesh."""
    model, forms = catalogue()[name], forms_of(scheme, PLAIN)
    mesh = make_mesh(jax.devices()[:devices], "model")
    shapes = dummy_shapes(model, forms, jnp.bfloat16, mlp_blocks(model, mesh))
    held = tree_bytes(shapes, parameter_shardings(model, forms, mesh))
    assert sizes.weight_bytes(model, scheme, BYTES, devices) == held


@pytest.mark.parametrize("devices", [1, 2, 8])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("scheme", ["none", "int8"])
def test_weights_are_counted_as_the_engine_shards_them(
    name: str, scheme: str, devices: int
) -> None:
    check_weights(name, scheme, devices)


@pytest.mark.parametrize("devices", [1, 2, 8])
@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("scheme", [name for name in SCHEMES if name not in ("none", "int8")])
def test_so_are_those_of_every_scheme(name: str, scheme: str, devices: int) -> None:
    check_weights(name, scheme, devices)


@pytest.mark.parametrize("devices", [1, 2, 8])
@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("quantized", [False, True])
def test_the_cache_is_counted_as_the_engine_shards_it(
    name: str, quantized: bool, devices: int
) -> None:
    model = catalogue()[name]
    mesh = make_mesh(jax.devices()[:devices], "model")
    slots, length = 4, 96

    def empty() -> tuple[kv.KV, ...]:
        dtype = None if quantized else jnp.bfloat16
        layer = kv.empty(slots, model.kv_heads, length, model.head_dim, dtype)
        return (layer,) * model.layers

    held = tree_bytes(jax.eval_shape(empty), cache_sharding(model, mesh))
    assert slots * length * sizes.position_bytes(model, quantized, BYTES, devices) == held


@pytest.mark.parametrize("sharding", ["model", "batch"])
@pytest.mark.parametrize("scheme", ["none", "int8"])
@pytest.mark.parametrize("name", SOME)
def test_a_whole_plan_is_counted_without_the_engine(name: str, scheme: str, sharding: str) -> None:
    model, quantized = catalogue()[name], scheme == "int8"
    config = EngineConfig(
        slots=16, cache_length=1000, chunk=256, weights=scheme, quantize_kv_cache=quantized,
        sharding=sharding,
    )  # fmt: skip
    mesh = make_mesh(jax.devices()[:4], sharding)
    backend = choose_backend(model, mesh, config, None)
    plan = EnginePlan(model, config, backend, mesh, frozenset())
    held = plan.memory(dummy_shapes(model, backend.forms, backend.compute, plan.mlp_blocks))
    split = mesh.shape["model"]
    assert held.weights == sizes.weight_bytes(model, scheme, 4, split)
    slots = config.slots // mesh.shape["data"]
    position = sizes.position_bytes(model, quantized, 4, split)
    assert held.cache == slots * config.cache_length * position
    assert held.temporaries == sizes.temporary_bytes(
        model, config.slots, config.cache_length, dispatches(config), 4, split
    )
    programs = len(plan.spans) + len(plan.prefills)
    assert held.programs == sizes.program_bytes(model, programs) // mesh.size


def test_programs_take_of_a_hosts_memory_alone() -> None:
    model, config = catalogue()["smollm2-135m"], EngineConfig(slots=16)
    mesh = make_mesh(jax.devices()[:1], "model")
    plan = EnginePlan(model, config, cpu_backend(config, kernel=True), mesh, frozenset())
    # A decode step, and prefill of 32, 64, .. 512 tokens.
    assert plan.memory(plan.parameter_shapes()).programs == sizes.program_bytes(model, 6) > 0
    elsewhere = replace(plan, backend=replace(plan.backend, on_host=False))
    assert elsewhere.memory(plan.parameter_shapes()).programs == 0


@pytest.mark.parametrize("name", MODELS)
def test_parameters_are_the_matrices_tables_and_vectors(name: str) -> None:
    model = catalogue()[name]
    layers = model.layers * sum(each.weights for each in sizes.layer_matrices(model))
    rest = model.parameters - layers - model.vocab * model.hidden * (1 if model.tied else 2)
    # Norms, biases and learned positions: less than a hundredth of anything but the smallest.
    assert 0 < rest < 0.01 * model.parameters


def test_largest_fitting_is_the_last_that_fits() -> None:
    for most, granule in itertools.product((0, 1, 7, 8, 9, 1000), (1, 4)):
        found = sizes.largest_fitting(lambda count, most=most: count <= most, granule)
        assert found == most // granule * granule

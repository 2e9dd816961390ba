"""The bytes that planners count are those that the engine holds."""

import itertools

import jax
import jax.numpy as jnp
import pytest

from server.engine.memory import tree_bytes
from server.engine.mesh import cache_sharding, make_mesh, mlp_blocks, parameter_shardings
from server.models import sizes
from server.models.catalogue import catalogue
from server.quant import kv
from server.quant.dense import DenseForm
from server.quant.int8 import Int8, Int8Form
from server.weights.dummy import dummy_shapes

BYTES = 2  # bfloat16
FORMS = {"none": DenseForm(jnp.bfloat16), "int8": Int8Form(Int8)}
MODELS = tuple(catalogue())


@pytest.mark.parametrize("devices", [1, 2, 8])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("scheme", FORMS)
def test_weights_are_counted_as_the_engine_shards_them(
    name: str, scheme: str, devices: int
) -> None:
    model, form = catalogue()[name], FORMS[scheme]
    mesh = make_mesh(jax.devices()[:devices], "model")
    shapes = dummy_shapes(model, form, jnp.bfloat16, mlp_blocks(model, mesh))
    held = tree_bytes(shapes, parameter_shardings(model, form, mesh))
    assert sizes.weight_bytes(model, scheme, BYTES, devices) == held


@pytest.mark.parametrize("devices", [1, 2, 8])
@pytest.mark.parametrize("name", ["llama2-7b", "gemma-2b", "clm-400m"])
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

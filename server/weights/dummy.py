"""Random weights, made on the device already quantized and sharded."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from server.models.parameters import Layer, Parameters, WeightShapes
from server.models.spec import ModelSpec
from server.quant.weight import Form

Report = Callable[[int, int], None]


def dummy_shapes(spec: ModelSpec, form: Form, compute: Any, blocks: int) -> Parameters:
    """The shapes and types of the parameters, nothing allocated."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    ends = jax.eval_shape(lambda k: _ends(spec, form, compute, k), key)
    layer = jax.eval_shape(lambda k: _layer(spec, form, compute, blocks, k), key)
    return Parameters(ends.embedding, (layer,) * spec.layers, ends.final_norm, ends.head)


def dummy_parameters(
    spec: ModelSpec,
    form: Form,
    compute: Any,
    shardings: Parameters,
    blocks: int,
    seed: int = 0,
    report: Report = lambda done, of: None,
) -> Parameters:
    """Weights with the spread of a trained model. One layer is compiled once and run for each."""
    key = jax.random.key(seed)
    build = jax.jit(
        lambda k: _layer(spec, form, compute, blocks, k), out_shardings=shardings.layers[0]
    )
    layers = []
    for index in range(spec.layers):
        layers.append(jax.block_until_ready(build(jax.random.fold_in(key, index))))
        report(index + 1, spec.layers)
    ends = jax.jit(
        lambda k: _ends(spec, form, compute, k),
        out_shardings=Parameters(shardings.embedding, (), shardings.final_norm, shardings.head),
    )(jax.random.fold_in(key, spec.layers))
    return Parameters(ends.embedding, tuple(layers), ends.final_norm, ends.head)


def _ends(spec: ModelSpec, form: Form, compute: Any, key: jax.Array) -> Parameters:
    first, second = jax.random.split(key)
    embedding = jax.random.normal(first, (spec.vocab, spec.hidden), compute) * 0.02
    return Parameters(
        embedding.astype(compute),
        (),
        jnp.ones(spec.hidden, compute),
        form.random(second, (spec.vocab,), spec.hidden),
    )


def _layer(spec: ModelSpec, form: Form, compute: Any, blocks: int, key: jax.Array) -> Layer:
    keys = jax.random.split(key, 4)
    sizes = WeightShapes(spec, blocks)
    return Layer(
        attention_norm=jnp.ones(spec.hidden, compute),
        qkv=form.random(keys[0], sizes.qkv, spec.hidden),
        qkv_bias=jnp.zeros(sizes.qkv, compute) if spec.qkv_bias else None,
        out=form.random(keys[1], sizes.hidden, spec.heads * spec.head_dim),
        mlp_norm=jnp.ones(spec.hidden, compute),
        gate_up=form.random(keys[2], sizes.gate_up, spec.hidden),
        down=form.random(keys[3], sizes.hidden, spec.ffn),
    )

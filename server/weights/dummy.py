"""Random weights, made on the device already quantized and sharded."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from server.models.parameters import Layer, Norm, Parameters, WeightShapes
from server.models.spec import ModelSpec
from server.quant.weight import Form, Forms

ROWS_AT_ONCE = 1024

Report = Callable[[int, int], None]


def dummy_shapes(spec: ModelSpec, forms: Forms, compute: Any, blocks: int) -> Parameters:
    """The shapes and types of the parameters, nothing allocated."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    ends = jax.eval_shape(lambda k: _ends(spec, forms.head, compute, k), key)
    layer = jax.eval_shape(lambda k: _layer(spec, forms.layers, compute, blocks, k), key)
    return replace(ends, layers=(layer,) * spec.layers)


def dummy_parameters(
    spec: ModelSpec,
    forms: Forms,
    compute: Any,
    shardings: Parameters,
    blocks: int,
    seed: int = 0,
    report: Report = lambda done, of: None,
) -> Parameters:
    """Weights with the spread of a trained model. One layer is compiled once and run for each."""
    key = jax.random.key(seed)
    build = jax.jit(
        lambda k: _layer(spec, forms.layers, compute, blocks, k), out_shardings=shardings.layers[0]
    )
    layers = []
    for index in range(spec.layers):
        layers.append(jax.block_until_ready(build(jax.random.fold_in(key, index))))
        report(index + 1, spec.layers)
    ends = jax.jit(
        lambda k: _ends(spec, forms.head, compute, k),
        out_shardings=replace(shardings, layers=()),
    )(jax.random.fold_in(key, spec.layers))
    return replace(ends, layers=tuple(layers))


def _ends(spec: ModelSpec, form: Form, compute: Any, key: jax.Array) -> Parameters:
    keys = jax.random.split(key, 3)

    learned = spec.positions == "learned"
    return Parameters(
        embedding=_table(keys[0], spec.vocab, spec.hidden, compute),
        positions=_table(keys[1], spec.max_positions, spec.hidden, compute) if learned else None,
        embedding_norm=_norm(spec) if spec.embedding_norm else None,
        layers=(),
        final_norm=_norm(spec),
        head=form.random(keys[2], (spec.vocab,), spec.hidden),
    )


def _table(key: jax.Array, rows: int, width: int, compute: Any) -> jax.Array:
    """Rows of standard deviation 0.02, some at a time: drawing takes three times what it gives."""
    some = min(rows, ROWS_AT_ONCE)

    def put(index: jax.Array, table: jax.Array) -> jax.Array:
        drawn = jax.random.normal(jax.random.fold_in(key, index), (some, width), compute) * 0.02
        # Where fewer rows are left it begins so much earlier.
        return lax.dynamic_update_slice(table, drawn.astype(compute), (index * some, 0))

    return lax.fori_loop(0, -(-rows // some), put, jnp.zeros((rows, width), compute))


def _layer(spec: ModelSpec, form: Form, compute: Any, blocks: int, key: jax.Array) -> Layer:
    keys = jax.random.split(key, 4)
    sizes = WeightShapes(spec, blocks)

    def bias(has: bool, shape: tuple[int, ...]) -> jax.Array | None:
        return jnp.zeros(shape, compute) if has else None

    return Layer(
        attention_norm=_norm(spec),
        qkv=form.random(keys[0], sizes.qkv, spec.hidden),
        qkv_bias=bias(spec.qkv_bias, sizes.qkv),
        out=form.random(keys[1], sizes.hidden, spec.heads * spec.head_dim),
        out_bias=bias(spec.out_bias, sizes.hidden),
        mlp_norm=_norm(spec),
        gate_up=form.random(keys[2], sizes.gate_up, spec.hidden),
        gate_up_bias=bias(spec.mlp_bias, sizes.gate_up),
        down=form.random(keys[3], sizes.hidden, spec.ffn),
        down_bias=bias(spec.mlp_bias, sizes.hidden),
    )


def _norm(spec: ModelSpec) -> Norm:
    bias = jnp.zeros(spec.hidden, jnp.float32) if spec.norm == "layer" else None
    return Norm(jnp.ones(spec.hidden, jnp.float32), bias)

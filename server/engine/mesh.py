"""Devices as a mesh that always exists, and what each array does on it.

Two axes: "data" splits the slots, "model" splits heads, the MLP and the vocabulary. `model`
sharding is a mesh of (1, n), `batch` sharding one of (n, 1), a single device (1, 1): nothing else
differs.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from server.models.parameters import Layer, Norm, Parameters, WeightShapes
from server.models.spec import ModelSpec
from server.quant.weight import Form, Forms
from server.quant.weight import spec as partition_spec

SHARDINGS = ("model", "batch")


def make_mesh(devices: Sequence[jax.Device], sharding: str) -> Mesh:
    """All devices on one of the two axes."""
    if sharding not in SHARDINGS:
        raise ValueError(f"sharding is {sharding!r}; allowed: {', '.join(SHARDINGS)}")
    shape = (1, len(devices)) if sharding == "model" else (len(devices), 1)
    return Mesh(np.asarray(devices).reshape(shape), ("data", "model"), (AxisType.Auto,) * 2)


def parameter_shardings(model: ModelSpec, forms: Forms, mesh: Mesh) -> Parameters:
    """A NamedSharding for each leaf of the parameters.

    An axis that the devices do not divide evenly is kept whole on each of them. Inputs that they
    cannot share in whole blocks stay together, too: outputs are split in their place.
    """
    form = forms.layers
    heads = _model_axis(model.kv_heads, mesh)
    inner = _model_axis(model.ffn, mesh)
    sizes = WeightShapes(model, mlp_blocks(model, mesh))
    table: Any = partition_spec(None, _model_axis(model.hidden, mesh))
    everywhere: Any = partition_spec()
    norm = Norm(everywhere, everywhere if model.norm == "layer" else None)

    def bias(has: bool, axis: str | None) -> Any:
        return partition_spec(axis) if has else None

    # Products over split inputs are summed over the devices; their biases are added to the sum.
    layer = Layer(
        attention_norm=norm,
        qkv=form.partition(sizes.qkv, heads, None),
        qkv_bias=bias(model.qkv_bias, heads),
        out=form.partition(sizes.hidden, *_input_split(model, "out", form, mesh)),
        out_bias=bias(model.out_bias, None),
        mlp_norm=norm,
        gate_up=form.partition(sizes.gate_up, inner, None),
        gate_up_bias=bias(model.mlp_bias, inner),
        down=form.partition(sizes.hidden, *_input_split(model, "down", form, mesh)),
        down_bias=bias(model.mlp_bias, None),
    )
    specs = Parameters(
        embedding=table,
        positions=table if model.positions == "learned" else None,
        embedding_norm=norm if model.embedding_norm else None,
        layers=(layer,) * model.layers,
        final_norm=norm,
        head=forms.head.partition(sizes.head, _model_axis(model.vocab, mesh), None),
    )
    return jax.tree.map(
        lambda axes: NamedSharding(mesh, axes),
        specs,
        is_leaf=lambda leaf: isinstance(leaf, PartitionSpec),
    )


def moved_splits(model: ModelSpec, forms: Forms, mesh: Mesh) -> list[str]:
    """Weights whose outputs are split, or which are whole, for the sake of whole blocks of inputs;
    a notice to the user."""
    form, notices = forms.layers, []
    for name, (inputs, heads) in _input_sizes(model).items():
        rows, columns = _input_split(model, name, form, mesh)
        if _model_axis(heads, mesh) and mesh.shape["model"] > 1 and columns is None:
            how = "split by outputs" if rows else "whole on each"
            notices.append(f"{name} ({inputs} inputs in blocks of {form.block}) is {how}")
    return notices


def mlp_blocks(model: ModelSpec, mesh: Mesh) -> int:
    """The blocks that gate and up alternate in: one for each device that shares the MLP."""
    return mesh.shape["model"] if _model_axis(model.ffn, mesh) else 1


def cache_sharding(model: ModelSpec, mesh: Mesh) -> NamedSharding:
    """For every array of the cache: slots over "data", key/value heads over "model"."""
    return NamedSharding(mesh, PartitionSpec("data", _model_axis(model.kv_heads, mesh)))


def slot_sharding(mesh: Mesh) -> NamedSharding:
    """For per-slot state, [slots, ..]."""
    return NamedSharding(mesh, PartitionSpec("data"))


def whole(mesh: Mesh) -> NamedSharding:
    """A copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def whole_hidden(mesh: Mesh, x: Float[Array, "N T D"]) -> Float[Array, "N T D"]:
    """Keeps all of D on every device that has the row.

    Left to itself XLA keeps D split as it comes from the table, and gathers it for each product in
    a chain of permutes: Llama-2-7B's step for v5e-8 had 873 of them and 99 all-reduces, not 66.
    """
    free = PartitionSpec.UNCONSTRAINED
    return lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec(free, free, None)))


def uneven_axes(model: ModelSpec, mesh: Mesh) -> list[str]:
    """What stays whole on each device for not dividing evenly, for a notice to the user."""
    sizes = {"kv_heads": model.kv_heads, "ffn": model.ffn, "vocab": model.vocab}
    return [f"{name} {size}" for name, size in sizes.items() if size % mesh.shape["model"]]


def _input_sizes(model: ModelSpec) -> dict[str, tuple[int, int]]:
    """Of the weights over split inputs: how many there are, and of what devices take whole ones."""
    return {"out": (model.heads * model.head_dim, model.kv_heads), "down": (model.ffn, model.ffn)}


def _input_split(
    model: ModelSpec, name: str, form: Form, mesh: Mesh
) -> tuple[str | None, str | None]:
    """The mesh axes of the outputs and of the inputs, at most one of them split."""
    inputs, shared = _input_sizes(model)[name]
    axis = _model_axis(shared, mesh)
    if axis is None or inputs // mesh.shape["model"] % form.block == 0:
        return None, axis
    return _model_axis(model.hidden, mesh), None


def _model_axis(size: int, mesh: Mesh) -> str | None:
    return "model" if size % mesh.shape["model"] == 0 else None

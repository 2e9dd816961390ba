"""A source of tensors -> parameters on the devices, fused, quantized and sharded one by one."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from server.models.parameters import Layer, Norm, Parameters
from server.models.spec import ModelSpec
from server.quant.weight import Form, Forms
from server.weights.checkpoint import Checkpoint
from server.weights.source import Source

Report = Callable[[int, int], None]


def load_parameters(
    source: Source,
    spec: ModelSpec,
    forms: Forms,
    compute: Any,
    shardings: Parameters,
    blocks: int,
    report: Report = lambda done, of: None,
) -> Parameters:
    """Reads every tensor; the host holds one fused weight in float32 at a time.

    `shardings` has the shape of the result; `blocks` as in WeightShapes. `report(layers done,
    layers)` follows progress.
    CheckpointError names a tensor that is missing, misshapen or not known.
    """
    put = _Put(forms.layers, compute)
    checkpoint = Checkpoint(source, spec, blocks)
    embedding = put.array(checkpoint.embedding(), shardings.embedding)
    head = _Put(forms.head, compute).weight(checkpoint.head(), shardings.head)
    positions = put.array(checkpoint.positions(), shardings.positions)
    layers = []
    for index in range(spec.layers):
        layers.append(_read_layer(checkpoint, put, shardings.layers[index], index))
        report(index + 1, spec.layers)
    return Parameters(
        embedding=embedding,
        positions=positions,
        embedding_norm=put.norm(checkpoint.embedding_norm(), shardings.embedding_norm),
        layers=tuple(layers),
        final_norm=put.norm(checkpoint.final_norm(), shardings.final_norm),
        head=head,
    )


def _read_layer(checkpoint: Checkpoint, put: "_Put", places: Layer, index: int) -> Layer:
    return Layer(
        attention_norm=put.norm(checkpoint.attention_norm(index), places.attention_norm),
        qkv=put.weight(checkpoint.qkv(index), places.qkv),
        qkv_bias=put.array(checkpoint.qkv_bias(index), places.qkv_bias),
        out=put.weight(checkpoint.out(index), places.out),
        out_bias=put.array(checkpoint.out_bias(index), places.out_bias),
        mlp_norm=put.norm(checkpoint.mlp_norm(index), places.mlp_norm),
        gate_up=put.weight(checkpoint.gate_up(index), places.gate_up),
        gate_up_bias=put.array(checkpoint.gate_up_bias(index), places.gate_up_bias),
        down=put.weight(checkpoint.down(index), places.down),
        down_bias=put.array(checkpoint.down_bias(index), places.down_bias),
    )


class _Put:
    """Puts what was read on the devices, in the form it is computed with."""

    def __init__(self, form: Form, compute: Any) -> None:
        self._form = form
        self._compute = compute

    def weight(self, w: np.ndarray, place: Any) -> Any:
        return jax.device_put(self._form.pack(w), place)

    def array(self, x: np.ndarray | None, place: Any) -> Any:
        if x is None:
            return None
        return jax.device_put(x.astype(self._compute, copy=False), place)

    def norm(self, values: tuple[np.ndarray, np.ndarray | None] | None, place: Any) -> Any:
        return None if values is None else jax.device_put(Norm(*values), place)  # type: ignore[arg-type]

"""A source of tensors -> parameters on the devices, fused, quantized and sharded layer by layer."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from server.models.parameters import Layer, Parameters
from server.models.spec import ModelSpec
from server.quant.weight import Form
from server.weights.source import CheckpointError, Source, checked

Report = Callable[[int, int], None]


def load_parameters(
    source: Source,
    spec: ModelSpec,
    form: Form,
    compute: Any,
    shardings: Parameters,
    blocks: int,
    report: Report = lambda done, of: None,
) -> Parameters:
    """Reads every tensor once; the host holds one layer in float32 at most.

    `shardings` has the shape of the result; `blocks` as in WeightShapes. `report(layers done,
    layers)` follows progress.
    CheckpointError names a tensor that is missing, misshapen or not known.
    """
    _check_names(source, spec)
    embedding = checked(source, "model.embed_tokens.weight", (spec.vocab, spec.hidden))
    head = embedding
    if not spec.tied:
        head = checked(source, "lm_head.weight", (spec.vocab, spec.hidden))
    placed_head = _place(form.pack(head), shardings.head)
    placed_embedding = _place(embedding.astype(compute), shardings.embedding)
    del head, embedding
    layers = []
    for index in range(spec.layers):
        layer = _read_layer(source, spec, form, compute, blocks, index)
        layers.append(_place(layer, shardings.layers[index]))
        report(index + 1, spec.layers)
    norm = checked(source, "model.norm.weight", (spec.hidden,)).astype(compute)
    return Parameters(
        placed_embedding, tuple(layers), _place(norm, shardings.final_norm), placed_head
    )


def _place(values: Any, shardings: Any) -> Any:
    return jax.device_put(values, shardings)


def _read_layer(
    source: Source, spec: ModelSpec, form: Form, compute: Any, blocks: int, index: int
) -> Layer:
    def read(name: str, *shape: int) -> np.ndarray:
        return checked(source, f"model.layers.{index}.{name}", shape)

    hidden, size = spec.hidden, spec.head_dim
    queries, keys = spec.heads * size, spec.kv_heads * size
    qkv = fuse_qkv(
        spec,
        read("self_attn.q_proj.weight", queries, hidden),
        read("self_attn.k_proj.weight", keys, hidden),
        read("self_attn.v_proj.weight", keys, hidden),
    )
    bias = None
    if spec.qkv_bias:
        parts = zip(("q", "k", "v"), (queries, keys, keys), strict=True)
        bias = fuse_qkv(spec, *(read(f"self_attn.{n}_proj.bias", width) for n, width in parts))
    halves = [read(f"mlp.{name}_proj.weight", spec.ffn, hidden) for name in ("gate", "up")]
    gate_up = np.stack([half.reshape(blocks, -1, hidden) for half in halves], axis=1)
    return Layer(
        attention_norm=read("input_layernorm.weight", hidden).astype(compute),  # type: ignore[arg-type]
        qkv=form.pack(qkv),
        qkv_bias=None if bias is None else bias.astype(compute),  # type: ignore[arg-type]
        out=form.pack(read("self_attn.o_proj.weight", hidden, queries)),
        mlp_norm=read("post_attention_layernorm.weight", hidden).astype(compute),  # type: ignore[arg-type]
        gate_up=form.pack(gate_up),
        down=form.pack(read("mlp.down_proj.weight", hidden, spec.ffn)),
    )


def fuse_qkv(spec: ModelSpec, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """q [K*G*H, ..], k and v [K*H, ..] -> [K, G+2, H, ..]."""
    rest = q.shape[1:]

    def heads(x: np.ndarray, count: int) -> np.ndarray:
        return x.reshape(spec.kv_heads, count, spec.head_dim, *rest)

    return np.concatenate([heads(q, spec.group), heads(k, 1), heads(v, 1)], axis=1)


def _check_names(source: Source, spec: ModelSpec) -> None:
    extra = source.names() - _model_names(spec)
    extra = {name for name in extra if not name.endswith("rotary_emb.inv_freq")}
    if spec.tied:
        extra.discard("lm_head.weight")
    if extra:
        shown = ", ".join(sorted(extra)[:5])
        raise CheckpointError(
            f"{source.spec.name}: {len(extra)} tensors do not belong to this model: {shown}"
        )


def _model_names(spec: ModelSpec) -> set[str]:
    names = {"model.embed_tokens.weight", "model.norm.weight"}
    if not spec.tied:
        names.add("lm_head.weight")
    for index in range(spec.layers):
        layer = f"model.layers.{index}"
        names |= {
            f"{layer}.{part}.weight" for part in ("input_layernorm", "post_attention_layernorm")
        }
        names |= {f"{layer}.mlp.{part}_proj.weight" for part in ("gate", "up", "down")}
        names.add(f"{layer}.self_attn.o_proj.weight")
        kinds = ["weight", "bias"] if spec.qkv_bias else ["weight"]
        names |= {f"{layer}.self_attn.{p}_proj.{kind}" for p in "qkv" for kind in kinds}
    return names

"""The model once more, in NumPy and double precision: whole prompt, explicit mask, no cache.

It shares nothing with the server's code but ModelSpec and the tensors' names.
"""

import math

import numpy as np

from server.models.spec import ModelSpec
from tests.models.tiny import Tensors


def plain_logits(
    source: Tensors, tokens: list[int], window: int | None = None, int8_kv: bool = False
) -> np.ndarray:
    """[T,V] logits of every position; each token sees the last `window` ones, itself included.

    `int8_kv` rounds every key and value vector to 127 steps of its largest value first.
    """
    spec = source.spec
    weight = {name: value.astype(np.float64) for name, value in source.values.items()}
    count = len(tokens)
    rows, columns = np.arange(count)[:, None], np.arange(count)[None]
    sees = (columns <= rows) & (columns > rows - (window or count))
    x = weight["model.embed_tokens.weight"][list(tokens)]
    for index in range(spec.layers):
        layer = {
            name.split(".", 3)[3]: value
            for name, value in weight.items()
            if name.startswith(f"model.layers.{index}.")
        }
        normed = _norm(x, layer["input_layernorm.weight"], spec.norm_eps)
        x = x + _attention(spec, layer, normed, sees, int8_kv)
        normed = _norm(x, layer["post_attention_layernorm.weight"], spec.norm_eps)
        gate = normed @ layer["mlp.gate_proj.weight"].T
        up = normed @ layer["mlp.up_proj.weight"].T
        x = x + (gate / (1 + np.exp(-gate)) * up) @ layer["mlp.down_proj.weight"].T
    x = _norm(x, weight["model.norm.weight"], spec.norm_eps)
    head = "model.embed_tokens.weight" if spec.tied else "lm_head.weight"
    return x @ weight[head].T


def _attention(
    spec: ModelSpec, layer: dict, x: np.ndarray, sees: np.ndarray, int8_kv: bool
) -> np.ndarray:
    def heads(name: str, count: int) -> np.ndarray:
        y = x @ layer[f"self_attn.{name}_proj.weight"].T
        y = y + layer.get(f"self_attn.{name}_proj.bias", 0.0)
        return y.reshape(len(x), count, spec.head_dim)

    q = _rotate(spec, heads("q", spec.heads))
    k = _rotate(spec, heads("k", spec.kv_heads))
    v = heads("v", spec.kv_heads)
    if int8_kv:
        k, v = _rounded(k), _rounded(v)
    out = []
    for head in range(spec.heads):
        mine = head * spec.kv_heads // spec.heads
        scores = q[:, head] @ k[:, mine].T / math.sqrt(spec.head_dim)
        scores = np.where(sees, scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        out.append(weights / weights.sum(-1, keepdims=True) @ v[:, mine])
    return np.concatenate(out, -1) @ layer["self_attn.o_proj.weight"].T


def _rounded(x: np.ndarray) -> np.ndarray:
    scale = np.abs(x).max(-1, keepdims=True) / 127
    return np.rint(x / scale) * scale


def _norm(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def _rotate(spec: ModelSpec, x: np.ndarray) -> np.ndarray:
    half = spec.head_dim // 2
    out = np.empty_like(x)
    for pair in range(half):
        angle = np.arange(len(x))[:, None] * frequency(spec, pair)
        a, b = x[..., pair], x[..., pair + half]
        out[..., pair] = a * np.cos(angle) - b * np.sin(angle)
        out[..., pair + half] = b * np.cos(angle) + a * np.sin(angle)
    return out


def frequency(spec: ModelSpec, pair: int) -> float:
    """Radians per position of one pair, Llama 3.1's scaling told by wavelength."""
    plain = spec.rope_theta ** (-2 * pair / spec.head_dim)
    if spec.rope_factors is not None:
        return plain / spec.rope_factors[pair]
    scaling = spec.rope_scaling
    if scaling is None:
        return plain
    wave = 2 * math.pi / plain
    longest = scaling.original_positions / scaling.low_frequency_factor
    shortest = scaling.original_positions / scaling.high_frequency_factor
    if wave < shortest:
        return plain
    if wave > longest:
        return plain / scaling.factor
    share = (scaling.original_positions / wave - scaling.low_frequency_factor) / (
        scaling.high_frequency_factor - scaling.low_frequency_factor
    )
    return (1 - share) * plain / scaling.factor + share * plain

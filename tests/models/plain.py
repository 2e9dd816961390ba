"""The model once more, in NumPy and double precision: whole prompt, explicit mask, no cache.

It shares nothing with the server's code but ModelSpec and the tensors' names.
"""

import math

import numpy as np

from server.models.spec import ModelSpec
from tests.models.tiny import Tensors

LLAMA = {
    "start": "model.",
    "embedding": "embed_tokens",
    "layer": "layers",
    "first_norm": "input_layernorm",
    "out": "self_attn.o_proj",
    "second_norm": "post_attention_layernorm",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
    "last_norm": "norm",
}
NAMES = {
    "starcoder2": LLAMA | {"up": "mlp.c_fc", "down": "mlp.c_proj"},
    "opt": LLAMA
    | {
        "start": "model.decoder.",
        "first_norm": "self_attn_layer_norm",
        "out": "self_attn.out_proj",
        "second_norm": "final_layer_norm",
        "up": "fc1",
        "down": "fc2",
        "last_norm": "final_layer_norm",
    },
    "bloom": LLAMA
    | {
        "start": "transformer.",
        "embedding": "word_embeddings",
        "layer": "h",
        "out": "self_attention.dense",
        "up": "mlp.dense_h_to_4h",
        "down": "mlp.dense_4h_to_h",
        "last_norm": "ln_f",
    },
}


def plain_logits(
    source: Tensors, tokens: list[int], window: int | None = None, int8_kv: bool = False
) -> np.ndarray:
    """[T,V] logits of every position; each token sees the last `window` ones, itself included.

    `int8_kv` rounds every key and value vector to 127 steps of its largest value first.
    """
    spec = source.spec
    names = NAMES.get(spec.family, LLAMA)
    weight = {name: value.astype(np.float64) for name, value in source.values.items()}
    part = {
        name.removeprefix(names["start"]): value
        for name, value in weight.items()
        if name.startswith(names["start"])
    }
    count = len(tokens)
    rows, columns = np.arange(count)[:, None], np.arange(count)[None]
    window = min(window or count, spec.sliding_window or count)
    sees = (columns <= rows) & (columns > rows - window)
    embedding = part[f"{names['embedding']}.weight"]
    x = embedding[list(tokens)]
    if spec.family == "gemma":
        x = x * math.sqrt(spec.hidden)
    if spec.family == "opt":
        x = x + part["embed_positions.weight"][2 : 2 + count]
    if spec.family == "bloom":
        x = _norm(spec, part, "word_embeddings_layernorm", x)
    for index in range(spec.layers):
        start = f"{names['layer']}.{index}."
        layer = {k.removeprefix(start): v for k, v in part.items() if k.startswith(start)}
        normed = _norm(spec, layer, names["first_norm"], x)
        heads = _attention(spec, layer, normed, sees, int8_kv)
        x = x + _linear(layer, names["out"], heads)
        normed = _norm(spec, layer, names["second_norm"], x)
        inner = _linear(layer, names["up"], normed)
        if f"{names['gate']}.weight" in layer:
            inner = inner * _activation(spec, _linear(layer, names["gate"], normed))
        else:
            inner = _activation(spec, inner)
        x = x + _linear(layer, names["down"], inner)
    x = _norm(spec, part, names["last_norm"], x)
    return x @ (embedding if spec.tied else weight["lm_head.weight"]).T


def _linear(layer: dict, name: str, x: np.ndarray) -> np.ndarray:
    return x @ layer[f"{name}.weight"].T + layer.get(f"{name}.bias", 0.0)


def _activation(spec: ModelSpec, x: np.ndarray) -> np.ndarray:
    if spec.family == "opt":
        return np.maximum(x, 0)
    if spec.family in ("gemma", "starcoder2", "bloom"):
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return x / (1 + np.exp(-x))


def _attention(
    spec: ModelSpec, layer: dict, x: np.ndarray, sees: np.ndarray, int8_kv: bool
) -> np.ndarray:
    def heads(name: str, count: int) -> np.ndarray:
        return _linear(layer, f"self_attn.{name}_proj", x).reshape(len(x), count, spec.head_dim)

    if spec.family == "bloom":
        fused = _linear(layer, "self_attention.query_key_value", x)
        q, k, v = np.moveaxis(fused.reshape(len(x), spec.heads, 3, spec.head_dim), 2, 0)
    else:
        q, k, v = heads("q", spec.heads), heads("k", spec.kv_heads), heads("v", spec.kv_heads)
    if spec.family not in ("opt", "bloom"):
        q, k = _rotate(spec, q), _rotate(spec, k)
    if int8_kv:
        k, v = _rounded(k), _rounded(v)
    slopes = alibi(spec.heads) if spec.family == "bloom" else [0.0] * spec.heads
    distance = np.arange(len(x))[:, None] - np.arange(len(x))
    out = []
    for head in range(spec.heads):
        mine = head * spec.kv_heads // spec.heads
        scores = q[:, head] @ k[:, mine].T / math.sqrt(spec.head_dim) - slopes[head] * distance
        scores = np.where(sees, scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        out.append(weights / weights.sum(-1, keepdims=True) @ v[:, mine])
    return np.concatenate(out, -1)


def alibi(heads: int) -> list[float]:
    """A slope for each head: 2**(-8/n), its square and so on; see server.models.alibi."""
    even = 1
    while 2 * even <= heads:
        even *= 2
    more = [0.5 ** (8 / (2 * even) * (2 * i + 1)) for i in range(heads - even)]
    return [0.5 ** (8 / even * (i + 1)) for i in range(even)] + more


def _rounded(x: np.ndarray) -> np.ndarray:
    scale = np.abs(x).max(-1, keepdims=True) / 127
    return np.rint(x / scale) * scale


def _norm(spec: ModelSpec, weights: dict, name: str, x: np.ndarray) -> np.ndarray:
    weight, bias = weights[f"{name}.weight"], weights.get(f"{name}.bias")
    if spec.family == "gemma":
        weight = weight + 1
    if bias is not None:
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(
            x.var(-1, keepdims=True) + spec.norm_eps
        ) * weight + bias
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + spec.norm_eps) * weight


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

"""BLOOM: ALiBi, a norm behind the embedding, layer norms, biases and a plain GELU MLP."""

from typing import Any

from server.models.config import Config
from server.models.family import Family
from server.models.tensors import TensorNames


def read(config: Config) -> dict[str, Any]:
    """A `BloomForCausalLM` config. Its context is told as seq_length, if at all."""
    hidden = config.get("n_embed") or config.need("hidden_size")[0]
    layers = config.get("n_layer") or config.need("num_hidden_layers")[0]
    heads = config.get("n_head") or config.need("num_attention_heads")[0]
    (vocab,) = config.need("vocab_size")
    config.only("apply_residual_connection_post_layernorm", False)
    return {
        "hidden": hidden,
        "layers": layers,
        "heads": heads,
        "kv_heads": heads,
        "head_dim": config.head_dim(hidden, heads),
        "ffn": 4 * hidden,
        "vocab": vocab,
        "max_positions": config.get("seq_length", 2048),
        "norm_eps": config.get("layer_norm_epsilon", 1e-5),
        "tied": config.get("tie_word_embeddings", True),
        **config.ends(),
    }


FAMILY = Family(
    "bloom",
    "BloomForCausalLM",
    read,
    {
        "norm": "layer",
        "activation": "gelu-tanh",
        "gated": False,
        "positions": "alibi",
        "qkv_bias": True,
        "out_bias": True,
        "mlp_bias": True,
        "embedding_norm": True,
    },
    TensorNames(
        prefixes=("transformer.", ""),
        embedding="word_embeddings",
        embedding_norm="word_embeddings_layernorm",
        layer="h.{}.",
        qkv=("self_attention.query_key_value",),
        out="self_attention.dense",
        gate_up=("mlp.dense_h_to_4h",),
        down="mlp.dense_4h_to_h",
        final_norm="ln_f",
    ),
)

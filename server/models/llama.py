"""Llama 2, 3, 3.1, and those that kept its shape (SmolLM2, CLM)."""

from typing import Any

from server.models.config import Config
from server.models.family import Family


def read(config: Config) -> dict[str, Any]:
    """A `LlamaForCausalLM` config."""
    config.only("attention_bias", False)
    config.only("mlp_bias", False)
    config.only("hidden_act", "silu")
    return read_common(config)


def read_common(config: Config) -> dict[str, Any]:
    """The keys that Llama and its relatives share."""
    hidden, layers, heads, ffn, vocab = config.need(
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "vocab_size",
    )
    return {
        "hidden": hidden,
        "layers": layers,
        "heads": heads,
        "kv_heads": config.get("num_key_value_heads", heads),
        "head_dim": config.head_dim(hidden, heads),
        "ffn": ffn,
        "vocab": vocab,
        "max_positions": config.get("max_position_embeddings", 2048),
        "norm_eps": config.get("rms_norm_eps", 1e-6),
        "tied": config.get("tie_word_embeddings", False),
        **config.rope(),
        **config.ends(),
    }


FAMILY = Family("llama", "LlamaForCausalLM", read)

"""Gemma, the first of that name: scaled embeddings, a GELU gate, norm weights around zero."""

from typing import Any

from server.models.config import Config
from server.models.family import Family
from server.models.llama import read_common
from server.models.tensors import TensorNames


def read(config: Config) -> dict[str, Any]:
    """A `GemmaForCausalLM` config. In hidden_act the first ones wrote gelu for its tanh form."""
    config.only("attention_bias", False)
    config.only("use_bidirectional_attention", False)
    config.only("hidden_activation", "gelu_pytorch_tanh")
    if config.get("hidden_activation") is None:
        config.only("hidden_act", "gelu_pytorch_tanh", "gelu")
    return {**read_common(config), "tied": config.get("tie_word_embeddings", True)}


FAMILY = Family(
    "gemma",
    "GemmaForCausalLM",
    read,
    {"activation": "gelu-tanh", "scaled_embedding": True},
    TensorNames(norm_offset=1.0),
)

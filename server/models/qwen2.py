"""Qwen2 and Qwen2.5: Llama with a bias on the query, key and value projections."""

from typing import Any

from server.models.config import Config
from server.models.family import Family
from server.models.llama import read_common


def read(config: Config) -> dict[str, Any]:
    """A `Qwen2ForCausalLM` config."""
    config.only("use_sliding_window", False)  # it would be for some layers only
    config.only("hidden_act", "silu")
    return read_common(config)


FAMILY = Family("qwen2", "Qwen2ForCausalLM", read, {"qkv_bias": True})

"""Qwen2 and Qwen2.5: Llama with a bias on the query, key and value projections."""

from dataclasses import replace
from typing import Any

from server.models.llama import read_common
from server.models.spec import ModelSpec


def read_config(name: str, config: dict[str, Any]) -> ModelSpec:
    """Hugging Face `Qwen2ForCausalLM` config -> spec."""
    if config.get("use_sliding_window"):
        raise ValueError(f"{name}: use_sliding_window is not supported for Qwen2")
    return replace(read_common(name, "qwen2", config), qkv_bias=True)

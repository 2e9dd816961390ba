"""Mistral: Llama in which a token sees no more than the last `sliding_window` positions."""

from typing import Any

from server.models.config import Config
from server.models.family import Family
from server.models.llama import read_common


def read(config: Config) -> dict[str, Any]:
    """A `MistralForCausalLM` config."""
    config.only("hidden_act", "silu")
    return {**read_common(config), "sliding_window": config.get("sliding_window")}


FAMILY = Family("mistral", "MistralForCausalLM", read)

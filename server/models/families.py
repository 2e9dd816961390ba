"""Hugging Face `config.json` -> ModelSpec, one entry per architecture."""

from collections.abc import Callable
from typing import Any

from server.models import llama, qwen2
from server.models.spec import ModelSpec

Reader = Callable[[str, dict[str, Any]], ModelSpec]

ARCHITECTURES: dict[str, Reader] = {
    "LlamaForCausalLM": llama.read_config,
    "Qwen2ForCausalLM": qwen2.read_config,
}


def spec_from_config(name: str, config: dict[str, Any]) -> ModelSpec:
    """Reads a Hugging Face config. ValueError when the architecture is not one of ours."""
    architectures = config.get("architectures") or []
    for architecture in architectures:
        if architecture in ARCHITECTURES:
            return ARCHITECTURES[architecture](name, config)
    raise ValueError(
        f"{name}: architecture {architectures or 'not named in config.json'} is not supported; "
        f"supported: {', '.join(sorted(ARCHITECTURES))}"
    )

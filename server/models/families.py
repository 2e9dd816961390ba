"""The families that can be served; a new one is one more file and one more line here."""

from typing import Any

from server.models import bloom, gemma, llama, mistral, opt, qwen2, starcoder2
from server.models.config import Config
from server.models.spec import ModelSpec

FAMILIES = {
    module.FAMILY.name: module.FAMILY
    for module in (llama, mistral, qwen2, gemma, starcoder2, opt, bloom)
}
ARCHITECTURES = {family.architecture: family for family in FAMILIES.values()}


def spec_from_config(name: str, config: dict[str, Any]) -> ModelSpec:
    """Reads a Hugging Face config. ValueError when the architecture is not one of ours."""
    architectures = config.get("architectures") or []
    for architecture in architectures:
        if architecture in ARCHITECTURES:
            return ARCHITECTURES[architecture].spec_from_config(Config(name, config))
    raise ValueError(
        f"{name}: architecture {architectures or 'not named in config.json'} is not supported; "
        f"supported: {', '.join(sorted(ARCHITECTURES))}"
    )
